import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_weights import KINDS, write_weights
from transformers import AutoConfig, AutoModel

from blackswan.detectors import vit
from blackswan.errors import InputError


@pytest.fixture(params=KINDS)
def weights(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_weights(tmp_path / "weights", request.param)


@pytest.fixture
def detector(weights: Path) -> vit.Detector:
    torch.manual_seed(0)
    return vit.Detector(vit.Network.from_weights(weights), vit.Input.of_weights(weights, 56))


@pytest.fixture
def images() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (4, 40, 48, 3), dtype=np.uint8))


def test_input_normalises_with_the_constants_of_the_weights(weights: Path) -> None:
    inputs = vit.Input.of_weights(weights, 56)
    tensor = inputs.to_tensor([np.full((80, 80, 3), 255, np.uint8)])
    assert torch.equal(tensor, torch.full((1, 3, 56, 56), 2.0))  # (1 - 0.5) / 0.25


def test_from_weights_takes_every_pretrained_tensor(weights: Path) -> None:
    kind = "dinov2" if "dinov2" in (weights / "config.json").read_text() else "vit"
    pretrained = KINDS[kind][1].from_pretrained(weights).state_dict()
    network = vit.Network.from_weights(weights).classifier.base_model.state_dict()
    taken = [name for name in pretrained if not name.startswith("pooler")]
    assert len(taken) > 20
    for name in taken:
        assert torch.equal(network[name], pretrained[name]), name


def test_making_saving_and_loading_print_nothing(
    weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    capfd.readouterr()
    made = vit.Detector(vit.Network.from_weights(weights), vit.Input.of_weights(weights, 56))
    made.save(tmp_path / "model")
    vit.load(tmp_path / "model")
    assert capfd.readouterr() == ("", "")


def test_weights_that_lack_more_than_a_head_are_refused(weights: Path) -> None:
    tensors = load_file(weights / "model.safetensors")
    lost = next(name for name in tensors if "layernorm" in name or "norm1" in name)
    del tensors[lost]
    save_file(tensors, weights / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=f"model.safetensors has no .*{lost}; fetch it again"):
        vit.Network.from_weights(weights)


def test_scores_are_probabilities_and_maps_have_the_size_of_the_images(
    detector: vit.Detector, images: list[np.ndarray]
) -> None:
    scores = detector.score(images)
    assert scores.image_scores.shape == (4,)
    assert scores.anomaly_maps.shape == (4, 40, 48)
    assert scores.probabilities
    for values in (scores.image_scores, scores.anomaly_maps):
        assert values.dtype == np.float32
        assert 0 <= values.min() <= values.max() <= 1


def test_a_batch_of_four_equals_four_batches_of_one(
    detector: vit.Detector, images: list[np.ndarray]
) -> None:
    together = detector.score(images)
    alone = [detector.score([image]) for image in images]
    np.testing.assert_array_equal(together.image_scores, [s.image_scores[0] for s in alone])
    np.testing.assert_array_equal(together.anomaly_maps, [s.anomaly_maps[0] for s in alone])


def test_a_saved_and_loaded_detector_is_the_same_to_the_last_bit(
    detector: vit.Detector, images: list[np.ndarray], tmp_path: Path
) -> None:
    detector.save(tmp_path / "model")
    loaded = vit.load(tmp_path / "model")
    saved_tensors, loaded_tensors = detector.network.state_dict(), loaded.network.state_dict()
    assert saved_tensors.keys() == loaded_tensors.keys()
    for name, tensor in saved_tensors.items():
        assert torch.equal(tensor, loaded_tensors[name]), name
    assert np.array_equal(loaded.score(images).image_scores, detector.score(images).image_scores)
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}


def test_the_patch_target_is_the_share_of_the_patch_that_the_mask_covers(weights: Path) -> None:
    torch.manual_seed(0)
    network = vit.Network.from_weights(weights).eval()
    pixels, labels = torch.zeros(1, 3, 56, 56), torch.tensor([1])
    mask = np.zeros((56, 56), bool)
    mask[:14, :7] = True  # half of the first patch
    with torch.no_grad():
        output = network(pixels, labels, vit.Input.of_weights(weights, 56).shares(mask)[None])
    target = torch.zeros(1, 4, 4)
    target[0, 0, 0] = 0.5
    expected = torch.nn.functional.cross_entropy(output["logits"], labels)
    expected += torch.nn.functional.binary_cross_entropy_with_logits(output["patch_logits"], target)
    assert torch.equal(output["loss"], expected)


@pytest.mark.parametrize("size", [28, 84, (84, 56)])
def test_another_size_than_that_of_the_weights_is_scored_saved_and_loaded(
    weights: Path, images: list[np.ndarray], tmp_path: Path, size: int | tuple[int, int]
) -> None:
    torch.manual_seed(0)
    vit.check_backbone(weights, size)
    made = vit.Detector(vit.Network.from_weights(weights), vit.Input.of_weights(weights, size))
    height, width = made.inputs.image_size
    output = made.network(torch.zeros(1, 3, height, width))
    assert output["patch_logits"].shape == (1, height // 14, width // 14)
    scores = made.score(images)
    made.save(tmp_path / "model")
    loaded = vit.load(tmp_path / "model").score(images)
    assert np.array_equal(loaded.image_scores, scores.image_scores)
    assert np.array_equal(loaded.anomaly_maps, scores.anomaly_maps)


@pytest.mark.parametrize("kind", ["efficientnet_lite0", "dinov3_vit", "resnet", None])
def test_weights_of_no_classifier_with_patches_are_named(tmp_path: Path, kind: str | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(InputError) as caught:
        vit.check_backbone(tmp_path, 224)
    assert str(caught.value) == (
        f"train_vit.backbone: model_type {kind!r} of {tmp_path} is no transformer that classifies "
        "images; choose weights of one of vit, deit, beit, dinov2, dinov2_with_registers, such as "
        "vit_small"
    )


@pytest.mark.parametrize(("size", "near"), [(60, "56 or 70"), (32, "28 or 42")])
def test_a_size_that_the_patches_do_not_fill_is_named(weights: Path, size: int, near: str) -> None:
    with pytest.raises(InputError, match=rf"^train_vit.image_size {size} is no .* choose {near}"):
        vit.check_backbone(weights, size)


def test_a_block_has_to_be_left_to_train(weights: Path) -> None:
    vit.check_backbone(weights, 56, 1)
    with pytest.raises(InputError) as caught:
        vit.check_backbone(weights, 56, 2)
    assert str(caught.value) == (
        f"train_vit.frozen_blocks = 2 leaves none of the 2 blocks of {weights} to train; lower it"
    )


@pytest.mark.parametrize("kind", vit.CLASSIFIERS)
def test_every_kind_it_names_is_trained_at_any_size(tmp_path: Path, kind: str) -> None:
    config = AutoConfig.for_model(
        kind, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        image_size=56, patch_size=14,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(tmp_path)
    vit.check_backbone(tmp_path, (84, 56))
    network = vit.Network.from_weights(tmp_path)
    output = network(torch.zeros(1, 3, 84, 56), torch.tensor([1]), torch.ones(1, 6, 4))
    assert output["patch_logits"].shape == (1, 6, 4)
    output["loss"].backward()
    assert all(head.grad is not None for head in network.heads)


def test_a_long_image_keeps_its_aspect_and_what_is_left_over_counts_for_nothing(
    detector: vit.Detector,
) -> None:
    image = np.random.default_rng(0).integers(1, 256, (112, 56, 3), dtype=np.uint8)
    [pixels] = detector.inputs.to_tensor([image])
    assert pixels.shape == (3, 56, 56)
    assert (pixels[..., 28:] == 0).all()
    assert detector.score([image]).patch_scores.shape == (1, 4, 2)
    mask = np.zeros((112, 56), bool)
    mask[:28] = True
    shares = detector.inputs.shares(mask)
    assert shares.tolist() == [[1, 1, -1, -1], *[[0, 0, -1, -1]] * 3]

    output = detector.network(pixels[None], torch.tensor([1]), shares[None])
    expected = torch.nn.functional.cross_entropy(output["logits"], torch.tensor([1]))
    expected += torch.nn.functional.binary_cross_entropy_with_logits(
        output["patch_logits"][:, :, :2], shares[None, :, :2]
    )
    torch.testing.assert_close(output["loss"], expected)
