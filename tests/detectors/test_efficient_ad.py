import json

import cv2
import numpy as np
import pytest
import torch
from conftest import Pictures

from blackswan.data.images import write_png
from blackswan.detectors import efficient_ad
from blackswan.detectors.interface import Resources
from blackswan.errors import InputError
from blackswan.networks import training
from blackswan.networks.pdn import PHOTOS, Pdn, save_teacher
from blackswan.networks.training import torch_seed
from blackswan.seeds import generator

PARAMS = {
    "backbone": "tiny",
    "image_size": 64,
    "crop_size": None,
    "steps": 4,
    "learning_rate": 1e-3,
    "weight_decay": 1e-5,
}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class KilledError(Exception):
    """Stands for a kill: nothing after it runs."""


def draw(number, size=64):
    """A texture of its own for every number."""
    rng = np.random.default_rng(number)
    noise = rng.integers(90, 160, (size, size, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A random teacher with five channels, and two photos; read only."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    folder.mkdir()
    with torch_seed(np.random.default_rng(4)):
        save_teacher(folder, Pdn("S", 5), MEAN, STD, {})
    rng = np.random.default_rng(5)
    for name in ("a", "b"):
        write_png(folder / PHOTOS / f"{name}.png", rng.integers(0, 256, (40, 50, 3)).astype("u1"))
    return folder.parent


def fit(weights, checkpoints, images=None, seed=1, **changes):
    params = efficient_ad.Params(**{**PARAMS, **changes})
    images = Pictures(draw(number) for number in range(4)) if images is None else images
    validation = [draw(number) for number in range(10, 13)]
    return efficient_ad.fit(images, params, Resources(validation, weights, checkpoints, seed))


@pytest.fixture(scope="module")
def fitted(weights, tmp_path_factory):
    """A detector after a few steps; read only."""
    return fit(weights, tmp_path_factory.mktemp("fitted"))


@pytest.fixture(scope="module")
def images():
    """Two normal images and the same two with a square painted in the same place."""
    normal = [draw(number) for number in (20, 21)]
    painted = [image.copy() for image in normal]
    for image in painted:
        image[36:48, 20:32] = (250, 20, 20)
    return normal + painted


def written(detector, folder):
    folder.mkdir()
    detector.save(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_painted_square_scores_higher_and_the_map_peaks_in_it(fitted, images):
    scores = fitted.score(images)
    assert scores.image_scores[2:].min() > 2 * scores.image_scores[:2].max()
    assert scores.anomaly_maps.shape == (4, 64, 64)
    for anomaly_map in scores.anomaly_maps[2:]:
        row, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
        assert 34 <= row < 50
        assert 18 <= column < 34


def test_maps_have_the_size_of_the_images(fitted):
    scores = fitted.score([draw(30, 96)[:80]])
    assert scores.anomaly_maps.shape == (1, 80, 96)
    assert scores.anomaly_maps.dtype == scores.image_scores.dtype == np.float32


def test_a_batch_of_four_equals_four_of_one(fitted, images):
    whole = fitted.score(images)
    for number, image in enumerate(images):
        single = fitted.score([image])
        assert single.image_scores[0] == whole.image_scores[number]
        assert np.array_equal(single.anomaly_maps[0], whole.anomaly_maps[number])


def test_saved_and_loaded_is_the_same(fitted, images, tmp_path):
    files = written(fitted, tmp_path / "saved")
    assert sorted(files) == ["detector.json", "detector.safetensors", "losses.csv"]
    loaded = efficient_ad.load(tmp_path / "saved")
    before, after = fitted.score(images), loaded.score(images)
    assert np.array_equal(before.anomaly_maps, after.anomaly_maps)
    assert np.array_equal(before.image_scores, after.image_scores)
    assert written(loaded, tmp_path / "again") == files
    assert json.loads(files["detector.json"])["params"] == PARAMS
    assert len(files["losses.csv"].splitlines()) == 1 + PARAMS["steps"]


def test_the_seed_decides(fitted, weights, tmp_path):
    first = written(fitted, tmp_path / "first")
    assert written(fit(weights, tmp_path / "a"), tmp_path / "second") == first
    other = written(fit(weights, tmp_path / "b", seed=2), tmp_path / "third")
    assert other["detector.safetensors"] != first["detector.safetensors"]


@pytest.mark.parametrize("crop_size", [None, 48])
def test_killed_and_resumed_it_ends_with_the_same_bytes(weights, tmp_path, monkeypatch, crop_size):
    whole = written(fit(weights, tmp_path / "whole", crop_size=crop_size), tmp_path / "expected")
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    step, calls = torch.optim.Adam.step, []

    def killing(self, *arguments, **keywords):
        calls.append(1)
        if len(calls) == 3:
            raise KilledError
        return step(self, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", killing)
        with pytest.raises(KilledError):
            fit(weights, tmp_path / "killed", crop_size=crop_size)
    (run,) = (tmp_path / "killed/runs").iterdir()
    assert [path.name for path in run.iterdir()] == ["checkpoint-2"]
    calls.clear()

    def counting(self, *arguments, **keywords):
        calls.append(1)
        return step(self, *arguments, **keywords)

    monkeypatch.setattr(torch.optim.Adam, "step", counting)
    resumed = fit(weights, tmp_path / "killed", crop_size=crop_size)
    assert len(calls) == 2
    assert written(resumed, tmp_path / "resumed") == whole


def test_a_checkpoint_of_another_run_is_not_resumed(weights, tmp_path):
    images = Pictures(draw(number) for number in (0, 1, 2, 9))
    names = set()
    for change in ({}, {"learning_rate": 2e-3}, {"seed": 2}, {"images": images}):
        fit(weights, tmp_path, steps=1, **change)
        (run,) = (tmp_path / "runs").iterdir()  # the one before is gone
        names.add(run.name)
    assert len(names) == 4


def test_teacher_and_maps_are_on_the_scale_of_normal_images(fitted):
    with torch.inference_mode():
        told = torch.cat([fitted.network.teacher(fitted.inputs(draw(n))) for n in range(4)])
        maps = torch.cat([fitted.network.raw_maps(fitted.inputs(draw(n))) for n in (10, 11, 12)])
    torch.testing.assert_close(told.mean((0, 2, 3)), torch.zeros(5), rtol=0, atol=1e-4)
    torch.testing.assert_close(told.var((0, 2, 3), correction=0), torch.ones(5), rtol=0, atol=1e-3)
    for row in range(2):
        expected = np.quantile(maps[:, row].numpy(), [0.9, 0.995])
        np.testing.assert_allclose(fitted.network.quantiles[row], expected, rtol=1e-5)
    # A place where both maps are at their q_a is 0, where both are at q_b it is 0.1.
    low, high = fitted.network.quantiles.T
    scaled = 0.1 * (torch.stack([low, high]) - low) / (high - low)
    torch.testing.assert_close(scaled.mean(1), torch.tensor([0.0, 0.1]))


def test_the_loss_is_that_of_the_paper(weights):
    with torch_seed(generator(0, "loss")):
        network = efficient_ad.Network(Pdn("S", 40), (64, 64)).eval()
        image, jittered, photo = torch.rand(3, 1, 3, 64, 64)
    with torch.no_grad():
        found = network.loss(image, jittered, photo, (0, 0, 64, 64))
        teacher, student = network.teacher, network.student
        squares = (teacher(image) - student(image)[:, :40]) ** 2
        hard = squares[squares >= torch.quantile(squares, 0.999)].mean()
        penalty = (student(photo)[:, :40] ** 2).mean()
        imitated = network.autoencoder(jittered)
        autoencoding = ((teacher(jittered) - imitated) ** 2).mean()
        following = ((imitated - student(jittered)[:, 40:]) ** 2).mean()
    torch.testing.assert_close(found, hard + penalty + autoencoding + following)


def test_a_window_counts_only_its_patches():
    with torch_seed(generator(0, "window")):
        network = efficient_ad.Network(Pdn("S", 3), (64, 64)).eval()
        image, jittered, photo = torch.rand(3, 1, 3, 64, 64)
    outside = torch.ones(64, 64, dtype=bool)
    outside[8:56, 16:64] = False
    changed = image.clone()
    changed[..., outside] = 5
    with torch.no_grad():
        found = [network.loss(x, jittered, photo, (8, 16, 48, 48)) for x in (image, changed)]
        whole = network.loss(image, jittered, photo, (0, 0, 64, 64))
    assert found[0] == found[1]
    assert found[0] != whole


@pytest.mark.parametrize(
    ("image_size", "bottleneck"), [((64, 64), (2, 2)), ((224, 96), (7, 3)), ((256, 256), (8, 8))]
)
def test_the_autoencoder_fits_every_size(image_size, bottleneck):
    network = efficient_ad.build_autoencoder(image_size, 6, (13, 17)).eval()
    assert network[10].kernel_size == bottleneck
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, *image_size)).shape == (1, 6, 13, 17)
    if image_size == (256, 256):
        sizes = [layer.size[0] for layer in network if isinstance(layer, torch.nn.Upsample)]
        assert sizes == [3, 8, 15, 32, 63, 127, 13]


def test_tall_images_are_taken_as_they_are(weights, tmp_path):
    tall = Pictures(np.ascontiguousarray(draw(number, 128)[:, :64]) for number in range(4))
    said = r"image_size = 128 would stretch .* 64 x 128 pixels; set it to \[128, 64\]"
    with pytest.raises(InputError, match=said):
        fit(weights, tmp_path, tall, image_size=128)
    params = efficient_ad.Params(**{**PARAMS, "image_size": [128, 64], "crop_size": 36})
    resources = Resources(tall[3:], weights, tmp_path, 1)
    scores = efficient_ad.fit(tall, params, resources).score(tall[:1])
    assert scores.patch_scores.shape == (1, 32, 16)


def test_jitter_changes_by_a_fifth_at_most():
    image = draw(0)
    brighter = 0
    for number in range(120):
        changed = efficient_ad._jitter(image, np.random.default_rng(number)).astype(float)
        assert np.abs(changed - image).max() <= 0.2 * image.max() + 1
        brighter += abs(changed.mean() / image.mean() - 1) > 0.01
    assert 20 <= brighter <= 44  # a third; contrast and saturation keep the mean


def test_images_are_streamed(weights, tmp_path):
    class Once:
        """Iterates, and can do nothing else."""

        sizes = [(70, 70)] * 3

        def __len__(self):
            return 3

        def __iter__(self):
            return (draw(number, 70) for number in range(3))

    detector = fit(weights, tmp_path, images=Once(), steps=1)
    assert detector.score([draw(9)]).anomaly_maps.shape == (1, 64, 64)
    assert not (tmp_path / "images.npy").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "absent"}, "absent is missing; run `dvc repro distill_teacher`"),
        ({"crop_size": 96}, "crop_size = 96 exceeds image_size = 64; lower it"),
        ({"images": Pictures([draw(0)])}, "efficient_ad needs at least 2 normal images"),
        ({"images": Pictures([draw(0), draw(0)])}, "all 2 normal images are equal"),
    ],
)
def test_what_cannot_be_learnt_is_refused(weights, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        fit(weights, tmp_path, **changes)


def test_no_validation_image_is_told(weights, tmp_path):
    params = efficient_ad.Params(**PARAMS)
    with pytest.raises(InputError, match="there is none; raise split.validation"):
        efficient_ad.fit(Pictures([draw(0), draw(1)]), params, Resources([], weights, tmp_path, 0))
