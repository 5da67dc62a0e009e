"""Every detector where there is a GPU: a pretended one, and a real one where a machine has it."""

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, Pictures, draw_part
from pretend_gpu import GPU, pretend_gpu
from tiny_weights import write_weights

from blackswan.data.images import write_png
from blackswan.detectors import efficient_ad, patchcore
from blackswan.detectors.interface import Resources, load_module
from blackswan.networks import devices, pdn
from blackswan.networks.backbones import load_backbone
from blackswan.networks.remembered import RememberedBackbone

BLOCKS = yaml.safe_load((ROOT / "params.yaml").read_text())["detectors"]
TINY = {"backbone": "tiny", "layers": [1, 2], "image_size": 56}
GAUSSIANS = TINY | {
    "tiles": 1, "smoothing": 0.018, "neighborhood": 3, "components": 3, "regularization": 0.01,
    "top_fraction": 0.1,
}  # fmt: skip
PADIM, PATCHCORE = BLOCKS["padim"] | TINY, BLOCKS["patchcore"] | TINY | {"coreset_ratio": 0.2}
MEMORY = BLOCKS["dino_memory"] | TINY | {"references": 8}
CASES = {
    "padim": ("padim", PADIM | {"features": 12}),
    "padim diagonal": ("padim", PADIM | {"features": 12, "covariance": "diagonal"}),
    "padim low rank": ("padim", PADIM | {"features": 12, "covariance": "low_rank", "rank": 4}),
    "patchcore": ("patchcore", PATCHCORE),
    "patchcore, equation 7": ("patchcore", PATCHCORE | {"top_fraction": None, "features": 20}),
    "memory": ("dino_memory", MEMORY | {"mask": "pca", "rotations": 2}),
    "subspace": ("dino_memory", MEMORY | {"method": "subspace", "variance": 0.9}),
    "gaussians": ("gaussian_patches", GAUSSIANS),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    write_weights(root / "tiny", "dinov2")
    return root


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    return Pictures(draw_part(rng)[0] for _ in range(12))


def fitted(case, weights, parts, folder):
    name, block = CASES[case]
    module = load_module(name)
    params = module.Params.model_validate(block)
    detector = module.fit(parts[:9], params, Resources(parts[9:], weights, folder, 0))
    (folder / "saved").mkdir(parents=True)
    detector.save(folder / "saved")
    return module, detector.score(parts[7:])


def assert_agree(found, expected, tolerance):
    for name in ("image_scores", "anomaly_maps"):
        values, others = getattr(found, name), getattr(expected, name)
        assert np.abs(values - others).max() <= tolerance * np.abs(others).max()


@pytest.mark.parametrize("case", CASES)
def test_a_pretended_gpu_fits_and_scores_as_the_cpu(case, weights, parts, tmp_path):
    module, expected = fitted(case, weights, parts, tmp_path / "cpu")
    with pretend_gpu():
        _, found = fitted(case, weights, parts, tmp_path / "gpu")
        loaded = module.load(tmp_path / "cpu/saved")
        assert {tensor.device for tensor in loaded.tensors.values()} == {GPU}
        assert_agree(loaded.score(parts[7:]), expected, 1e-5)
    assert_agree(found, expected, 1e-5)
    # What was fitted on a GPU is scored without one.
    assert_agree(module.load(tmp_path / "gpu/saved").score(parts[7:]), expected, 1e-5)


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize("case", CASES)
def test_a_gpu_scores_as_the_cpu(case, weights, parts, tmp_path, monkeypatch):
    devices.device.cache_clear()
    with monkeypatch.context() as without:
        without.setattr(torch.accelerator, "is_available", lambda: False)
        module, expected = fitted(case, weights, parts, tmp_path)
    devices.device.cache_clear()
    loaded = module.load(tmp_path / "saved")
    assert loaded.backbone.device.type != "cpu"
    assert_agree(loaded.score(parts[7:]), expected, 1e-4)


def test_patchcore_on_a_pretended_gpu_takes_new_images_as_on_the_cpu(weights, parts, tmp_path):
    fitted("patchcore", weights, parts, tmp_path)
    folder = tmp_path / "saved"
    banks = []
    for limit in (10_000, 30):
        detector = patchcore.load(folder)
        detector.params = detector.params.model_copy(update={"bank_patches": limit})
        detector.add(parts[9:])
        with pretend_gpu():
            other = patchcore.load(folder)
            other.params = detector.params
            other.add(parts[9:])
            other.score(parts[:1])
            bank = other.tensors["memory_bank"].cpu()
        torch.testing.assert_close(bank, detector.tensors["memory_bank"])
        banks.append(len(bank))
    assert banks[1] == 30 < banks[0]


def test_remembered_embeddings_come_back_to_the_pretended_gpu(weights, parts, tmp_path):
    expected = load_backbone(weights / "tiny", [1, 2], 56).embed(parts[3:6])
    with pretend_gpu():
        backbone = load_backbone(weights / "tiny", [1, 2], 56)
        found = RememberedBackbone(backbone, parts[:4], 4, tmp_path).embed(parts[3:6])
        assert {layer.device for layer in found} == {GPU}
        found = [layer.cpu() for layer in found]
    for layer, other in zip(found, expected, strict=True):
        torch.testing.assert_close(layer, other)


def test_efficient_ad_on_a_pretended_gpu(parts, tmp_path):
    torch.manual_seed(0)
    teacher = pdn.Pdn("S", 8)
    (tmp_path / "teacher").mkdir()
    pdn.save_teacher(tmp_path / "teacher", teacher, [0.5] * 3, [0.25] * 3, {})
    write_png(tmp_path / "teacher/photos/0.png", np.kron(parts[0], np.ones((3, 3, 1), np.uint8)))
    params = efficient_ad.Params(
        backbone="teacher", image_size=64, crop_size=36, steps=1, learning_rate=1e-4,
        weight_decay=1e-5,
    )  # fmt: skip
    resources = Resources(parts[9:11], tmp_path, tmp_path / "checkpoints", 0)
    expected = efficient_ad.fit(parts[:2], params, resources).score(parts[9:11])
    with pretend_gpu():
        detector = efficient_ad.fit(
            parts[:2], params, Resources(parts[9:11], tmp_path, tmp_path / "gpu", 0)
        )
        found = detector.score(parts[9:11])
        (tmp_path / "saved").mkdir()
        detector.save(tmp_path / "saved")
        again = efficient_ad.load(tmp_path / "saved").score(parts[9:11])
    assert_agree(found, expected, 1e-3)
    assert_agree(again, expected, 1e-3)
