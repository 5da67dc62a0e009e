"""Embeddings that were computed once are those of the backbone, and are not computed again."""

import numpy as np
import pytest
import torch
from tiny_weights import write_weights

from blackswan.networks.backbones import load_backbone
from blackswan.networks.remembered import RememberedBackbone


@pytest.fixture
def backbone(tmp_path):
    write_weights(tmp_path / "tiny", "dinov2")
    return load_backbone(tmp_path / "tiny", [1, 2], 56)


def pictures(count):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 48, 3)).astype(np.uint8) for _ in range(count)]


def test_known_images_are_read_and_others_computed(backbone, tmp_path, monkeypatch):
    images = pictures(13)
    known = RememberedBackbone(backbone, [*images[:10], images[0]], 11, tmp_path / "embeddings")
    expected = backbone.embed(images)
    assert known.channels == backbone.channels
    assert known.grids == backbone.grids

    computed = []
    embed = backbone.embed
    monkeypatch.setattr(backbone, "embed", lambda new: computed.extend(new) or embed(new))
    mixed = [12, 3, 0, 9, 11, 3]
    for layer, wanted in zip(known.embed([images[i] for i in mixed]), expected, strict=True):
        torch.testing.assert_close(layer, wanted[mixed], rtol=1e-5, atol=1e-5)
    assert len(computed) == 2  # images 12 and 11
    known.embed(images[:10])
    assert len(computed) == 2


def test_what_is_read_may_be_changed(backbone, tmp_path):
    images = pictures(2)
    known = RememberedBackbone(backbone, images, 2, tmp_path)
    first = known.embed(images)[0]
    before = first.clone()
    first.zero_()
    assert torch.equal(known.embed(images)[0], before)
