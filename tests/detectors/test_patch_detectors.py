"""What holds for every detector on patch embeddings."""

import numpy as np
import pytest
import torch
from conftest import Pictures
from tiny_weights import write_weights

from blackswan.detectors.interface import Resources, load_module

SHARED = {"backbone": "tiny", "layers": [1, 2], "image_size": 112, "tiles": 1, "smoothing": 0.018}
PADIM = {"features": 20, "rank": 8, "regularization": 0.01}
PATCHCORE = {
    "neighborhood": 3, "features": 32, "projection": "gaussian", "coreset_ratio": 0.1,
    "bank_patches": None, "neighbors": 3, "top_fraction": 0.05, "reweighting": 9,
}  # fmt: skip
GAUSSIANS = {"neighborhood": 3, "components": 3, "regularization": 0.01, "top_fraction": 0.05}
SIMPLENET = {
    "neighborhood": 3, "hidden_layers": 2, "hidden": 8, "noise": 0.5, "steps": 3,
    "learning_rate": 1e-3, "weight_decay": 1e-5, "top_fraction": 0.05,
}  # fmt: skip
DINO = {
    "final_norm": False, "fusion": "features", "references": 4, "rotations": 2, "mask": "pca",
    "coreset_ratio": 1.0, "bank_patches": None, "variance": 0.99, "top_fraction": 0.01,
}  # fmt: skip
DETECTORS = {
    "padim, full": ("padim", {**PADIM, "covariance": "full"}),
    "padim, low_rank": ("padim", {**PADIM, "covariance": "low_rank"}),
    "patchcore": ("patchcore", PATCHCORE),
    "patchcore, tall": ("patchcore", {**PATCHCORE, "image_size": [112, 56], "tiles": 2}),
    "dino_memory, wide": ("dino_memory", {**DINO, "method": "memory", "image_size": [56, 112]}),
    "patchcore, equation 7": ("patchcore", {**PATCHCORE, "top_fraction": None}),
    "gaussian_patches": ("gaussian_patches", GAUSSIANS),
    "simplenet": ("simplenet", SIMPLENET),
    "dino_memory, memory": ("dino_memory", {**DINO, "method": "memory"}),
    "dino_memory, subspace": ("dino_memory", {**DINO, "method": "subspace"}),
    "dino_memory, a coreset a layer": (
        "dino_memory",
        {**DINO, "method": "memory", "fusion": "maps", "final_norm": True, "coreset_ratio": 0.1},
    ),
}


@pytest.fixture(scope="module", params=DETECTORS)
def fit(request, tmp_path_factory):
    """Return how to fit one of the detectors on the first 20 pictures, by seed."""
    name, changes = DETECTORS[request.param]
    module, folder = load_module(name), tmp_path_factory.mktemp("weights")
    write_weights(folder / "tiny", "dinov2")
    params = module.Params(**SHARED | changes)

    def fit(images, seed=0):
        resources = Resources(validation=[], weights=folder, checkpoints=folder, seed=seed)
        return module.fit(Pictures(images[:20]), params, resources)

    fit.load = module.load
    return fit


@pytest.fixture(scope="module")
def images():
    """24 noisy pictures of two-coloured tiles, of another shape than the backbone's input."""
    rng = np.random.default_rng(0)
    tiles = np.where(rng.random((12, 14, 1)) < 0.3, [150, 160, 170], [80, 70, 60])
    pattern = tiles.repeat(8, 0).repeat(8, 1)  # (96, 112, 3)
    return [
        np.clip(pattern + rng.normal(0, 8, pattern.shape), 0, 255).astype(np.uint8)
        for _ in range(24)
    ]


@pytest.fixture(scope="module")
def detector(fit, images):
    return fit(images)


def test_batches_and_threads_agree(images, detector):
    threads, queries = torch.get_num_threads(), images[-16:]
    try:
        results = []
        for count, size in [(1, 1), (1, 4), (1, 16), (2, 16)]:
            torch.set_num_threads(count)
            parts = [detector.score(queries[start : start + size]) for start in range(0, 16, size)]
            scores = np.concatenate([part.image_scores for part in parts])
            maps = np.concatenate([part.anomaly_maps for part in parts])
            results.append((scores, maps))
    finally:
        torch.set_num_threads(threads)
    assert results[0][0].shape == (16,)
    assert results[0][1].shape == (16, 96, 112)
    for scores, maps in results[1:]:
        np.testing.assert_allclose(scores, results[0][0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(maps, results[0][1], rtol=1e-4, atol=1e-5)


def test_company_changes_no_bit(images, detector):
    queries = images[-11:]
    together = detector.score(queries)
    alone = [detector.score([image]) for image in queries]
    np.testing.assert_array_equal(together.image_scores, [s.image_scores[0] for s in alone])
    np.testing.assert_array_equal(together.anomaly_maps, [s.anomaly_maps[0] for s in alone])


def test_images_of_several_sizes_are_learnt_and_scored(images, fit):
    """Of some the lower third is missing: no patch lies where they show nothing."""
    mixed = [image if number % 3 else image[:64] for number, image in enumerate(images)]
    detector = fit(mixed)
    for image in mixed[20:]:
        scores = detector.score([image])
        assert scores.anomaly_maps.shape == (1, *image.shape[:2])
        assert scores.patch_scores.shape[1:] == max(detector.backbone.grids_of(image.shape))
        assert np.isfinite(scores.image_scores).all()
    stained = mixed[21].copy()
    stained[16:48, 40:72] = (255, 0, 0)
    assert len(stained) == 64
    assert detector.score([stained]).image_scores > detector.score([mixed[21]]).image_scores


def test_same_seed_same_tensors_and_another_seed_others(images, fit, detector):
    again, other = fit(images), fit(images, seed=1)
    assert detector.tensors.keys() == again.tensors.keys()
    for name, tensor in detector.tensors.items():
        assert torch.equal(again.tensors[name], tensor), name
    assert any(
        not torch.equal(other.tensors[name], detector.tensors[name]) for name in other.tensors
    )


def test_a_loaded_model_needs_only_its_folder(images, fit, detector, tmp_path):
    detector.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "backbone",
        "detector.json",
        "detector.safetensors",
    ]
    loaded = fit.load(tmp_path)
    assert loaded.params == detector.params
    ours, theirs = loaded.score(images[-3:]), detector.score(images[-3:])
    np.testing.assert_array_equal(ours.anomaly_maps, theirs.anomaly_maps)
    np.testing.assert_array_equal(ours.image_scores, theirs.image_scores)
