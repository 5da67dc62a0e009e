import numpy as np
import pytest
import torch
from conftest import Pictures
from tiny_weights import write_weights

from blackswan.detectors import padim, patches
from blackswan.detectors.interface import Resources
from blackswan.errors import InputError
from blackswan.networks import embeddings

SETTINGS = {
    "backbone": "tiny",
    "layers": [1, 2],
    "image_size": 112,
    "tiles": 1,
    "features": 20,
    "covariance": "full",
    "rank": 8,
    "regularization": 0.01,
    "smoothing": 4 / 224,
}


def settings(**changes):
    return padim.Params(**{**SETTINGS, **changes})


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
    return padim.fit(images[:30], settings(), resources)


@pytest.mark.parametrize("covariance", ["full", "diagonal", "low_rank"])
def test_a_painted_square_scores_higher_and_the_map_peaks_inside(images, resources, covariance):
    detector = padim.fit(images[:30], settings(covariance=covariance), resources)
    painted = images[30].copy()
    painted[28:56, 56:84] = (255, 0, 0)
    scores = detector.score([*images[30:], painted])
    assert scores.anomaly_maps.shape == (11, 96, 96)
    assert scores.anomaly_maps.dtype == scores.image_scores.dtype == np.float32
    assert scores.image_scores[-1] > 1.5 * scores.image_scores[:-1].max()
    row, column = np.unravel_index(scores.anomaly_maps[-1].argmax(), (96, 96))
    assert 28 <= row < 56
    assert 56 <= column < 84


def test_streamed_gaussians_are_those_of_numpy(monkeypatch):
    values = torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(0)) + 100  # (P, N, D)
    monkeypatch.setattr(embeddings, "BLOCK_BYTES", 2 * 4 * 4 * 8)  # two positions
    full, diagonal = embeddings.Moments(3, 4, full=True), embeddings.Moments(3, 4, full=False)
    for batch in values.split(8, 1):
        full.add(batch)
        diagonal.add(batch)
    mean, whitening = padim._gaussians(full, 0.01)
    _, scale = padim._gaussians(diagonal, 0.01)
    for position, samples in enumerate(values.double().numpy()):
        covariance = np.cov(samples.T) + 0.01 * np.eye(4)
        factor = whitening[position].double().numpy()
        np.testing.assert_allclose(mean[position], samples.mean(0), rtol=1e-6)
        np.testing.assert_allclose(
            factor.T @ factor, np.linalg.inv(covariance), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(scale[position], np.diag(covariance) ** -0.5, rtol=1e-5)


def test_scores_are_mahalanobis_distances(images, resources, detector):
    exact = padim.fit(images[:30], settings(smoothing=0), resources)
    assert torch.equal(exact.tensors["whitening"], detector.tensors["whitening"])
    layers = exact.backbone.embed(images[:31])
    embedded = padim._embed(layers, (8, 8), exact.selection)  # (P, N, D)
    samples = embedded[9].double().numpy()
    covariance = np.cov(samples[:30].T) + 0.01 * np.eye(20)
    deviation = samples[30] - samples[:30].mean(0)
    expected = np.sqrt(deviation @ np.linalg.solve(covariance, deviation))
    assert exact.score(images[30:31]).patch_scores[0, 1, 1] == pytest.approx(expected, rel=1e-4)


def test_low_rank_directions_are_orthonormal():
    directions = padim._selection(settings(covariance="low_rank"), 48, 20, seed=0)
    torch.testing.assert_close(directions.T @ directions, torch.eye(8), atol=1e-6, rtol=0)
    assert (directions != 0).any(1).sum() == 20


def test_what_cannot_be_fitted_is_refused(images, resources, monkeypatch):
    with pytest.raises(InputError, match="padim.features = 49 exceeds the 48 channels"):
        padim.fit(images, settings(features=49), resources)
    with pytest.raises(InputError, match="at least 2 normal images"):
        padim.fit(images[:1], settings(), resources)
    with pytest.raises(InputError, match="all 9 normal images are equal"):
        padim.fit(Pictures([images[0]] * 9), settings(), resources)
    monkeypatch.setattr(
        patches.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000})()
    )
    with pytest.raises(InputError, match="lower image_size or features, or choose covariance"):
        padim.fit(images, settings(), resources)
