import numpy as np
import pytest
import torch
from conftest import Pictures
from tiny_weights import write_weights

from blackswan.detectors import coreset, patchcore, patches, rows
from blackswan.detectors.interface import Resources
from blackswan.errors import InputError

SETTINGS = {
    "backbone": "tiny",
    "layers": [1, 2],
    "image_size": 112,
    "tiles": 1,
    "neighborhood": 3,
    "features": 32,
    "projection": "gaussian",
    "coreset_ratio": 0.1,
    "bank_patches": None,
    "neighbors": 3,
    "top_fraction": 0.05,
    "reweighting": 9,
    "smoothing": 4 / 224,
}

EQUATION_7 = {"neighbors": 1, "top_fraction": None}


def settings(**changes):
    return patchcore.Params(**{**SETTINGS, **changes})


@pytest.fixture(scope="module")
def images():
    """40 noisy pictures of one pattern, of another size than the backbone's input."""
    rng = np.random.default_rng(0)
    pattern = rng.integers(60, 180, (12, 12, 3)).repeat(8, 0).repeat(8, 1)  # (96, 96, 3)
    return Pictures(
        np.clip(pattern + rng.normal(0, 8, pattern.shape), 0, 255).astype(np.uint8)
        for _ in range(40)
    )


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder / "tiny", "dinov2")
    return Resources(validation=[], weights=folder, checkpoints=folder, seed=0)


@pytest.fixture(scope="module")
def detector(images, resources):
    return patchcore.fit(images[:30], settings(), resources)


def test_the_memory_bank_holds_the_ratio_of_normal_patches(images, resources, detector):
    assert detector.tensors["memory_bank"].shape == (
        192,
        32,
    )  # a tenth of 30 images of 8 x 8 patches
    whole = settings(features=None, coreset_ratio=1.0, neighbors=1)
    everything = patchcore.fit(images[:3], whole, resources)
    assert "directions" not in everything.tensors
    bank = everything.tensors["memory_bank"]
    layers = everything.backbone.embed(images[:3])
    assert bank.shape == (192, 48)
    expected = patchcore._embed(layers, (8, 8), 3, None).flatten(0, 1)
    torch.testing.assert_close(
        bank.sort(dim=0).values, expected.sort(dim=0).values, atol=1e-5, rtol=1e-5
    )
    np.testing.assert_allclose(everything.score(images[:3]).image_scores, 0, atol=1e-4)


@pytest.mark.parametrize(
    "changes", [{}, {"neighbors": 1}, EQUATION_7, {**EQUATION_7, "reweighting": 1}]
)
def test_a_painted_square_scores_higher_and_the_map_peaks_inside(images, resources, changes):
    detector = patchcore.fit(images[:30], settings(**changes), resources)
    painted = images[30].copy()
    painted[28:56, 56:84] = (255, 0, 0)
    scores = detector.score([*images[30:], painted])
    assert scores.anomaly_maps.shape == (11, 96, 96)
    assert scores.anomaly_maps.dtype == scores.image_scores.dtype == np.float32
    assert scores.image_scores[-1] > 1.5 * scores.image_scores[:-1].max()
    row, column = np.unravel_index(scores.anomaly_maps[-1].argmax(), (96, 96))
    assert 28 <= row < 56
    assert 56 <= column < 84


def test_the_bank_is_bounded(images, resources, detector):
    bounded = patchcore.fit(images[:30], settings(bank_patches=50), resources)
    assert torch.equal(
        bounded.tensors["memory_bank"], detector.tensors["memory_bank"][:50]
    )  # greedy stops earlier
    with pytest.raises(ValueError, match="bank_patches = 2 is less than neighbors = 3; raise it"):
        settings(bank_patches=2)
    with pytest.raises(ValueError, match="bank_patches = 8 is less than reweighting = 9; raise it"):
        settings(bank_patches=8, **EQUATION_7)


def test_patches_on_disk_give_the_same_bank(images, resources, detector, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "IN_MEMORY", 1000)
    for module, name, value in ((coreset, "ROWS", 64), (coreset, "BLOCK", 16), (rows, "READ", 48)):
        monkeypatch.setattr(module, name, value)
    held = []
    take = rows.DiskRows.take

    def watched(self, indices, out=None):
        held.append(len(indices))
        return take(self, indices, out)

    monkeypatch.setattr(rows.DiskRows, "take", watched)
    on_disk = Resources([], resources.weights, tmp_path / "checkpoints", resources.seed)
    bank = patchcore.fit(images[:30], settings(), on_disk).tensors["memory_bank"]
    assert torch.equal(bank, detector.tensors["memory_bank"])
    assert held.pop() == len(bank)  # the result; of the 1920 patches no more than a block at once
    assert max(held) == 64
    assert sum(held) < 8 * 30 * 64  # each is read a few times, not once a pick
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("bank_patches", [None, 150])
def test_added_images_score_as_after_a_refit(images, resources, bank_patches):
    brighter = [np.clip(image.astype(int) + 40, 0, 255).astype(np.uint8) for image in images]
    rng, stained = np.random.default_rng(1), []
    for image in brighter[15:]:
        stain = np.zeros(image.shape, int)
        row, column = rng.integers(0, 80, 2)
        stain[row : row + 16, column : column + 16] = 40
        stained.append(np.clip(image + stain, 0, 255).astype(np.uint8))

    def auroc(detector):
        normal, anomalous = (detector.score(part).image_scores for part in (brighter[15:], stained))
        return float((anomalous[:, None] > normal).mean())

    chosen = settings(**EQUATION_7, bank_patches=bank_patches)
    grown = patchcore.fit(images[:20], chosen, resources)
    before = auroc(grown)
    grown.add(brighter[:15])
    refitted = patchcore.fit(Pictures([*images[:20], *brighter[:15]]), chosen, resources)
    assert grown.tensors["memory_bank"].shape == refitted.tensors["memory_bank"].shape
    assert auroc(grown) == pytest.approx(auroc(refitted), abs=0.005)
    assert before < auroc(grown) - 0.04


def test_a_full_bank_keeps_its_size_when_images_are_added(images, resources):
    detector = patchcore.fit(images[:20], settings(bank_patches=60, neighbors=1), resources)
    before = detector.tensors["memory_bank"]
    noise = np.random.default_rng(2).integers(0, 256, images[0].shape, dtype=np.uint8)
    unknown = detector.score([noise]).image_scores
    detector.add([noise])
    assert detector.tensors["memory_bank"].shape == before.shape
    assert detector.score([noise]).image_scores < 0.6 * unknown
    detector.add([])
    assert detector.tensors["memory_bank"].shape == before.shape


def test_neighborhood_is_the_mean_with_zeros_beyond_the_border():
    layer = torch.arange(9.0).view(1, 1, 3, 3)
    patches_ = patchcore._embed([layer], (3, 3), 3, None)
    sums = torch.tensor([8.0, 15, 12, 21, 36, 27, 20, 33, 24])
    torch.testing.assert_close(patches_[0, :, 0], sums / 9)
    assert patchcore._embed([layer], (3, 3), 1, None)[0, :, 0].tolist() == list(range(9))


def distances_to(detector, images):
    """Return the distances of all patches to the bank (N, P, M), in float64."""
    layers = detector.backbone.embed(images)
    embedded = patchcore._embed(layers, (8, 8), 3, detector.tensors.get("directions"))
    bank = detector.tensors["memory_bank"].double().numpy()
    return np.linalg.norm(embedded.double().numpy()[:, :, None] - bank, axis=3)


def test_a_patch_scores_the_mean_of_its_neighbors_and_an_image_that_of_its_top(images, detector):
    distances = distances_to(detector, images[30:34])
    patch_scores = np.sort(distances, axis=2)[:, :, :3].mean(2)
    expected = np.sort(patch_scores, axis=1)[:, -3:].mean(1)  # of 64 patches a twentieth
    np.testing.assert_allclose(detector.score(images[30:34]).image_scores, expected, rtol=1e-5)


@pytest.mark.parametrize("neighbors", [1, 3])
def test_image_scores_follow_equation_7_for_every_image_of_a_batch(images, resources, neighbors):
    chosen = settings(**{**EQUATION_7, "neighbors": neighbors})
    detector = patchcore.fit(images[:30], chosen, resources)
    bank = detector.tensors["memory_bank"].double().numpy()
    expected = []
    for distances in distances_to(detector, images[30:34]):
        patch_scores = np.sort(distances, axis=1)[:, :neighbors].mean(1)
        patch = patch_scores.argmax()
        nearest = distances[patch].argmin()
        around = np.argsort(np.linalg.norm(bank - bank[nearest], axis=1), kind="stable")[:9]
        weight = 1 - np.exp(distances[patch, nearest]) / np.exp(distances[patch, around]).sum()
        expected.append(weight * patch_scores[patch])
    np.testing.assert_allclose(detector.score(images[30:34]).image_scores, expected, rtol=1e-5)


def test_what_cannot_be_fitted_is_refused(images, resources, monkeypatch):
    with pytest.raises(InputError, match="patchcore.features = 49 exceeds the 48 channels"):
        patchcore.fit(images, settings(features=49), resources)
    for changes, asks in (({"neighbors": 4}, "neighbors = 4"), (EQUATION_7, "reweighting = 9")):
        with pytest.raises(
            InputError, match=f"keeps 3 of 2560 patches, fewer than detectors.patchcore.{asks}"
        ):
            patchcore.fit(images, settings(coreset_ratio=0.001, **changes), resources)
    with pytest.raises(InputError, match="at least 2 normal images"):
        patchcore.fit(images[:1], settings(coreset_ratio=0.5), resources)
    with pytest.raises(InputError, match="all 9 normal images are equal"):
        patchcore.fit(Pictures([images[0]] * 9), settings(), resources)
    monkeypatch.setattr(
        patches.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000})()
    )
    with pytest.raises(InputError, match="lower image_size or features, or fit on fewer images"):
        patchcore.fit(images, settings(), resources)
