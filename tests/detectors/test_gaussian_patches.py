import numpy as np
import pytest
import torch
from conftest import Pictures
from tiny_weights import write_weights

from blackswan.detectors import gaussian_patches, patches
from blackswan.detectors.gaussian_patches import k_means
from blackswan.detectors.interface import Resources
from blackswan.errors import InputError
from blackswan.params import load_section

SETTINGS = {
    "backbone": "tiny",
    "layers": [1, 2],
    "image_size": 112,
    "tiles": 1,
    "neighborhood": 3,
    "components": 3,
    "regularization": 0.01,
    "top_fraction": 0.05,
    "smoothing": 4 / 224,
}


def settings(**changes):
    return gaussian_patches.Params(**{**SETTINGS, **changes})


@pytest.fixture(scope="module")
def images():
    """40 noisy pictures of a pattern that lies anywhere."""
    rng = np.random.default_rng(0)
    pattern = rng.integers(60, 180, (12, 12, 3)).repeat(8, 0).repeat(8, 1)  # (96, 96, 3)
    return Pictures(
        np.clip(
            np.roll(pattern, rng.integers(0, 96, 2), (0, 1)) + rng.normal(0, 8, pattern.shape),
            0,
            255,
        ).astype(np.uint8)
        for _ in range(40)
    )


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder / "tiny", "dinov2")
    return Resources(validation=[], weights=folder, checkpoints=folder, seed=0)


@pytest.fixture(scope="module")
def detector(images, resources):
    return gaussian_patches.fit(images[:30], settings(), resources)


def embedded(detector, images):
    """Return the patches (N, D) in float64."""
    patches_ = patches.embed_patches(detector.backbone, images, 3)
    return patches_.double().numpy()


@pytest.mark.parametrize("components", [1, 3])
def test_a_painted_square_scores_higher_and_the_map_peaks_inside(images, resources, components):
    detector = gaussian_patches.fit(images[:30], settings(components=components), resources)
    assert detector.tensors["mean"].shape == (components, 48)
    painted = images[30].copy()
    painted[28:56, 56:84] = (255, 0, 0)
    scores = detector.score([*images[30:], painted])
    assert scores.anomaly_maps.shape == (11, 96, 96)
    assert scores.anomaly_maps.dtype == scores.image_scores.dtype == np.float32
    assert scores.image_scores[-1] > 1.5 * scores.image_scores[:-1].max()
    row, column = np.unravel_index(scores.anomaly_maps[-1].argmax(), (96, 96))
    assert 28 <= row < 56
    assert 56 <= column < 84


def test_one_gaussian_is_that_of_numpy_over_all_positions(images, resources):
    detector = gaussian_patches.fit(images[:30], settings(components=1), resources)
    learnt = embedded(detector, images[:30])
    covariance = np.cov(learnt.T) + 0.01 * np.eye(48)
    deviations = embedded(detector, images[30:33]) - learnt.mean(0)
    squared = np.einsum("nd,nd->n", deviations @ np.linalg.inv(covariance), deviations)
    distances = np.sort(np.sqrt(squared).reshape(3, 64), axis=1)
    expected = distances[:, -3:].mean(axis=1)  # 0.05 of 64 patches
    np.testing.assert_allclose(detector.score(images[30:33]).image_scores, expected, rtol=1e-4)


@pytest.mark.parametrize("candidates", [1, 2, 4])
def test_a_mixture_scores_the_nearest_of_the_candidates(
    images, resources, detector, monkeypatch, candidates
):
    monkeypatch.setattr(gaussian_patches, "CANDIDATES", candidates)
    learnt = embedded(detector, images[:30])
    centres = learnt[[0, 700, 1500]]
    given = torch.from_numpy(centres).float()
    monkeypatch.setattr(gaussian_patches, "k_means", lambda points, components, rng: given)
    mixture = gaussian_patches.fit(images[:30], settings(), resources)
    chosen = np.linalg.norm(learnt[:, None] - centres, axis=2).argmin(axis=1)
    patches_, distances, apart = embedded(detector, images[30:32]), [], []
    for number in range(3):
        part = learnt[chosen == number]
        covariance = np.cov(part.T) + 0.01 * np.eye(48)
        deviations = patches_ - part.mean(0)
        apart.append(np.linalg.norm(deviations, axis=1))
        squared = np.einsum("nd,nd->n", deviations @ np.linalg.inv(covariance), deviations)
        distances.append(np.sqrt(squared))
    near = np.argsort(apart, axis=0)[:candidates]
    least = np.take_along_axis(np.array(distances), near, axis=0).min(axis=0)
    expected = np.sort(least.reshape(2, 64), axis=1)[:, -3:].mean(axis=1)
    np.testing.assert_allclose(mixture.score(images[30:32]).image_scores, expected, rtol=1e-4)


def test_k_means_finds_clusters_and_keeps_what_is_alone():
    rng = np.random.default_rng(3)
    clusters = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = np.repeat(clusters, 50, axis=0) + rng.normal(0, 0.1, (150, 2))
    centres = k_means(torch.from_numpy(points.astype(np.float32)), 3, np.random.default_rng(0))
    found = centres.numpy()[np.lexsort(centres.numpy().round().T)]
    np.testing.assert_allclose(found, points.reshape(3, 50, 2).mean(axis=1), atol=1e-5)
    same = k_means(torch.ones(5, 2), 3, np.random.default_rng(0))
    assert torch.equal(same, torch.ones(3, 2))


def test_k_means_learns_from_a_bounded_sample(images, resources, monkeypatch):
    monkeypatch.setattr(gaussian_patches, "SAMPLE", 200)
    learnt = []

    def watched(points, components, rng):
        learnt.append(points.shape)
        return k_means(points, components, rng)

    monkeypatch.setattr(gaussian_patches, "k_means", watched)
    gaussian_patches.fit(images[:30], settings(), resources)
    assert learnt == [(200, 48)]  # of 1920


def test_what_cannot_be_fitted_is_refused(images, resources, monkeypatch):
    def refused(pictures, **changes):
        with pytest.raises(InputError) as caught:
            gaussian_patches.fit(pictures, settings(**changes), resources)
        return str(caught.value)

    assert refused(images[:2], components=129) == (
        "detectors.gaussian_patches.components = 129 exceeds the 128 patches of 2 normal images; "
        "set detectors.gaussian_patches.components=1 or add normal images"
    )
    gaussian_patches.fit(images[:2], settings(components=1), resources)  # the remedy works
    assert "components leaves one of them a single patch; lower it" in refused(
        images[:2], components=100
    )
    assert "at least 2 normal images" in refused(images[:1])
    assert "all 9 normal images are equal" in refused(Pictures([images[0]] * 9))
    assert "at least 2 normal images" in str(gaussian_patches.shortage(1, settings()))
    monkeypatch.setattr(
        patches.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000})()
    )
    assert "lower components or take fewer layers" in refused(images)


def test_a_wrong_value_names_its_key(tmp_path):
    for key, value in (("components", 0), ("neighborhood", 2), ("top_fraction", 0.0)):
        lines = "\n".join(f"  {name}: {val}" for name, val in {**SETTINGS, key: value}.items())
        (tmp_path / "params.yaml").write_text(f"gaussian_patches:\n{lines}\n")
        with pytest.raises(InputError, match=f"gaussian_patches.{key} = {value}"):
            load_section(gaussian_patches.Params, "gaussian_patches", tmp_path / "params.yaml")
