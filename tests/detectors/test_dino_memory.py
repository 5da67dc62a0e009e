import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import Pictures
from scipy.spatial.distance import cdist
from tiny_weights import write_weights

from blackswan.detectors import dino_memory, patches, rows
from blackswan.detectors.coreset import k_center
from blackswan.detectors.interface import Resources
from blackswan.errors import InputError
from blackswan.networks.backbones import load_backbone
from blackswan.seeds import generator

SETTINGS = {
    "backbone": "tiny",
    "layers": [1, 2],
    "image_size": 112,
    "tiles": 1,
    "final_norm": False,
    "fusion": "features",
    "method": "memory",
    "references": 4,
    "rotations": 1,
    "coreset_ratio": 1.0,
    "bank_patches": None,
    "mask": "none",
    "variance": 0.99,
    "top_fraction": 0.01,
    "smoothing": 4 / 224,
}
METHODS = pytest.mark.parametrize("method", ["memory", "subspace"])


def settings(**changes):
    return dino_memory.Params(**{**SETTINGS, **changes})


def references_of(detector, images):
    return [images[images.paths.index(path)] for path in detector.references]


@pytest.fixture(scope="module")
def images():
    """20 noisy pictures of two-coloured tiles, of another size than the backbone's input."""
    rng = np.random.default_rng(0)
    tiles = np.where(rng.random((12, 12, 1)) < 0.3, [150, 160, 170], [80, 70, 60])
    pattern = tiles.repeat(8, 0).repeat(8, 1)  # (96, 96, 3)
    return Pictures(
        np.clip(pattern + rng.normal(0, 4, pattern.shape), 0, 255).astype(np.uint8)
        for _ in range(20)
    )


@pytest.fixture(scope="module")
def painted(images):
    """One picture with a red square in rows 28 to 55 and columns 56 to 83."""
    image = images[-1].copy()
    image[28:56, 56:84] = (255, 0, 0)
    return image


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder / "tiny", "dinov2")
    return Resources(validation=[], weights=folder, checkpoints=folder, seed=0)


@pytest.mark.parametrize(
    ("method", "references", "mask"),
    [
        ("memory", 1, "none"),
        ("memory", None, "pca"),
        ("subspace", 1, "none"),
        ("subspace", None, "pca"),
    ],
)
def test_a_painted_square_scores_higher_and_the_map_peaks_inside(
    images, painted, resources, method, references, mask
):
    chosen = settings(method=method, references=references, mask=mask)
    scores = dino_memory.fit(images[:16], chosen, resources).score([*images[16:], painted])
    assert scores.anomaly_maps.shape == (5, 96, 96)
    assert scores.anomaly_maps.dtype == scores.image_scores.dtype == np.float32
    assert scores.image_scores[-1] > 1.5 * scores.image_scores[:-1].max()
    row, column = np.unravel_index(scores.anomaly_maps[-1].argmax(), (96, 96))
    assert 28 <= row < 56
    assert 55 <= column < 84


def test_memory_scores_are_cosine_distances(images, painted, resources):
    detector = dino_memory.fit(images, settings(references=2), resources)

    def embed(image):
        layers = [
            layer[0].flatten(1).T.double().numpy() for layer in detector.backbone.embed([image])
        ]
        return sum(layer / np.linalg.norm(layer, axis=1, keepdims=True) for layer in layers)

    references = references_of(detector, images)
    bank = np.concatenate([embed(image) for image in references])
    expected = cdist(embed(painted), bank, "cosine").min(1)
    scores = detector.score_batch([painted]).patch_scores.flatten()
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    top = dino_memory.fit(images, settings(references=2, top_fraction=0.05), resources)
    assert top.score([painted]).image_scores[0] == pytest.approx(
        np.sort(expected)[-3:].mean(), abs=1e-6
    )  # 5 % of 64 patches
    np.testing.assert_allclose(detector.score(references[:1]).image_scores, 0, atol=1e-6)


def test_a_bank_a_layer_scores_the_mean_of_their_distances(images, painted, resources):
    params = settings(references=2, fusion="maps", final_norm=True)
    detector = dino_memory.fit(images, params, resources)
    distances = []
    for number, layer in enumerate([1, 2]):
        backbone = load_backbone(resources.weights / "tiny", [layer], 112)
        norm = backbone.features.final_norm

        def embed(image, backbone=backbone, norm=norm):
            return norm(backbone.embed([image])[0][0].flatten(1).T).double().numpy()

        bank = np.concatenate([embed(image) for image in references_of(detector, images)])
        distances.append(cdist(embed(painted), bank, "cosine").min(1))
        unit = bank / np.linalg.norm(bank, axis=1, keepdims=True)
        np.testing.assert_allclose(detector.tensors["memory_bank"][number], unit, atol=1e-6)
    found = detector.score_batch([painted]).patch_scores.flatten()
    np.testing.assert_allclose(found, np.mean(distances, 0), atol=1e-6)
    assert np.abs(found - distances[1]).max() > 1e-3


@pytest.mark.parametrize("fusion", ["features", "maps"])
def test_the_coreset_of_a_bank_is_greedy_and_bounded(images, resources, monkeypatch, fusion):
    every = dino_memory.fit(images, settings(references=None, fusion=fusion), resources)
    banks = every.tensors["memory_bank"]
    assert banks.shape == (1 if fusion == "features" else 2, 20 * 64, 24)
    start = generator(0, "dino_memory", "coreset")
    expected = torch.stack([bank[k_center(bank, 64, int(start.integers(1280)))] for bank in banks])
    twentieth = settings(references=None, fusion=fusion, coreset_ratio=0.05)
    bounded = settings(references=None, fusion=fusion, bank_patches=64)
    for params, in_memory in [(twentieth, 2e9), (bounded, 2e9), (bounded, 1e5)]:
        monkeypatch.setattr(rows, "IN_MEMORY", in_memory)  # 1280 patches of 24 take 122880 bytes
        detector = dino_memory.fit(images, params, resources)
        assert torch.equal(detector.tensors["memory_bank"], expected)
        assert detector.references == images.paths


def test_eigenvectors_are_taken_of_what_needs_them_alone(images, resources, monkeypatch):
    taken = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda each: taken.append(each.shape) or eigh(each))
    dino_memory.fit(images, settings(), resources)
    assert taken == []
    dino_memory.fit(images, settings(mask="pca"), resources)
    assert taken == [(24, 24)]
    detector = dino_memory.fit(images, settings(method="subspace", fusion="maps"), resources)
    assert taken == [(24, 24)] * 3
    assert sorted(detector.tensors) == ["mean", "residual_directions_0", "residual_directions_1"]


def test_subspace_scores_are_residuals_of_a_pca(images, painted, resources):
    detector = dino_memory.fit(images, settings(method="subspace", references=5), resources)
    references = references_of(detector, images)
    samples = dino_memory._embed(detector.backbone, references, detector.params)[0].double().numpy()
    queries = dino_memory._embed(detector.backbone, [painted], detector.params)[0].double().numpy()
    centre = samples.mean(0)
    _, spread, directions = np.linalg.svd(samples - centre, full_matrices=False)
    share = np.cumsum(spread**2) / (spread**2).sum()
    kept = directions[: int(np.argmax(share >= 0.99)) + 1]
    residual = (queries - centre) - (queries - centre) @ kept.T @ kept
    assert detector.tensors["residual_directions_0"].shape == (24, 24 - len(kept))
    np.testing.assert_allclose(
        detector.score_batch([painted]).patch_scores.flatten(), (residual**2).sum(1), atol=1e-6
    )
    assert "memory_bank" not in detector.tensors


def test_references_are_drawn_by_seed_and_written_down(images, resources, tmp_path):
    draws = [
        dino_memory.fit(images, settings(references=count), resources).references
        for count in (1, 2, 4, 8, None)
    ]
    assert [len(draw) for draw in draws] == [1, 2, 4, 8, 20]
    for smaller, larger in pairwise(draws):
        assert set(smaller) < set(larger)
    assert draws[-1] == images.paths
    other = Resources([], resources.weights, resources.checkpoints, seed=1)
    detector = dino_memory.fit(images, settings(), other)
    detector.save(tmp_path)
    written = json.loads((tmp_path / "detector.json").read_text())["references"]
    assert written == detector.references == dino_memory.load(tmp_path).references
    assert len(written) == 4
    assert written != draws[2]
    bank = dino_memory._embed(detector.backbone, references_of(detector, images), detector.params)
    torch.testing.assert_close(detector.tensors["memory_bank"], bank, atol=1e-6, rtol=0)


def test_rotations_recognise_a_turned_part(images, resources):
    square = Pictures(image[:, :96] for image in images)
    turned = [np.rot90(image).copy() for image in square]
    upright = dino_memory.fit(square[:10], settings(), resources).score(turned[10:])
    rotated = dino_memory.fit(square[:10], settings(rotations=4), resources)
    assert rotated.tensors["memory_bank"].shape == (1, 4 * 4 * 64, 24)
    assert rotated.score(turned[10:]).image_scores.max() < upright.image_scores.min() / 2
    np.testing.assert_array_equal(dino_memory.rotate(square[0], 90), turned[0])


def test_the_mask_keeps_what_the_border_does_not_show():
    direction = torch.tensor([1.0, 0.0])
    projections = torch.zeros(2, 10, 10)
    projections[:, 4:6, 4:6] = -1  # the part lies on the negative side of the first component
    kept, threshold = dino_memory._mask(direction, [projections])
    assert kept.tolist() == [-1, 0]
    assert threshold.item() == 0.5
    inside = dino_memory.foreground(-projections, threshold)
    assert inside.sum((1, 2)).tolist() == [16, 16]  # grown by one patch on each side
    assert inside[0, 3:7, 3:7].all()
    ring = torch.zeros(1, 9, 9)
    ring[0, 2:7, 2:7] = 1
    ring[0, 4, 4] = 0
    assert dino_memory.foreground(ring, threshold)[0, 1:8, 1:8].all()
    assert dino_memory.foreground(torch.zeros(1, 10, 10), threshold).all()  # the part is missing


def test_background_scores_zero_with_a_mask(resources):
    rng = np.random.default_rng(3)

    def draw():
        image = np.full((112, 112, 3), 40, np.uint8)
        image[42:70, 42:70] = 200
        return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)

    stained = draw()
    stained[0:14, 0:14] = (255, 0, 0)
    fitted = Pictures(draw() for _ in range(4))
    masked = dino_memory.fit(fitted, settings(mask="pca", smoothing=0), resources)
    whole = dino_memory.fit(fitted, settings(smoothing=0), resources)
    assert masked.score_batch([stained]).patch_scores[0, 0, 0] == 0
    assert whole.score_batch([stained]).patch_scores[0, 0, 0] > 0
    assert (masked.score_batch([stained]).patch_scores[0, 3:5, 3:5] > 0).all()


def test_equal_images_are_enough(images, painted, resources):
    detector = dino_memory.fit(Pictures([images[0]] * 3), settings(references=None), resources)
    scores = detector.score([images[0], painted]).image_scores
    assert scores[0] == pytest.approx(0, abs=1e-6)
    assert scores[1] > 1e-3


def test_what_cannot_be_fitted_is_refused(images, resources, monkeypatch):
    with pytest.raises(InputError, match="references = 21 needs at least 21 normal images to"):
        dino_memory.fit(images, settings(references=21), resources)
    with pytest.raises(InputError, match="references = null needs at least 1 normal images to"):
        dino_memory.fit(Pictures(), settings(references=None), resources)
    with pytest.raises(InputError, match="keeps every direction, so nothing lies outside"):
        dino_memory.fit(images, settings(method="subspace", variance=1 - 1e-12), resources)
    with monkeypatch.context() as changed:
        changed.setattr(
            patches.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000})()
        )
        with pytest.raises(InputError, match="256 patches of 24 features needs"):
            dino_memory.fit(images, settings(), resources)
    stages = SimpleNamespace(channels=[16], features=None)  # as of a convolutional network
    monkeypatch.setattr(dino_memory, "backbone_of", lambda *_: stages)
    with pytest.raises(InputError, match="final_norm = true, but tiny has no final norm; set it"):
        dino_memory.fit(images, settings(final_norm=True), resources)
    pyramid = SimpleNamespace(channels=[16, 24])
    monkeypatch.setattr(dino_memory, "backbone_of", lambda *_: pyramid)
    with pytest.raises(InputError, match=r"\[16, 24\] channels and cannot be averaged"):
        dino_memory.fit(images, settings(), resources)


@pytest.mark.parametrize("changes", [{}, {"coreset_ratio": 0.5}, {"fusion": "maps"}])
def test_added_images_score_as_after_a_refit(images, painted, resources, changes):
    brighter = [np.clip(image.astype(int) + 40, 0, 255).astype(np.uint8) for image in images]
    rng, stained = np.random.default_rng(1), []
    for image in brighter[10:]:
        row, column = rng.integers(0, 70, 2)
        stained.append(image.copy())
        stained[-1][row : row + 24, column : column + 24] += 15

    def auroc(detector):
        normal, anomalous = (detector.score(part).image_scores for part in (brighter[10:], stained))
        return float((anomalous[:, None] > normal).mean())

    chosen = settings(references=None, **changes)
    grown = dino_memory.fit(images[:10], chosen, resources)
    grown.add(brighter[:10])
    refitted = dino_memory.fit(Pictures([*images[:10], *brighter[:10]]), chosen, resources)
    assert grown.tensors["memory_bank"].shape == refitted.tensors["memory_bank"].shape
    assert auroc(grown) == pytest.approx(auroc(refitted), abs=0.005)


def test_a_subspace_takes_no_image(images, resources):
    detector = dino_memory.fit(images[:4], settings(method="subspace"), resources)
    with pytest.raises(InputError, match="method = subspace keeps no memory bank, so it takes no"):
        detector.add(images[4:5])
