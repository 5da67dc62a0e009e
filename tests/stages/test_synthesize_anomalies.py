from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from blackswan import parallel
from blackswan.data.anomalies import make
from blackswan.data.dataset import Split
from blackswan.data.images import read_image, read_mask, write_png
from blackswan.data.records import Frame, read_index
from blackswan.params import load_section
from stages import synthesize_anomalies as stage

ANOMALIES = "data/anomalies"


def records(project):
    return read_index(project.root / ANOMALIES / "index.csv")


def normal_frames(project):
    """The frames as the stage knows them, with their splits."""
    return [
        replace(frame, image=frame.image.removeprefix("frames/"))
        for frame in read_index(project.root / "data/labels.csv")
        if frame.label == "normal"
    ]


def test_every_frame_gets_one_and_test_frames_the_unseen_ones_too(finished):
    made = records(finished)
    splits = Counter(
        frame.split for frame in read_index(finished.root / "data/labels.csv")
        if frame.label == "normal"
    )  # fmt: skip
    assert Counter(record.defect for record in made) == {
        "salt_and_pepper": splits.total(),
        "perlin_texture": splits["test"],
        "cut_paste": splits["test"],
    }
    first = made[-1]
    assert first.image == f"images/salt_and_pepper/clip/{39:06d}-0.png"
    assert first.source == f"images/clip/{39:06d}.png"
    files = {f"{ANOMALIES}/{name}" for record in made for name in (record.image, record.mask)}
    assert set(finished.outputs(ANOMALIES)) == files | {
        f"{ANOMALIES}/index.csv", f"{ANOMALIES}/quarantine.csv",
    }  # fmt: skip


def test_masks_say_exactly_where_an_image_may_differ_from_its_frame(finished):
    for record in records(finished):
        frame = read_image(finished.root / "data/frames" / record.source)
        image = read_image(finished.root / ANOMALIES / record.image)
        mask = read_mask(finished.root / ANOMALIES / record.mask, image.shape[:2])
        changed = (image != frame).any(axis=2)
        assert not changed[~mask].any()
        assert np.abs(image.astype(int) - frame)[mask].mean() >= 2
        if record.defect == "salt_and_pepper":
            assert set(np.unique(image[changed])) <= {0, 255}


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_the_number_of_workers_changes_no_byte(tiny_project, monkeypatch, cores):
    before = tiny_project.outputs()
    monkeypatch.setattr(parallel, "available_cores", lambda: cores)
    printed = tiny_project.run("synthesize_anomalies")
    assert tiny_project.outputs() == before
    made = records(tiny_project)
    frames = len({record.source for record in made})
    assert printed == (
        f"{len(made)} anomalous images from {frames} frames; "
        "left out, for the frame is too flat or too small: none\n"
    )


def test_another_frame_beside_it_changes_no_anomaly(tiny_project):
    before = tiny_project.outputs(f"{ANOMALIES}/images/salt_and_pepper")
    tiny_project.set(extract_frames__video__start_s=0.2, split__guard_seconds=0)
    tiny_project.run("extract_frames")
    tiny_project.run("synthesize_anomalies")
    after = tiny_project.outputs(f"{ANOMALIES}/images/salt_and_pepper")
    both = before.keys() & after.keys()
    assert len(both) > 20
    assert {name: after[name] for name in both} == {name: before[name] for name in both}


def test_several_anomalies_per_frame_differ(tiny_project):
    tiny_project.set(synthesize_anomalies__anomalies_per_frame=2, synthesize_anomalies__unseen=[])
    tiny_project.run("synthesize_anomalies")
    made = records(tiny_project)
    assert set(Counter(record.source for record in made).values()) == {2}
    masks = tiny_project.outputs(f"{ANOMALIES}/masks")
    assert len(set(masks.values())) == len(masks) == len(made)


def test_several_generators_take_turns_and_test_frames_get_one_of_each(tiny_project):
    kinds = ["salt_and_pepper", "scratch", "spot"]
    tiny_project.set(
        synthesize_anomalies__generators=kinds,
        synthesize_anomalies__unseen=["cut_paste"],
        synthesize_anomalies__anomalies_per_frame=2,
    )
    before = tiny_project.outputs(f"{ANOMALIES}/images/salt_and_pepper")
    tiny_project.run("synthesize_anomalies")
    after = tiny_project.outputs(f"{ANOMALIES}/images/salt_and_pepper")
    frames = normal_frames(tiny_project)
    made = Counter((record.source, record.defect) for record in records(tiny_project))
    for split in ("train", "validation"):
        for position, frame in enumerate(f for f in frames if f.split == split):
            turn = [kinds[position % 3], kinds[(position + 1) % 3]]
            assert [kind for kind in kinds if made.pop((frame.image, kind), 0)] == sorted(turn)
    tested = {frame.image for frame in frames if frame.split == "test"}
    assert made == {(image, kind): 2 for image in tested for kind in [*kinds, "cut_paste"]}
    both = before.keys() & after.keys()
    assert len(both) > 15
    assert {name: after[name] for name in both} == {name: before[name] for name in both}


def test_a_generator_of_several_is_trained_on_and_in_the_main_table(tiny_project):
    tiny_project.set(synthesize_anomalies__generators=["salt_and_pepper", "spot"])
    for name in ("synthesize_anomalies", "label", "build_dataset"):
        tiny_project.run(name)
    for split, more in [("train", set()), ("test", {"perlin_texture", "cut_paste"})]:
        defects = set(Split(tiny_project.root / "data/dataset", split).facts.defect)
        assert defects == {"", "salt_and_pepper", "spot"} | more


def test_a_patch_is_lent_by_another_group_of_the_same_split(small_params):
    params = stage.Params(
        seed=0,
        engine="local",
        max_failed_share=0,
        generators=["poisson_blend"],
        unseen=[],
        anomalies_per_frame=2,
        patch=small_params["synthesize_anomalies"]["patch"],
    )
    for splits, same_group in [("aabbcc", False), ("aaa", True)]:
        frames = [
            Frame(f"images/{split}-{number}.png", "", group=f"{split}/{group}", split=split)
            for split in ("train", "validation", "test")
            for number, group in enumerate(splits)
        ]
        jobs = stage.plan(frames, params)
        assert len(jobs) == 2 * len(frames)
        for job in jobs:
            assert job.lender.split == job.frame.split
            assert job.lender != job.frame
            assert (job.lender.group == job.frame.group) is same_group
        assert len({job.lender for job in jobs}) > len(frames) / 2
        assert jobs == stage.plan(frames, params)
    [alone] = stage.plan(frames[:1], params.model_copy(update={"anomalies_per_frame": 1}))
    assert alone.lender == frames[0]


def test_the_lender_is_seen_in_the_blend(tiny_project, tmp_path, monkeypatch):
    tiny_project.set(
        synthesize_anomalies__generators=["poisson_blend"],
        synthesize_anomalies__unseen=[],
        synthesize_anomalies__patch__radius_min=0.25,
        synthesize_anomalies__patch__radius_max=0.4,
    )
    monkeypatch.chdir(tiny_project.root)
    params = load_section(stage.Params, "synthesize_anomalies")
    frames = normal_frames(tiny_project)
    blended = 0
    for job in stage.plan(frames, params)[::4]:
        images = []
        for lender in (job.lender, job.frame):
            changed = replace(job, lender=lender)
            if make(changed, params.seed, params.patch, stage.FRAMES, tmp_path):
                images.append((tmp_path / f"images/{job.name}.png").read_bytes())
        assert len(set(images)) == len(images)
        blended += len(images) == 2
    assert blended > 3


def test_another_seed_makes_other_anomalies(tiny_project):
    before = tiny_project.outputs(f"{ANOMALIES}/masks")
    tiny_project.set(synthesize_anomalies__seed=1)
    tiny_project.run("synthesize_anomalies")
    after = tiny_project.outputs(f"{ANOMALIES}/masks")
    assert before.keys() == after.keys()
    assert sum(before[name] == after[name] for name in before) == 0


def test_real_anomalies_are_tested_on_alone(tiny_project, mvtec_tree):
    tiny_project.set(source__path=str(mvtec_tree))
    tiny_project.run("extract_frames")
    tiny_project.run("synthesize_anomalies")
    made = records(tiny_project)
    assert {record.defect for record in made} == {"salt_and_pepper"}
    assert {record.source.split("/")[1] for record in made} == {"train"}
    assert len(made) == 16


def test_flat_frames_are_left_out_and_all_flat_frames_refused(tiny_project):
    tiny_project.set(
        synthesize_anomalies__generators=["gaussian_blur"],
        synthesize_anomalies__unseen=[],
        extract_frames__video__every_n_seconds=0.2,
        split__guard_seconds=0,
    )
    tiny_project.run("extract_frames")
    images = sorted((tiny_project.root / "data/frames/images/clip").iterdir())
    flat = read_image(images[0]) * 0 + 90
    write_png(images[0], flat)
    assert "too small: 1 gaussian_blur" in tiny_project.run("synthesize_anomalies")
    for path in images:
        write_png(path, flat)
    message = tiny_project.refuse("synthesize_anomalies")
    assert "no frame of data/frames can show gaussian_blur" in message
