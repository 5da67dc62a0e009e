"""The blocks behind the frozen ones train as if the whole network ran on every image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from blackswan.data.dataset import Row, Split, write_shards
from blackswan.data.images import encode_png
from blackswan.detectors import frozen, rows, vit

SIZE, BLOCKS = (84, 56), 3  # of 14 pixels 6 x 4 patches


@pytest.fixture(params=vit.CLASSIFIERS)
def network(request, tmp_path) -> vit.Network:
    config = AutoConfig.for_model(
        request.param, hidden_size=24, num_hidden_layers=BLOCKS, num_attention_heads=2,
        intermediate_size=48, image_size=56, patch_size=14,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(tmp_path / "weights")
    return vit.Network.from_weights(tmp_path / "weights").eval()


@pytest.fixture
def training_rows(tmp_path) -> vit.TrainingRows:
    write_shards(tmp_path / "dataset", "train", (draw(i) for i in range(5)), 100)
    inputs = vit.Input(image_size=SIZE, patch_size=14, mean=(0.5,) * 3, deviation=(0.25,) * 3)
    return vit.TrainingRows(Split(tmp_path / "dataset", "train"), inputs)


def draw(index: int) -> Row:
    image = np.random.default_rng(index).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    mask = np.zeros(SIZE, bool)
    mask[:21, :14] = True
    anomalous = index % 2
    return Row(
        path=f"{index}.png",
        image=encode_png(image),
        mask=encode_png(mask) if anomalous else None,
        label=anomalous,
        defect="hole" if anomalous else "",
        synthetic=False,
        augmented=False,
        group=str(index),
        timestamp_s=None,
    )


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("count", [1, BLOCKS - 1])
def test_losses_and_gradients_equal_those_of_the_whole_network(
    network, training_rows, count, on_disk, tmp_path, monkeypatch
):
    batch = torch.utils.data.default_collate([training_rows[index] for index in range(5)])
    whole = network(**batch)
    whole["loss"].backward()
    names = dict(network.named_parameters())
    gradients = {name: each.grad.clone() for name, each in names.items() if each.grad is not None}
    network.zero_grad()

    monkeypatch.setattr(rows, "IN_MEMORY", 0 if on_disk else 10**9)
    tail = frozen.Tail(network, count, SIZE)
    remembered = tail.remember(training_rows, 2, Path(tmp_path))
    assert len(remembered) == 5
    output = tail(**torch.utils.data.default_collate([remembered[index] for index in range(5)]))
    for name in ("logits", "patch_logits", "loss"):
        assert torch.allclose(output[name], whole[name], atol=1e-5), name
    output["loss"].backward()
    trained = {
        name: each.grad for name, each in tail.network.named_parameters() if each.requires_grad
    }
    assert set(trained) < set(gradients) | {name for name in names if "mask_token" in name}
    for name, gradient in trained.items():
        assert torch.allclose(gradient, gradients[name], atol=1e-5), name


def test_frozen_blocks_are_no_part_of_the_tail_until_they_are_put_back(network, training_rows):
    before = set(network.state_dict())
    frozen_names = {name for name in before if ".encoder.layer.0." in name}
    assert frozen_names
    tail = frozen.Tail(network, 1, SIZE)
    assert set(network.state_dict()) == before - frozen_names
    assert not any(".embeddings." in n for n, p in tail.named_parameters() if p.requires_grad)
    tail.put_back()
    assert set(network.state_dict()) == before


def test_the_masks_are_the_shares_of_the_patches(network, training_rows, tmp_path):
    remembered = frozen.Tail(network, 1, SIZE).remember(training_rows, 2, tmp_path)
    expected = torch.zeros(6, 4)
    expected[0, 0], expected[1, 0] = 1, 0.5
    assert torch.equal(remembered[1]["masks"], expected)
    assert torch.equal(remembered[0]["masks"], torch.zeros(6, 4))
    assert [int(remembered[index]["labels"]) for index in range(5)] == [0, 1, 0, 1, 0]
