"""The one number: on the side of the verdict, rising, and at its three fixed points."""

import numpy as np
import pytest
from conftest import make_model

from blackswan.evaluation.model import Model, Verdicts
from blackswan.serving.confidence import confidences


def found(scores, threshold, probabilities=False):
    scores = np.asarray(scores, np.float32)
    nothing = np.zeros(len(scores))
    return Verdicts(scores, nothing, scores > threshold, [], threshold, probabilities)


def test_the_median_normal_image_the_threshold_and_its_mirror():
    model = make_model()  # median 2.5, threshold 5
    assert confidences(model, found([2.5, 5, 7.5], 5.0)).tolist() == pytest.approx(
        [0.05, 0.5, 0.95]
    )


def test_of_probabilities_it_is_the_distance_of_logits():
    values = confidences(make_model(), found([0.2, 0.5, 0.8], 0.2, probabilities=True))
    assert values.tolist() == pytest.approx([0.5, 0.8, 16 / 17])
    ends = confidences(make_model(), found([0, 1], 1.0, probabilities=True))
    assert np.isfinite(ends).all()
    assert ends[1] == 0.5


def test_it_rises_and_stands_on_the_side_of_the_verdict():
    threshold = 5.0
    near = np.nextafter(np.float32(threshold), np.float32([0, 9]))
    scores = np.array([-1e30, 0, 2, near[0], 5, near[1], 6, 100, 1e30], np.float32)
    values = confidences(make_model(), found(scores, threshold))
    assert (np.diff(values) >= 0).all()
    assert ((values > 0.5) == (scores > threshold)).all()
    assert ((values >= 0) & (values <= 1)).all()


def test_a_threshold_at_the_median_is_a_step():
    model = make_model()
    flat = Model(model.detector, model.facts, [np.full(9, 5.0)])
    assert confidences(flat, found([4, 5, 6], 5.0)).tolist() == pytest.approx([0, 0.5, 1])
