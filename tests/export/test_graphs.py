"""What a detector is in torch alone is what it is."""

import numpy as np
import pytest
import torch
from small_detectors import KINDS, PREPARED, SIZE, draw_photo

from blackswan.errors import InputError
from blackswan.evaluation.model import load
from blackswan.export.graphs import Judge, Photo


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_detector_is_a_module_of_torch(complete_of, kind):
    detector = load(complete_of(kind)).detector
    images = [PREPARED(draw_photo(number, stain=number == 101)) for number in (100, 101)]
    expected = detector.score(images)
    with torch.no_grad():
        scores, maps, *logits = Judge(detector, SIZE).eval()(torch.from_numpy(np.stack(images)))
    np.testing.assert_allclose(scores, expected.image_scores, rtol=2e-5)
    scale = np.abs(expected.anomaly_maps).max()
    np.testing.assert_allclose(maps, expected.anomaly_maps, atol=1e-5 * scale)
    assert len(logits) == (expected.logits is not None)
    for found in logits:
        np.testing.assert_allclose(found, expected.logits, atol=1e-5)


def test_photos_become_what_the_detector_sees():
    photos = [draw_photo(number) for number in range(3)]
    found = Photo(PREPARED)(torch.from_numpy(np.stack(photos)))
    assert found.dtype == torch.uint8
    assert np.array_equal(found, [PREPARED(photo) for photo in photos])


def test_another_kind_is_refused():
    class Detector:
        """Of somebody else."""

    with pytest.raises(InputError, match="has no graph; export another detector"):
        Judge(Detector(), SIZE)
