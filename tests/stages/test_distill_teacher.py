"""The teacher of EfficientAD, distilled from a random EfficientNet-Lite0."""

import importlib.util
import itertools
import json
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from kills import killed_at, run_forked
from safetensors.torch import save_file

from blackswan.data.images import read_image, write_png
from blackswan.networks import photos, training
from blackswan.networks.backbones import load_backbone
from blackswan.networks.pdn import load_teacher, patch_grid
from blackswan.networks.weights import IMAGENET

STAGE = Path(__file__).parents[2] / "stages" / "distill_teacher.py"
TEACHER = "data/weights/pdn_small"
PARAMS = {
    "seed": 0,
    "images": "data/dataset/train",
    "photos": 2,
    "backbone": "efficientnet_lite0",
    "layers": [2, 3],
    "size": "S",
    "image_size": 64,
    "batch_size": 2,
    "steps": 3,
    "learning_rate": 1e-3,
    "weight_decay": 1e-5,
}
EFFICIENT_AD = {
    "backbone": "pdn_small",
    "image_size": 64,
    "crop_size": 48,
    "steps": 2,
    "learning_rate": 1e-3,
    "weight_decay": 1e-5,
}
PHOTOS = {"sea": (60, 40), "wood": (30, 600)}  # (H, W)


class KilledError(Exception):
    """Stands for a kill: nothing after it runs."""


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    """A random EfficientNet-Lite0 as fetch_weights writes it; read only."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    folder = tmp_path_factory.mktemp("lite0")
    torch.manual_seed(0)
    network = package.EfficientNet.from_name("efficientnet-lite0", image_size=None)
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "efficientnet_lite0"}')
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET))
    return folder


@pytest.fixture
def project(tiny_project, lite0, monkeypatch):
    """The tiny project with backbone and params, and with drawn photos in place of the wheels'."""
    weights = tiny_project.root / "data/weights"
    (weights / "efficientnet_lite0").symlink_to(lite0)
    change(tiny_project, **PARAMS)
    rng = np.random.default_rng(0)
    drawn = {name: rng.integers(0, 256, (*size, 3)).astype("u1") for name, size in PHOTOS.items()}
    monkeypatch.setattr(photos, "sample_photos", lambda: drawn)
    return tiny_project


@pytest.fixture(scope="module")
def stage():
    spec = importlib.util.spec_from_file_location("distill_teacher", STAGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def change(project, **changes):
    """Change the block of this stage; it is not one of the default params of every test."""
    path = project.root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["distill_teacher"] = {
        "pdn_small": {**params["distill_teacher"].get("pdn_small", {}), **changes}
    }
    params["detectors"]["efficient_ad"] = EFFICIENT_AD
    path.write_text(yaml.safe_dump(params))


def test_the_teacher_and_the_photos_are_written_and_fit_a_detector(project):
    *steps, last = project.run("distill_teacher", "pdn_small").splitlines()
    assert [line.split(",")[0] for line in steps] == [
        f"distill_teacher: step {step} of 3" for step in (1, 2, 3)
    ]
    assert last.startswith(f"{TEACHER}: loss ")
    assert "after 3 steps on 19 normal train images and 2 photos of pinned wheels" in last
    files = project.outputs(TEACHER)
    names = [
        "config.json", "losses.csv", "model.safetensors", "photos/sea.png", "photos/wood.png",
        "preprocessor_config.json", "weights.json",
    ]  # fmt: skip
    assert list(files) == [f"{TEACHER}/{name}" for name in names]
    assert json.loads(files[f"{TEACHER}/preprocessor_config.json"]) == IMAGENET
    assert load_teacher(project.root / TEACHER).channels == 40 + 80
    assert read_image(project.root / TEACHER / "photos/sea.png").shape == (60, 40, 3)
    assert read_image(project.root / TEACHER / "photos/wood.png").shape == (26, 512, 3)
    assert not (project.root / "data/checkpoints/pdn_small").exists()

    *_, last = project.run("fit_detector", "efficient_ad").splitlines()
    assert last == "efficient_ad: fitted on 19 normal images"


def test_killed_and_resumed_it_ends_with_the_same_bytes(project, monkeypatch):
    project.run("distill_teacher", "pdn_small")
    whole = project.outputs(TEACHER)
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    step, calls = torch.optim.Adam.step, []

    def killing(self, *arguments, **keywords):
        calls.append(1)
        if len(calls) == 3:
            raise KilledError
        return step(self, *arguments, **keywords)

    monkeypatch.setattr(torch.optim.Adam, "step", killing)
    with pytest.raises(KilledError):
        project.run("distill_teacher", "pdn_small")
    assert project.outputs(TEACHER) == whole  # the earlier result is still there
    (run,) = (project.root / "data/checkpoints/pdn_small").iterdir()
    assert [path.name for path in run.iterdir()] == ["checkpoint-2"]
    for path in (project.root / TEACHER).glob("*.*"):
        path.unlink()
    project.run("distill_teacher", "pdn_small")
    assert len(calls) == 4  # the third step alone
    assert project.outputs(TEACHER) == whole


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("stage_name", "name", "output"),
    [
        ("distill_teacher", "pdn_small", TEACHER),
        ("fit_detector", "efficient_ad", "data/models/efficient_ad"),
    ],
)
def test_killed_anywhere_in_its_clean_up_it_ends_with_the_same_bytes(
    project, monkeypatch, stage_name, name, output
):
    change(project, steps=2)
    project.run("distill_teacher", "pdn_small")
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    project.run(stage_name, name)
    undisturbed = project.outputs(output)
    for number in itertools.count(1):
        shutil.rmtree(project.root / output, ignore_errors=True)  # as DVC does before a stage
        if not killed_at(number, lambda: project.run(stage_name, name)):
            break
        assert run_forked(lambda: project.run(stage_name, name)) == 0
        assert project.outputs(output) == undisturbed
        assert not (project.root / f"data/checkpoints/{name}").exists()
    assert number > 20


def test_a_folder_of_images_takes_the_place_of_the_dataset(project, monkeypatch):
    monkeypatch.delattr(photos, "sample_photos")
    monkeypatch.setattr(photos, "sample_photos", lambda: 1 / 0, raising=False)
    rng = np.random.default_rng(1)
    for number in range(4):
        image = rng.integers(0, 256, (50 + number, 60, 3)).astype(np.uint8)
        write_png(project.root / f"imagenet/n{number % 2}/{number}.png", image)
    change(project, images="imagenet", steps=1)
    assert "after 1 steps on 4 images" in project.run("distill_teacher", "pdn_small")
    kept = sorted((project.root / TEACHER / "photos").iterdir())
    assert len(kept) == 2
    assert {read_image(path).shape[0] for path in kept} <= {50, 51, 52, 53}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "absent"}, "absent is not a folder"),
        ({"images": "data/weights"}, "images: data/weights holds no image; name a folder"),
        ({"backbone": "absent"}, "data/weights/absent is missing; run `dvc repro fetch_weights`"),
        ({"layers": [7]}, "choose from 0 to 6"),
        ({"size": "L"}, "distill_teacher.pdn_small.size = 'L': Input should be 'S' or 'M'"),
        ({"image_size": 100}, "distill_teacher.pdn_small.image_size = 100"),
        ({"step": 1}, "distill_teacher.pdn_small.step is not a known key; did you mean steps?"),
    ],
)
def test_bad_params_end_in_one_sentence(project, changes, message):
    change(project, **changes)
    assert message in project.refuse("distill_teacher", "pdn_small")


@pytest.mark.parametrize(("size", "pixels"), [("S", 64), ("M", 64), ("S", 96)])
def test_the_target_lies_on_the_grid_of_the_teacher(stage, lite0, size, pixels):
    backbone = load_backbone(lite0, [1, 2, 4], 2 * pixels)
    view = np.zeros((pixels, pixels, 3), np.uint8)
    side, _ = patch_grid((pixels, pixels), size)
    target = stage.describe(backbone, [view], size)
    assert target.shape == (1, 24 + 40 + 112, side, side)

    # What changes in the target by a dot lies around the patch that has the dot in its middle.
    row, column = side // 2, side // 2 - 1
    dotted = view.copy()
    dotted[4 * row + 15 : 4 * row + 19, 4 * column + 15 : 4 * column + 19] = 255
    difference = (stage.describe(backbone, [dotted], size) - target)[0, :24].square().sum(0)
    grid = torch.arange(side)
    mass = difference / difference.sum()
    assert abs((mass.sum(1) * grid).sum() - row) < 1
    assert abs((mass.sum(0) * grid).sum() - column) < 1


def test_the_target_is_normalised(stage, lite0):
    backbone = load_backbone(lite0, [2], 128)
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (70, 70, 3)).astype(np.uint8) for _ in range(3)]
    views = stage.Views([[lambda image=image: image for image in images]], 0, "normalisation")
    mean, std = stage.measure(backbone, views, 6, "S")
    target = torch.cat([stage.describe(backbone, [views[number]], "S") for number in range(6)])
    scaled = (target - mean) / std
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(40), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        scaled.var((0, 2, 3), correction=0), torch.ones(40), rtol=0, atol=1e-3
    )


def test_the_pools_take_turns_in_shuffled_passes(stage):
    pools = [
        [lambda value=value: np.full((4, 4, 3), value, np.uint8) for value in values]
        for values in ((1, 2, 3), (200, 201))
    ]
    views = stage.Views(pools, 0, "training")
    taken = [int(views[number][0, 0, 0]) for number in range(12)]
    assert sorted(taken[0:6:2]) == sorted(taken[6:12:2]) == [1, 2, 3]
    assert sorted(taken[1:5:2]) == sorted(taken[5:9:2]) == [200, 201]


def test_the_name_of_a_run_follows_params_data_and_weights(stage, project):
    with chdir(project.root):
        params = stage.Params(**PARAMS)
        names = {stage.name_of_run(params)}
        assert stage.name_of_run(params) in names
        names.add(stage.name_of_run(stage.Params(**{**PARAMS, "steps": 9})))
        shard = sorted(params.images.iterdir())[0]
        shard.write_bytes(shard.read_bytes() + b"\0")
        names.add(stage.name_of_run(params))
    assert len(names) == 3
