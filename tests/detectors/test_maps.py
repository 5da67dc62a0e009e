import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import interpolate

from blackswan.detectors.maps import to_maps


def test_equals_bilinear_interpolation_and_a_gaussian():
    scores = torch.rand(2, 7, 5, generator=torch.Generator().manual_seed(0))
    enlarged = interpolate(scores[None], size=(70, 60), mode="bilinear")[0].numpy()
    np.testing.assert_allclose(to_maps(scores, (70, 60), 0), enlarged, atol=1e-6)
    blurred = gaussian_filter(enlarged, (0, 3.5, 3), mode="reflect")
    np.testing.assert_allclose(to_maps(scores, (70, 60), 0.05), blurred, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (33, 90), (4, 4), (1, 1)])
def test_a_flat_score_stays_flat_at_any_size(size):
    maps = to_maps(torch.full((3, 8, 8), 2.5), size, 0.02)
    assert maps.shape == (3, *size)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, 2.5, rtol=1e-6)


def test_a_peak_stays_where_it_is():
    scores = torch.zeros(1, 8, 8)
    scores[0, 2, 5] = 1
    row, column = np.unravel_index(to_maps(scores, (160, 320), 0.02)[0].argmax(), (160, 320))
    assert 40 <= row < 60
    assert 200 <= column < 240
