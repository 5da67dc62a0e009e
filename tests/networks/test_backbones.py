import json
import typing

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    ConvNextConfig,
    ConvNextV2Config,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ConvNextConfig,
    DINOv3ViTConfig,
    ViTConfig,
)

from blackswan.errors import InputError
from blackswan.networks.backbones import CONVOLUTIONAL, load_backbone, to_tensor
from blackswan.networks.resnet import BLOCKS
from blackswan.networks.weights import IMAGENET, Architecture

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
CONFIGS = {
    "dinov2": Dinov2Config(**SMALL, patch_size=14, image_size=70),
    "dinov2_with_registers": Dinov2WithRegistersConfig(
        **SMALL, patch_size=14, image_size=70, num_register_tokens=4
    ),
    "dinov3": DINOv3ViTConfig(**SMALL, patch_size=14, image_size=70, num_register_tokens=4),
    "vit": ViTConfig(**SMALL, patch_size=14, image_size=70),
}
STAGES = {"depths": [1, 2, 3, 1], "hidden_sizes": [8, 16, 24, 32]}
CONVNEXTS = {
    "convnext": ConvNextConfig(**STAGES),
    "convnextv2": ConvNextV2Config(**STAGES),
    "dinov3_convnext": DINOv3ConvNextConfig(**STAGES),
}


def draw(size):
    """Four images of the aspect of a size, half again as large."""
    shape = 4, size[0] * 3 // 2, size[1] * 3 // 2, 3
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def images():
    return draw((70, 70))


def save(folder, config):
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET))
    return model


@pytest.fixture
def references(monkeypatch):
    """The networks that the benchmark compares with, by name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    pytest.importorskip("efficientnet_lite_pytorch")
    import backbones

    torch.manual_seed(0)
    return backbones


@pytest.fixture
def lite0(tmp_path, references):
    """EfficientNet-Lite0 of the package with random weights and statistics; (network, folder)."""
    network = references.EfficientNet.from_name("efficientnet-lite0", image_size=None)
    references.randomise(network)
    references.write(tmp_path, network.state_dict(), {"model_type": "efficientnet_lite0"})
    return network, tmp_path


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("size", [(70, 70), (98, 98), (70, 42)])
def test_transformers_give_the_patch_tokens_of_the_chosen_blocks(tmp_path, kind, size):
    model, images = save(tmp_path, CONFIGS[kind]), draw(size)
    backbone = load_backbone(tmp_path, [2, 1], size)
    found = backbone.embed(images)

    height, width = (side // 14 for side in size)
    assert backbone.channels == [32, 32]
    assert backbone.grids == [(height, width)] * 2
    pixels = to_tensor(images, size, **{k: IMAGENET[f"image_{k}"] for k in ("mean", "std")})
    options = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    with torch.inference_mode():
        states = model(pixels, output_hidden_states=True, **options).hidden_states
    for layer, embedding in zip([2, 1], found, strict=True):
        tokens = states[layer][:, -height * width :]  # special tokens come first
        expected = tokens.reshape(4, height, width, 32).permute(0, 3, 1, 2)
        torch.testing.assert_close(embedding, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_final_norm_makes_of_the_last_block_what_the_model_returns(tmp_path, images, kind):
    model = save(tmp_path, CONFIGS[kind])
    backbone = load_backbone(tmp_path, [3], 70)
    found = backbone.features.final_norm(backbone.embed(images)[0].movedim(1, 3))
    pixels = to_tensor(images, (70, 70), backbone.mean, backbone.std)
    with torch.inference_mode():
        expected = model(pixels).last_hidden_state[:, -25:]  # special tokens come first
    torch.testing.assert_close(found.flatten(1, 2), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("tiles", "size"), [(2, (70, 70)), (3, (70, 70)), (2, (84, 42))])
@pytest.mark.parametrize("network", ["dinov2", "lite0"])
def test_tiles_are_seen_one_by_one_and_joined_in_place(tmp_path, lite0, network, tiles, size):
    if network == "dinov2":
        save(tmp_path, CONFIGS["dinov2"])
    (high, wide), layers = size, [1, 2]
    shape = 2, high * tiles, wide * tiles, 3
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    whole = load_backbone(tmp_path, layers, size, tiles)
    part = load_backbone(tmp_path, layers, size)
    assert whole.grids == [(tiles * height, tiles * width) for height, width in part.grids]
    found = whole.embed(images)
    for row, column in np.ndindex(tiles, tiles):
        tile = images[:, row * high : (row + 1) * high, column * wide : (column + 1) * wide]
        for layer, (height, width), expected in zip(
            found, part.grids, part.embed(tile), strict=True
        ):
            place = layer[:, :, row * height : (row + 1) * height]
            place = place[..., column * width : (column + 1) * width]
            torch.testing.assert_close(place, expected, rtol=0, atol=1e-5)


def test_a_batch_of_four_equals_four_of_one(tmp_path, images):
    save(tmp_path, CONFIGS["dinov2"])
    backbone = load_backbone(tmp_path, [3], 70)
    singly = torch.cat([backbone.embed([image])[0] for image in images])
    torch.testing.assert_close(backbone.embed(images)[0], singly, rtol=0, atol=1e-6)


def assert_same(found, expected):
    for embedding, reference in zip(found, expected, strict=True):
        scale = reference.abs().max().item()
        torch.testing.assert_close(embedding, reference, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("size", [(64, 64), (75, 75), (96, 43)])  # TensorFlow pads odd sides else
@pytest.mark.parametrize(
    ("kind", "channels"),
    [
        ("efficientnet_lite0", [16, 24, 40, 80, 112, 192, 320]),
        ("efficientnet_lite2", [16, 24, 48, 88, 120, 208, 352]),
    ],
)
def test_efficientnet_equals_the_package(tmp_path, references, monkeypatch, kind, channels, size):
    images = draw(size)
    monkeypatch.setattr(references, "WEIGHTS", tmp_path / "none")
    folder, network, stages, _ = references.lite(kind, tmp_path)
    backbone = load_backbone(folder, [0, 1, 2, 3, 4, 5, 6], size)
    pixels = to_tensor(images, size, backbone.mean, backbone.std)
    assert backbone.channels == channels
    assert_same(backbone.embed(images), references.outputs_of(network, stages, pixels))


@pytest.mark.parametrize(
    ("kind", "channels"),
    [
        ("resnet18", [64, 128, 256, 512]),
        ("resnet50", [256, 512, 1024, 2048]),
        ("wide_resnet50_2", [256, 512, 1024, 2048]),
    ],
)
def test_resnets_equal_modules_whose_batch_norms_are_not_folded(
    tmp_path, references, monkeypatch, kind, channels
):
    images = draw((67, 48))
    monkeypatch.setitem(BLOCKS, kind, (2, 2, 1, 1))  # of the benchmark are the whole ones
    folder, network, layers, _ = references.plain_resnet(kind, tmp_path)
    backbone = load_backbone(folder, [1, 2, 3, 4], (67, 48))
    pixels = to_tensor(images[:2], (67, 48), backbone.mean, backbone.std)
    assert backbone.channels == channels
    assert backbone.grids == [(17, 12), (9, 6), (5, 3), (3, 2)]
    assert_same(backbone.embed(images[:2]), references.outputs_of(network, layers, pixels))
    assert torch.equal(
        load_backbone(folder, [2], (67, 48)).embed(images[:1])[0], backbone.embed(images[:2])[1][:1]
    )


@pytest.mark.parametrize("kind", CONVNEXTS)
def test_convnexts_give_the_hidden_states_of_transformers(tmp_path, kind):
    model, images = save(tmp_path, CONVNEXTS[kind]), draw((64, 32))
    backbone = load_backbone(tmp_path, [0, 3, 1], (64, 32))
    assert backbone.channels == [8, 32, 16]
    assert backbone.grids == [(16, 8), (2, 1), (8, 4)]
    pixels = to_tensor(images, (64, 32), backbone.mean, backbone.std)
    with torch.inference_mode():
        states = model(pixels, output_hidden_states=True).hidden_states
    shapes = [tuple(state.shape[2:]) for state in states]
    expected = [states[shapes.index(grid)] for grid in [(2, 1), (8, 4)]]
    assert_same(backbone.embed(images)[1:], expected)
    with pytest.raises(InputError, match="image_size 28 leaves nothing of layer 3 .* 32 or more"):
        load_backbone(tmp_path, [3], (64, 28))
    with pytest.raises(InputError, match="choose from 0 to 3"):
        load_backbone(tmp_path, [4], 64)


def test_weights_of_another_network_than_the_config_says_are_refused(tmp_path, references):
    folder, network, *_ = references.plain_resnet("resnet34", tmp_path)
    for kind, said in {
        "resnet18": "layer1 has more than the 2 blocks of resnet18",
        "wide_resnet50_2": r"'layer1.0.bn3.weight'",
    }.items():
        (folder / "config.json").write_text(json.dumps({"architecture": kind}))
        with pytest.raises(InputError, match=said):
            load_backbone(folder, [1], 64)
    state = network.state_dict()
    state["conv1.weight"] = state["conv1.weight"].repeat(1, 2, 1, 1)
    references.write(folder, state, {"architecture": "resnet34"})
    with pytest.raises(InputError, match=r"does not fit its config.json .*to have 6 channels"):
        load_backbone(folder, [1], 64)
    with pytest.raises(InputError, match="choose from 1 to 4"):
        load_backbone(folder, [0], 64)


def test_a_resnet_of_another_width_is_refused(tmp_path, references, monkeypatch):
    for kind in ("resnet50", "wide_resnet50_2"):
        monkeypatch.setitem(BLOCKS, kind, (1, 1, 1, 1))
    folder, *_ = references.plain_resnet("resnet50", tmp_path)
    (folder / "config.json").write_text('{"architecture": "wide_resnet50_2"}')
    with pytest.raises(InputError, match=r"layer1.0 is 64 wide, wide_resnet50_2 is 128"):
        load_backbone(folder, [1], 64)


def test_an_efficientnet_of_another_size_is_refused(tmp_path, references, monkeypatch):
    monkeypatch.setattr(references, "WEIGHTS", tmp_path / "none")
    folder, *_ = references.lite("efficientnet_lite2", tmp_path)
    (folder / "config.json").write_text('{"model_type": "efficientnet_lite0"}')
    with pytest.raises(InputError, match=r"_blocks.3 has 24 channels, efficientnet_lite0 has 40"):
        load_backbone(folder, [2], 64)


def test_a_url_may_name_every_network_that_is_built_of_a_state_dict():
    assert typing.get_args(Architecture) == CONVOLUTIONAL


def test_efficientnet_batches_do_not_change_a_bit(lite0, images):
    backbone = load_backbone(lite0[1], [1, 2], 64)
    for number in range(2):
        singly = torch.cat([backbone.embed([image])[number] for image in images])
        assert torch.equal(backbone.embed(images)[number], singly)


def test_to_tensor_averages_when_it_shrinks_and_normalises():
    checkers = np.zeros((8, 8, 3), np.uint8)
    checkers[::2, 1::2] = checkers[1::2, ::2] = 200
    found = to_tensor([checkers], (4, 4), [0.5, 0.4, 0.3], [0.5, 0.25, 0.2])
    expected = (100 / 255 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.5, 0.25, 0.2])
    assert found.shape == (1, 3, 4, 4)
    torch.testing.assert_close(found, expected.view(1, 3, 1, 1).expand(1, 3, 4, 4))


def test_what_does_not_fit_is_refused_with_the_choices(tmp_path):
    with pytest.raises(InputError, match="is missing; run `dvc repro fetch_weights`"):
        load_backbone(tmp_path / "absent", [1], 70)
    save(tmp_path, CONFIGS["dinov2"])
    for layers in ([4], [0], []):
        with pytest.raises(InputError, match="choose from 1 to 3"):
            load_backbone(tmp_path, layers, 70)
    with pytest.raises(InputError, match="image_size 75 is no multiple .* choose 70 or 84"):
        load_backbone(tmp_path, [1], 75)
    model = tmp_path / "model.safetensors"
    tensors = load_file(model)
    del tensors["embeddings.cls_token"]
    save_file(tensors, model, metadata={"format": "pt"})
    with pytest.raises(InputError, match="does not fit its config.json"):
        load_backbone(tmp_path, [1], 70)
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(InputError, match="model.safetensors is not whole"):
        load_backbone(tmp_path, [1], 70)
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(InputError, match="'resnet' is no backbone; known are .*resnet18, .*dinov2"):
        load_backbone(tmp_path, [1], 70)


def test_a_truncated_efficientnet_is_refused(lite0):
    file = lite0[1] / "model.safetensors"
    tensors = load_file(file)
    del tensors["_blocks.1._bn1.weight"]
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"not whole \('_blocks.1._bn1.weight'\); fetch it again"):
        load_backbone(lite0[1], [1], 64)


@pytest.mark.parametrize(("layers", "tiles"), [([1, 2], 1), ([2], 3)])
@pytest.mark.parametrize("network", ["dinov2", "lite0"])
def test_an_image_keeps_its_aspect_inside_of_the_size(tmp_path, lite0, network, layers, tiles):
    if network == "dinov2":
        save(tmp_path, CONFIGS["dinov2"])
    [tall, *_] = draw((140, 70))
    inside = load_backbone(tmp_path, layers, 70, tiles)
    alone = load_backbone(tmp_path, layers, (70, 42 if network == "dinov2" else 35), tiles)
    [image, *_] = draw(alone.image_size)
    expected = alone.embed([image])
    assert inside.grids_of(image.shape) == [layer.shape[2:] for layer in expected]
    for found, wanted in zip(inside.embed([image]), expected, strict=True):
        assert torch.equal(found, wanted)
    # 35 pixels are two and a half patches of 14
    assert inside.tile_size(tall.shape) == (70, 28 if network == "dinov2" else 35)


def test_an_image_that_is_too_long_is_refused(tmp_path):
    save(tmp_path, CONFIGS["dinov2"])
    backbone = load_backbone(tmp_path, [1], 70)
    with pytest.raises(InputError, match=r"70 x 70 leaves 70 x 0 pixels of an image of 500 x 40"):
        backbone.embed([np.zeros((40, 500, 3), np.uint8)])
