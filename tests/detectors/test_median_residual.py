from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from blackswan.detectors import interface, median_residual
from blackswan.errors import InputError


def detector(kernel=3, blur=9):
    return median_residual.Detector(median_residual.Params(kernel=kernel, blur=blur))


def smooth(seed, shape=(48, 64)):
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (*shape, 3)), (0, 0), 6)
    return cv2.normalize(noise, None, 60, 190, cv2.NORM_MINMAX).astype(np.uint8)


def salted(seed):
    image = smooth(seed)
    rng = np.random.default_rng(seed)
    patch = image[20:30, 40:52]
    patch[rng.random(patch.shape[:2]) < 0.3] = 255
    return image


def test_a_noisy_patch_scores_higher_and_the_map_peaks_inside():
    scores = detector().score([smooth(0), salted(0), smooth(1), salted(1)])
    assert min(scores.image_scores[1::2]) > 5 * max(scores.image_scores[::2])
    for anomaly_map in scores.anomaly_maps[1::2]:
        y, x = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
        assert 20 <= y < 30
        assert 40 <= x < 52


def test_shapes_and_types():
    scores = detector().score([smooth(0), smooth(1)])
    assert (scores.image_scores.shape, scores.image_scores.dtype) == ((2,), np.float32)
    assert (scores.anomaly_maps.shape, scores.anomaly_maps.dtype) == ((2, 48, 64), np.float32)
    assert not scores.probabilities


def test_one_white_pixel_by_hand():
    image = np.full((21, 21, 3), 100, np.uint8)
    image[10, 10] = (255, 90, 100)
    scores = detector(kernel=3, blur=5).score([image])
    expected = np.zeros((21, 21), np.float32)
    expected[8:13, 8:13] = 155 / 25  # the largest channel, averaged over 5 x 5
    assert scores.anomaly_maps[0] == pytest.approx(expected)
    assert scores.image_scores[0] == pytest.approx(6.2)


def test_a_batch_of_four_is_four_batches_of_one():
    images = [smooth(0), salted(0), smooth(1), salted(1)]
    together = detector().score(images)
    alone = [detector().score([image]) for image in images]
    assert np.array_equal(together.image_scores, np.concatenate([s.image_scores for s in alone]))
    assert np.array_equal(together.anomaly_maps, np.concatenate([s.anomaly_maps for s in alone]))


def test_saved_and_loaded_it_is_the_same(tmp_path):
    fitted = detector(kernel=5, blur=7)
    fitted.save(tmp_path)
    loaded = median_residual.load(tmp_path)
    assert loaded.params == fitted.params
    image = [salted(2)]
    assert np.array_equal(loaded.score(image).anomaly_maps, fitted.score(image).anomaly_maps)


@pytest.mark.parametrize("value", [0, 1, 4, 17, -3])
def test_kernels_are_odd(value):
    with pytest.raises(ValidationError, match="must be an odd number from 3 to 15"):
        median_residual.Params(kernel=value, blur=9)


def test_detectors_are_found_by_name():
    assert interface.load_module("median_residual") is median_residual
    with pytest.raises(InputError, match=r"no detector nope: blackswan/detectors/nope.py does not"):
        interface.load_module("nope")


def test_a_model_that_is_not_there_is_told():
    with pytest.raises(InputError, match="nowhere/detector.json is missing"):
        median_residual.load(Path("nowhere"))
