import cv2
import numpy as np
import pytest
from conftest import SHARED, draw_part

from blackswan.data.images import write_png
from blackswan.data.records import Frame
from blackswan.data.sequences import differences, series, with_times
from blackswan.data.splits import Params, assign_splits
from blackswan.errors import InputError

REST = {"train": 0.5, "validation": 0.25, "block_seconds": 0.2, "guard_seconds": 0.1, "seed": 0}


def params(sequences="auto", frames_per_second=25):
    return Params(sequences=sequences, frames_per_second=frames_per_second, **REST)


def photo(name, **fields):
    return Frame(
        **{"image": f"images/{name}.png", "source": "walk", "group": name, "label": "normal"}
        | fields
    )


NOISE = np.random.default_rng(0).integers(0, 256, (40, 300, 3)).astype(np.uint8)
TEXTURE = cv2.GaussianBlur(NOISE, (0, 0), 3)


def moving(number):
    """A view that slides over one texture."""
    return TEXTURE[:, 2 * number : 2 * number + 40]


def part(number):
    return draw_part(np.random.default_rng(number))[0]


@pytest.fixture
def folder(tmp_path):
    """Write images below a folder; returns a function that does so and gives their records."""

    def write(names, draw):
        for number, name in enumerate(names):
            path = tmp_path / "images" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, np.ascontiguousarray(draw(number)))
        return [photo(name) for name in names]

    write.root = tmp_path
    return write


def names(count, prefix="normal/name_", digits=4):
    return [f"{prefix}{number:0{digits}d}" for number in range(1, count + 1)]


def test_frames_of_one_video_get_a_time_by_their_order(folder, capsys):
    frames = folder(names(40, digits=0), moving)  # 10 comes before 2 by name
    found = with_times(frames[::-1], folder.root, params(frames_per_second=10))
    by_name = {frame.image: frame for frame in found}
    assert [by_name[frame.image].timestamp_s for frame in frames] == [n / 10 for n in range(40)]
    assert {frame.source for frame in found} == {"walk/normal/name_*"}
    assert {frame.group for frame in found} == {""}
    said = capsys.readouterr().out
    assert said.startswith("walk/normal/name_*: 40 numbered photos, neighbours ")
    assert "frames of one video, split by blocks of their order (split.sequences: false" in said


def test_parts_that_are_numbered_stay_photos(folder, capsys):
    frames = folder(names(40, "good/", 3), part)
    assert with_times(frames, folder.root, params()) == frames
    said = capsys.readouterr().out
    assert said.startswith("walk/good/*: 40 numbered photos, neighbours ")
    assert "separate photos (split.sequences: true if they are frames of one video)" in said


def test_the_param_overrides_what_the_images_say(folder, capsys):
    frames, parts = folder(names(30), moving), folder(names(5, "b"), part)
    assert with_times(frames, folder.root, params(False)) == frames
    found = with_times(parts, folder.root, params(True))
    assert [frame.timestamp_s for frame in found] == [0.0, 0.04, 0.08, 0.12, 0.16]
    assert capsys.readouterr().out == ""


def test_each_series_is_judged_alone_and_what_is_not_numbered_stays(folder):
    frames = [
        *folder(names(25, "a/"), moving),
        *folder(names(25, "b/cam_"), moving),
        *folder(names(25, "b/part"), part),
        *folder(["b/poster", "c/1"], part),
    ]
    found = with_times(frames, folder.root, params())
    assert [frame.image for frame in found] == [frame.image for frame in frames]
    timed = {frame.source for frame in found if frame.timestamp_s is not None}
    assert timed == {"walk/a/*", "walk/b/cam_*"}
    assert found[50:] == frames[50:]


def test_of_many_series_the_first_are_told_and_all_are_counted(folder, capsys):
    for number in range(7):
        frames = folder(names(20, f"{number}/"), moving if number else part)
        found = with_times(frames, folder.root, params())
        assert (found != frames) == bool(number)
    capsys.readouterr()
    frames = [photo(name) for number in range(7) for name in names(20, f"{number}/")]
    assert sum(f.timestamp_s is not None for f in with_times(frames, folder.root, params())) == 120
    said = capsys.readouterr().out.splitlines()
    assert [line[:7] for line in said[:5]] == [f"walk/{number}/" for number in range(5)]
    assert said[5:] == ["6 of 7 series of numbered photos are frames of one video"]


def test_too_few_are_not_judged(folder, capsys):
    frames = folder(names(19), moving)
    assert with_times(frames, folder.root, params()) == frames
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "fields",
    [{"split": "train"}, {"group": "part-1"}, {"label": "anomalous"}, {"timestamp_s": 0.0}],
)
def test_what_is_given_is_left(folder, fields):
    frames = [photo(name, **fields) for name in names(30)]
    assert with_times(frames, folder.root, params()) == frames  # no file is read
    assert {series(frame) for frame in frames} == {""}
    if "timestamp_s" in fields:
        assert with_times(frames, folder.root, params(True)) == frames
    else:
        with pytest.raises(InputError, match=r"split\.sequences is true, .* set it to auto"):
            with_times(frames, folder.root, params(True))


def test_equal_images_are_no_frames(folder):
    frames = folder(names(30), lambda number: moving(0))
    assert with_times(frames, folder.root, params()) == frames


def test_blocks_and_guard_gap_by_hand(folder):
    # 40 frames at 25 a second: 8 blocks of 5, borders at 20 and 30; 2 before and 3 after go.
    found = assign_splits(with_times(folder(names(40), moving), folder.root, params()), params())
    split = {int(frame.image[-8:-4]) - 1: frame.split for frame in found}
    assert [n for n in range(40) if n not in split] == [18, 19, 20, 21, 22, 28, 29, 30, 31, 32]
    for name, members in (("train", range(18)), ("validation", range(23, 28)),
                          ("test", range(33, 40))):  # fmt: skip
        assert [n for n, given in split.items() if given == name] == list(members)
    assert found[0].group == "walk/normal/name_*/000000"
    assert found[-1].group == "walk/normal/name_*/000007"


def test_few_images_of_a_long_sequence_are_read():
    read = []

    def counted(number):
        read.append(number)
        return np.ascontiguousarray(moving(number // 10))

    near, far = differences(range(1000), counted)
    assert len(read) <= 200
    assert np.median(near) < 0.1 * np.median(far)


@pytest.mark.parametrize(
    "clip",
    ["blackswan.mp4", "flipping_a_pancake.mkv", "no_duration.webm", "newtonscradle.gif",
     "tree_declares_444_has_68.avi", "corrupted.mp4", "../cases/video/static10s.mp4"],
)  # fmt: skip
def test_frames_of_real_clips_are_recognised(shared_videos, folder, clip):
    capture, images = cv2.VideoCapture(str(shared_videos / clip)), []
    while len(images) < 100 and capture.grab():
        images.append(cv2.resize(capture.retrieve()[1], (96, 96), interpolation=cv2.INTER_AREA))
    frames = folder(names(len(images)), lambda number: images[number])
    assert [f.timestamp_s for f in with_times(frames, folder.root, params())][:2] == [0.0, 0.04]


@pytest.mark.parametrize(
    "photos",
    ["folder/aliens/normal", "lookout_cookies/training-images", "mvtec/screw/train/good",
     "mvtec/screw/test/good", "deeppcb/normal"],
)  # fmt: skip
def test_photos_of_real_parts_are_not(folder, photos):
    files = sorted((SHARED / photos).glob("*"))
    if not files:
        pytest.skip(f"no ../shared/data/{photos}")
    files = [file for file in files if file.suffix in (".png", ".jpg")][:100]
    images = [cv2.resize(cv2.imread(str(file)), (96, 96)) for file in files]
    frames = folder(names(len(images)), lambda number: images[number])
    assert with_times(frames, folder.root, params()) == frames
