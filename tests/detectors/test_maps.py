import numpy as np
import pytest
import torch
from cv2 import blur
from scipy.ndimage import gaussian_filter
from torch.nn.functional import interpolate

from blackswan.detectors.maps import to_maps


def test_equals_bilinear_interpolation_and_a_gaussian():
    scores = np.random.default_rng(0).random((2, 7, 5), np.float32)
    tensor = torch.from_numpy(scores)[None]
    enlarged = interpolate(tensor, size=(70, 60), mode="bilinear")[0].numpy()
    np.testing.assert_allclose(to_maps(scores, (70, 60), 0), enlarged, atol=1e-6)
    blurred = gaussian_filter(enlarged, (0, 3.5, 3), mode="reflect")
    np.testing.assert_allclose(to_maps(scores, (70, 60), 0.05), blurred, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (33, 90), (4, 4), (1, 1)])
def test_a_flat_score_stays_flat_at_any_size(size):
    maps = to_maps(np.full((3, 8, 8), 2.5, np.float32), size, 0.02)
    assert maps.shape == (3, *size)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, 2.5, rtol=1e-6)


def test_a_peak_stays_where_it_is():
    scores = np.zeros((1, 8, 8), np.float32)
    scores[0, 2, 5] = 1
    row, column = np.unravel_index(to_maps(scores, (160, 320), 0.02)[0].argmax(), (160, 320))
    assert 40 <= row < 60
    assert 200 <= column < 240


def test_scores_of_pixels_are_averaged_and_else_stay_as_they_are():
    residuals = np.random.default_rng(0).integers(0, 256, (2, 20, 30), np.uint8)
    maps = to_maps(residuals, (20, 30), 0, box=5)
    assert maps.dtype == np.float32
    expected = [blur(one.astype(np.float32), (5, 5)) for one in residuals]
    np.testing.assert_array_equal(maps, expected)
    np.testing.assert_array_equal(to_maps(residuals, (20, 30), 0), residuals)


@pytest.mark.parametrize("shape", [(40, 10), (11, 11), (56, 56)])
def test_no_bit_depends_on_the_batch_nor_on_the_place_in_memory(shape):
    scores = np.random.default_rng(0).random((5, *shape), np.float32)
    together = to_maps(scores, (17, 33), 0.018)
    shifted = np.frombuffer(b"-" + scores.tobytes(), np.uint8)[1:].view("<f4").reshape(5, *shape)
    for number in range(5):
        [alone] = to_maps(shifted[number : number + 1], (17, 33), 0.018)
        assert np.array_equal(together[number], alone)
