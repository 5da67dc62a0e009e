import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from blackswan.errors import InputError
from blackswan.networks.pdn import (
    Pdn,
    border,
    load_photos,
    load_teacher,
    patch_grid,
    random_view,
    receptive_field,
    save_teacher,
)

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


def positive(size, channels=2):
    """A PDN in which every ReLU is open, so that no path from a pixel is closed by chance."""
    torch.manual_seed(0)
    network = Pdn(size, channels)
    for parameter in network.parameters():
        parameter.data.uniform_(0.01, 0.02)
    return network


@pytest.mark.parametrize("size", ["S", "M"])
@pytest.mark.parametrize("place", [(0, 0), (2, 5)])
def test_a_patch_depends_on_exactly_33_by_33_pixels(size, place):
    image = torch.rand(1, 3, 65, 65, requires_grad=True)
    row, column = place
    positive(size)(image)[0, :, row, column].sum().backward()
    expected = torch.zeros(65, 65, dtype=bool)
    expected[4 * row : 4 * row + 33, 4 * column : 4 * column + 33] = True
    assert torch.equal((image.grad[0] != 0).all(0), expected)
    assert torch.equal((image.grad[0] != 0).any(0), expected)
    assert receptive_field(size) == (33, 4)


@pytest.mark.parametrize(("size", "parameters"), [("S", 2_694_144), ("M", 8_026_624)])
def test_the_networks_have_the_parameters_of_the_tables(size, parameters):
    network = Pdn(size, 384)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("size", ["S", "M"])
def test_the_grid_is_computed_from_the_layers(size):
    assert [patch_grid(sides, size) for sides in ((33, 64), (224, 256))] == [(1, 8), (48, 56)]
    assert border(size) == 4
    assert Pdn(size, 2)(torch.zeros(1, 3, 64, 64)).shape == (1, 2, 8, 8)


def test_a_crop_has_the_patches_of_the_whole():
    network, image = Pdn("S", 5), torch.rand(1, 3, 80, 80)
    with torch.no_grad():
        whole, crop = network(image), network(image[..., 12:60, 8:56])
    torch.testing.assert_close(crop, whole[..., 3:7, 2:6], rtol=0, atol=1e-6)


def test_some_channels_are_those_of_the_whole():
    network, image = Pdn("M", 6), torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        part = network.describe(network.trunk(image), slice(2, 5))
        torch.testing.assert_close(part, network(image)[:, 2:5], rtol=0, atol=1e-6)


def test_normalising_is_folded_into_the_last_layer():
    network, image = Pdn("S", 3), torch.rand(2, 3, 48, 48)
    mean, std = torch.tensor([0.1, -0.2, 0.3]), torch.tensor([0.5, 2.0, 0.1])
    with torch.no_grad():
        before = network(image)
        network.normalise(mean, std)
        expected = (before - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-5)


def test_a_teacher_saved_and_loaded_is_the_same_and_frozen(tmp_path):
    teacher, image = Pdn("S", 3), torch.rand(1, 3, 48, 48)
    save_teacher(tmp_path, teacher, MEAN, STD, {"backbone": "x"})
    loaded = load_teacher(tmp_path)
    assert torch.equal(loaded(image), teacher(image))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "model_type": "pdn",
        "size": "S",
        "channels": 3,
        "receptive_field": 33,
    }
    assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == {
        "image_mean": MEAN,
        "image_std": STD,
    }


def test_what_is_no_teacher_is_refused(tmp_path):
    with pytest.raises(InputError, match="absent is missing; run `dvc repro distill_teacher`"):
        load_teacher(tmp_path / "absent")
    with pytest.raises(InputError, match=r"is not whole .* `dvc repro -f distill_teacher`"):
        load_teacher(tmp_path)
    save_teacher(tmp_path, Pdn("S", 3), MEAN, STD, {})
    with pytest.raises(InputError, match="has no photos; write it with"):
        load_photos(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["head.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="is not whole"):
        load_teacher(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(InputError, match="holds vit weights, not those of a teacher"):
        load_teacher(tmp_path)


def test_views_are_squares_of_the_image():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    colours = {tuple(pixel) for pixel in image.reshape(-1, 3)}
    sides, gray = set(), 0
    for number in range(50):
        view = random_view(image, np.random.default_rng(number), gray=0.5)
        assert view.shape[0] == view.shape[1]
        sides.add(view.shape[0])
        if (view == view[..., :1]).all():
            gray += 1
        else:
            assert {tuple(pixel) for pixel in view.reshape(-1, 3)} <= colours
    assert min(sides) >= 20
    assert max(sides) <= 40
    assert len(sides) > 10
    assert 15 < gray < 35
    first, again = (random_view(image, np.random.default_rng(7), gray=0.1) for _ in range(2))
    assert np.array_equal(first, again)
