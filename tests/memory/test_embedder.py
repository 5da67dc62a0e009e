"""A region is embedded with what surrounds it, alike wherever it is asked."""

import numpy as np
import pytest

from blackswan.evaluation.regions import Region
from blackswan.memory import embedder as embedders


def at(left, top, height, width):
    return Region(left, top, np.ones((height, width), bool), 1.0)


@pytest.mark.parametrize(
    ("region", "shape", "rows", "columns"),
    [
        (at(20, 30, 4, 8), (64, 64), (24, 40), (16, 32)),  # 8 and half of it on each side
        (at(0, 60, 4, 8), (64, 64), (48, 64), (0, 16)),  # moved inwards at two borders
        (at(0, 0, 64, 64), (64, 64), (0, 64), (0, 64)),  # no more than there is
        (at(4, 30, 2, 60), (64, 200), (0, 64), (0, 120)),
        (at(50, 50, 1, 1), (100, 100), (45, 55), (45, 55)),  # a speck: a tenth of the side
    ],
)
def test_the_crop(embedder, region, shape, rows, columns):
    image = np.arange(shape[0] * shape[1], dtype=np.int64).reshape(*shape)
    crop, inside = embedder.crop(image, region)
    assert (crop[0, 0] // shape[1], crop[-1, -1] // shape[1] + 1) == rows
    assert (crop[0, 0] % shape[1], crop[-1, -1] % shape[1] + 1) == columns
    assert inside.shape == crop.shape
    assert inside.sum() == region.inside.sum()


def test_an_embedding_has_length_one_and_is_the_same_again(embedder, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    found = embedder.embed(image, at(20, 20, 8, 8))
    assert found.dtype == np.float32
    assert found.shape == (embedder.dimensions,) == (48,)
    assert np.linalg.norm(found) == pytest.approx(1)
    embedder.save(tmp_path / "embedder")
    loaded = embedders.load(tmp_path / "embedder")
    assert loaded.hash == embedder.hash
    assert loaded.embed(image, at(20, 20, 8, 8)).tobytes() == found.tobytes()


def test_the_region_weighs_its_own_patches(embedder):
    image = np.zeros((56, 56, 3), np.uint8)
    image[:28] = 255
    inside = np.zeros((56, 56), bool)
    inside[:14] = True
    upper = embedder.embed(image, Region(0, 0, inside, 1.0))
    lower = embedder.embed(image, Region(0, 0, inside[::-1], 1.0))
    params = embedder.params.model_copy(update={"pooling": "crop"})
    whole = embedders.Embedder(params, embedder.weights)
    assert upper @ lower < 0.999
    assert whole.embed(image, Region(0, 0, inside, 1.0)) == pytest.approx(
        whole.embed(image, Region(0, 0, inside[::-1], 1.0))
    )


def test_other_settings_have_another_hash(embedder):
    other = embedder.params.model_copy(update={"context": 1.0})
    renamed = embedder.params.model_copy(update={"backbone": "another name"})
    assert embedders.Embedder(other, embedder.weights).hash != embedder.hash
    assert embedders.Embedder(renamed, embedder.weights).hash == embedder.hash
