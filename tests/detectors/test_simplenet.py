import numpy as np
import pytest
import torch
from conftest import Pictures
from tiny_weights import write_weights

from blackswan.detectors import patches, simplenet
from blackswan.detectors.interface import Resources
from blackswan.errors import InputError
from blackswan.params import load_section

SETTINGS = {
    "backbone": "tiny",
    "layers": [1, 2],
    "image_size": 112,
    "tiles": 1,
    "neighborhood": 3,
    "hidden_layers": 2,
    "hidden": 16,
    "noise": 0.5,
    "steps": 60,
    "learning_rate": 0.01,
    "weight_decay": 1e-5,
    "top_fraction": 0.05,
    "smoothing": 4 / 224,
}


def settings(**changes):
    return simplenet.Params(**{**SETTINGS, **changes})


@pytest.fixture(scope="module")
def images():
    """40 noisy pictures of a pattern that lies anywhere."""
    rng = np.random.default_rng(0)
    pattern = rng.integers(60, 180, (12, 12, 3)).repeat(8, 0).repeat(8, 1)  # (96, 96, 3)
    return [
        np.clip(
            np.roll(pattern, rng.integers(0, 96, 2), (0, 1)) + rng.normal(0, 8, pattern.shape),
            0,
            255,
        ).astype(np.uint8)
        for _ in range(40)
    ]


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder / "tiny", "dinov2")
    return Resources(validation=[], weights=folder, checkpoints=folder, seed=0)


@pytest.fixture(scope="module")
def detector(images, resources):
    return simplenet.fit(Pictures(images[:30]), settings(), resources)


def test_a_painted_square_scores_higher_and_the_map_peaks_inside(images, detector):
    painted = images[30].copy()
    painted[28:56, 56:84] = (255, 0, 0)
    scores = detector.score([*images[30:], painted])
    assert scores.anomaly_maps.shape == (11, 96, 96)
    assert scores.anomaly_maps.dtype == scores.image_scores.dtype == np.float32
    assert scores.image_scores[-1] > scores.image_scores[:-1].max() + 1
    row, column = np.unravel_index(scores.anomaly_maps[-1].argmax(), (96, 96))
    assert 28 <= row < 56
    assert 56 <= column < 84


def test_an_image_scores_the_mean_of_its_largest_logits(images, detector):
    tensors = {name: tensor.double().numpy() for name, tensor in detector.tensors.items()}
    embedded = patches.embed_patches(detector.backbone, images[30:32], 3).double().numpy()
    values = (embedded - tensors["mean"]) / tensors["deviation"]
    for number in range(2):
        layer = f"discriminator.{number}"
        values = values @ tensors[f"{layer}.0.weight"].T + tensors[f"{layer}.0.bias"]
        spread = np.sqrt(tensors[f"{layer}.1.running_var"] + 1e-5)
        values = (values - tensors[f"{layer}.1.running_mean"]) / spread
        values = values * tensors[f"{layer}.1.weight"] + tensors[f"{layer}.1.bias"]
        values = np.where(values > 0, values, 0.2 * values)
    logits = values @ tensors["discriminator.2.weight"][0] + tensors["discriminator.2.bias"]
    expected = np.sort(logits.reshape(2, 64), axis=1)[:, -3:].mean(axis=1)  # 0.05 of 64 patches
    scores = detector.score(images[30:32]).image_scores
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


def test_channels_are_brought_to_one_scale_and_a_constant_one_tells_nothing():
    torch.manual_seed(0)
    values = torch.randn(2000, 3) * torch.tensor([100.0, 0.01, 0.0]) + 7
    head = simplenet.train(values, settings(steps=150, noise=2.0)).eval()
    torch.testing.assert_close(head.mean, values.mean(0))
    torch.testing.assert_close(head.deviation[:2], values.std(0)[:2])
    assert head.deviation[2] == torch.inf
    far = values.mean(0) + 6 * torch.diag(values.std(0))
    far[2, 2] = 1000
    logits = head(torch.cat([values.mean(0)[None], far])).tolist()
    assert logits[1] > logits[0] + 3
    assert logits[2] > logits[0] + 3
    assert logits[3] == pytest.approx(logits[0], abs=1e-4)


def test_the_head_learns_from_a_bounded_sample(images, resources, monkeypatch):
    monkeypatch.setattr(simplenet, "SAMPLE", 200)
    learnt = []

    def watched(sample, params):
        learnt.append(sample)
        return simplenet.Head(48, params)

    monkeypatch.setattr(simplenet, "train", watched)
    detector = simplenet.fit(Pictures(images[:30]), settings(), resources)
    (sample,) = learnt
    assert sample.shape == (200, 48)  # of 1920
    every = patches.embed_patches(detector.backbone, images[:30], 3)
    assert torch.cdist(sample, every).amin(1).max() < 1e-2
    assert len(sample.unique(dim=0)) == 200


def test_what_torch_draws_elsewhere_is_left_alone(images, resources):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    simplenet.fit(Pictures(images[:3]), settings(steps=1), resources)
    assert torch.equal(torch.rand(3), expected)


def test_what_cannot_be_fitted_is_refused(images, resources, monkeypatch):
    def refused(pictures, **changes):
        with pytest.raises(InputError) as caught:
            simplenet.fit(Pictures(pictures), settings(**changes), resources)
        return str(caught.value)

    assert "simplenet needs at least 2 normal images" in refused(images[:1])
    assert "all 9 normal images are equal, simplenet" in refused([images[0]] * 9)
    assert "at least 2 normal images" in str(simplenet.shortage(1, settings()))
    assert simplenet.shortage(2, settings()) is None
    assert refused(images[:3], learning_rate=1e30) == (
        "simplenet: the loss is not finite at step 1; lower detectors.simplenet.learning_rate"
    )
    monkeypatch.setattr(
        patches.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000})()
    )
    assert refused(images[:3]).startswith("simplenet with 192 patches of 48 channels needs 0.0 GB")
    assert refused(images[:3]).endswith("take fewer layers")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_layers", 0),
        ("hidden_layers", 9),
        ("hidden", 0),
        ("hidden", 5000),
        ("noise", 0.0),
        ("noise", ".inf"),
        ("steps", 0),
        ("learning_rate", 0.0),
        ("weight_decay", -0.1),
        ("top_fraction", 1.5),
        ("neighborhood", 2),
    ],
)
def test_a_wrong_value_names_its_key(tmp_path, key, value):
    lines = "\n".join(f"  {name}: {val}" for name, val in {**SETTINGS, key: value}.items())
    (tmp_path / "params.yaml").write_text(f"simplenet:\n{lines}\n")
    with pytest.raises(InputError, match=f"simplenet.{key} = "):
        load_section(simplenet.Params, "simplenet", tmp_path / "params.yaml")
