from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from pydantic import ValidationError

from blackswan.data.records import Frame
from blackswan.data.splits import Params, assign_splits, defects_left_out
from blackswan.errors import InputError

DEFAULT = {
    "train": 0.55,
    "validation": 0.2,
    "block_seconds": 0.2,
    "guard_seconds": 0.1,
    "sequences": "auto",
    "frames_per_second": 25,
    "seed": 0,
}


def params(**changes):
    return Params(**{**DEFAULT, **changes})


def video(count, fps=24, source="clip.mp4", start=0.0):
    stem = source.split(".")[0]
    return [
        Frame(f"images/{stem}/{n:06d}.png", source, round(start + n / fps, 6), label="normal")
        for n in range(count)
    ]


def photos(groups, shots=1, label="normal", start=0):
    return [
        Frame(f"{label}/{group:03d}-{shot}", "photos", group=f"part-{group}", label=label)
        for group in range(start, start + groups)
        for shot in range(shots)
    ]


def splits_by_group(frames):
    splits = defaultdict(set)
    for frame in frames:
        splits[frame.group].add(frame.split)
    return splits


def test_a_video_is_cut_along_its_time_by_hand():
    # 40 frames in 2 s: 10 blocks, borders at 1.0 and 1.6; the guard takes 3 frames at each.
    frames = assign_splits(
        video(40, fps=20), params(train=0.5, validation=0.25, guard_seconds=0.06)
    )
    assert Counter(frame.split for frame in frames) == {"train": 19, "validation": 9, "test": 6}
    gone = {round(n * 0.05, 6) for n in range(40)} - {frame.timestamp_s for frame in frames}
    assert sorted(gone) == [0.95, 1.0, 1.05, 1.55, 1.6, 1.65]
    assert frames[0].group == "clip.mp4/000000"
    assert frames[-1].group == "clip.mp4/000009"


@pytest.mark.parametrize("fps", [5, 10, 23.976, 24, 25, 29.97, 30, 60])
@pytest.mark.parametrize("block_seconds", [0.1, 0.2, 0.25, 0.3, 0.7])
@pytest.mark.parametrize("start", [0.0, 0.7, 13.3])
def test_no_block_lies_in_two_splits(fps, block_seconds, start):
    for guard_seconds in (0.0, 0.1):
        chosen = params(block_seconds=block_seconds, guard_seconds=guard_seconds)
        frames = assign_splits(video(200, fps, start=start), chosen)
        assert {len(splits) for splits in splits_by_group(frames).values()} == {1}
        times = defaultdict(list)
        for frame in frames:
            times[frame.split].append(frame.timestamp_s)
        for before, after in (("train", "validation"), ("validation", "test")):
            assert min(times[after]) - max(times[before]) > 0
            assert min(times[after]) - max(times[before]) >= 2 * guard_seconds - 1e-6
        if guard_seconds == 0:
            assert len(frames) == 200


def test_every_video_is_cut_by_itself():
    frames = assign_splits([*video(100), *video(50, source="other.mov", start=5.0)], params())
    for source, count in (("clip.mp4", 100), ("other.mov", 50)):
        shares = Counter(frame.split for frame in frames if frame.source == source)
        assert shares["train"] / count == pytest.approx(0.5, abs=0.1)
        assert min(shares["validation"], shares["test"]) > 0
    assert not {f.group for f in frames if f.source == "clip.mp4"} & {
        f.group for f in frames if f.source == "other.mov"
    }


def test_what_is_anomalous_in_a_video_tests_and_its_neighbours_do_not_train():
    def labelled(frame):
        is_odd = 20 <= frame.timestamp_s < 22 or 90 <= frame.timestamp_s < 95
        return replace(frame, label="anomalous") if is_odd else frame

    clip = [labelled(frame) for frame in video(100, fps=1)]
    frames = assign_splits(clip, params(block_seconds=5, guard_seconds=3))
    anomalous = [frame for frame in frames if frame.label == "anomalous"]
    assert [frame.timestamp_s for frame in anomalous] == [20, 21, 90, 91, 92, 93, 94]
    assert {frame.split for frame in anomalous} == {"test"}
    normal = {frame.timestamp_s: frame.split for frame in frames if frame.label == "normal"}
    assert not normal.keys() & {18, 19, 22, 23}
    assert normal[17] == normal[24] == "train"
    assert normal[89] == normal[95] == "test"
    assert {len(splits) for splits in splits_by_group(frames).values()} == {1}


def test_a_clip_of_anomalies_tests():
    clip = [replace(f, label="anomalous") for f in video(50, source="bad.mp4")]
    frames = assign_splits([*video(100), *clip], params())
    assert {f.split for f in frames if f.source == "bad.mp4"} == {"test"}
    assert sum(f.source == "bad.mp4" for f in frames) == 50


def test_groups_of_photos_stay_whole():
    frames = assign_splits(photos(20, shots=6), params())
    assert Counter(frame.split for frame in frames) == {
        "train": 66,
        "validation": 24,
        "test": 30,
    }
    assert {len(splits) for splits in splits_by_group(frames).values()} == {1}
    assert [frame.image for frame in frames] == sorted(frame.image for frame in frames)


def test_a_group_with_a_defect_goes_to_test_with_all_its_shots():
    defects = photos(5, label="anomalous", start=17)  # parts 17 to 19 have normal shots too
    frames = assign_splits([*photos(20), *defects], params())
    assert {frame.split for frame in frames if frame.label == "anomalous"} == {"test"}
    assert {len(splits) for splits in splits_by_group(frames).values()} == {1}
    assert {f.split for f in frames if f.group in ("part-17", "part-18", "part-19")} == {"test"}


def test_pairs_of_a_normal_and_an_anomalous_image_train_and_test():
    pairs = [*photos(40), *photos(40, label="anomalous")]
    frames = assign_splits(pairs, params())
    assert Counter((frame.split, frame.label) for frame in frames) == {
        ("train", "normal"): 22,
        ("validation", "normal"): 8,
        ("test", "normal"): 10,
        ("test", "anomalous"): 10,
    }
    assert {len(splits) for splits in splits_by_group(frames).values()} == {1}
    assert defects_left_out(pairs, frames).startswith("30 anomalous images are left out: most ")


def test_half_of_the_groups_without_defects_are_enough_to_learn_from():
    pairs = [*photos(40), *photos(20, label="anomalous")]
    frames = assign_splits(pairs, params())
    assert Counter((frame.split, frame.label) for frame in frames) == {
        ("train", "normal"): 11,
        ("validation", "normal"): 4,
        ("test", "normal"): 25,
        ("test", "anomalous"): 20,
    }
    assert defects_left_out(pairs, frames) == ""


def test_groups_that_the_source_tests_do_not_train():
    tested = [replace(f, split="test") for f in photos(3, label="anomalous")]
    frames = assign_splits([*photos(20, shots=2), *tested], params())
    assert {f.split for f in frames if f.group in ("part-0", "part-1", "part-2")} == {"test"}
    assert {len(splits) for splits in splits_by_group(frames).values()} == {1}


def test_a_group_in_two_given_splits_is_refused():
    train = [replace(f, split="train") for f in photos(4)]
    test = [replace(f, split="test", image=f"test/{f.image}") for f in photos(1, start=3)]
    with pytest.raises(InputError) as caught:
        assign_splits([*train, *test], params())
    assert str(caught.value) == (
        "the group part-3 lies in train (normal/003-0) and in test (test/normal/003-0), which the "
        "source keeps apart; move its images together, or change "
        "extract_frames.folder.group_pattern"
    )


def test_the_seed_chooses_the_groups_and_their_order_does_not_matter():
    def trained(frames, seed):
        return {f.group for f in assign_splits(frames, params(seed=seed)) if f.split == "train"}

    frames = photos(40)
    assert trained(frames, 0) == trained(frames[::-1], 0)
    assert trained(frames, 0) != trained(frames, 1)


def given(train=20, test=6, validation=0):
    counts = {"train": train, "validation": validation, "test": test}
    return [
        Frame(f"{split}/{n:03d}", "washer", group=f"{split}/{n}", split=split, label="normal")
        for split, count in counts.items()
        for n in range(count)
    ]


def test_a_given_test_split_is_kept_and_validation_leaves_train():
    frames = assign_splits(given(), params(train=0.6, validation=0.2))
    assert Counter(frame.split for frame in frames) == {"train": 15, "validation": 5, "test": 6}
    for frame in frames:
        assert (frame.split == "test") == frame.image.startswith("test/")


def test_a_given_validation_is_kept():
    frames = given(validation=4)
    assert assign_splits(frames, params()) == sorted(frames, key=lambda frame: frame.image)


@pytest.mark.parametrize(
    ("frames", "changes", "split"),
    [
        (video(4), {}, "validation"),
        (video(100), {"block_seconds": 100}, "validation"),
        (video(100), {"guard_seconds": 100}, "train"),
        (photos(2), {}, "validation"),
        (photos(0), {}, "train"),
        (given(train=1), {}, "validation"),
        (given(test=0), {}, "test"),
        ([*photos(1), *photos(9, label="anomalous", start=1)], {}, "validation"),
    ],
)
def test_a_split_without_normal_images_is_refused(frames, changes, split):
    with pytest.raises(InputError, match=f"the {split} split gets no normal image; give"):
        assign_splits(frames, params(**changes))


def test_test_needs_room():
    with pytest.raises(ValidationError, match=r"train \+ validation must be below 1"):
        params(train=0.8, validation=0.2)
