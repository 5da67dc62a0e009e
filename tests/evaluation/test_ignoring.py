"""Scores without regions, by each detector's own rule; what has no such rule says so at once."""

import numpy as np
import pytest
from conftest import make_model

from blackswan.data.preprocessing import Preprocessing, Step
from blackswan.data.regions import Ignored, Regions
from blackswan.detectors.interface import Scores
from blackswan.errors import InputError
from blackswan.evaluation import model as complete
from blackswan.evaluation.ignoring import Ignoring, check, leave_out, unmapped

LEFT = [(0, 0), (7, 0), (7, 15), (0, 15)]
AS_IT_IS = Preprocessing(steps=[])


class Knobs:
    """What is read of the params of a detector."""

    def __init__(self, top_fraction):
        self.top_fraction = top_fraction


class Greys:
    """A patch of 2 x 2 pixels scores its grey, an image the mean of its highest patches."""

    def __init__(self, top_fraction=0.25, more=0.0, probabilities=False):
        self.params, self.more, self.probabilities = Knobs(top_fraction), more, probabilities

    def score(self, images):
        patches = np.stack([image[::2, ::2, 0] for image in images]).astype(np.float32)
        count = round(patches[0].size * (self.params.top_fraction or 0)) or 1
        highest = np.sort(patches.reshape(len(images), -1), axis=1)[:, -count:].mean(axis=1)
        size = images[0].shape[:2]
        return Scores(highest + self.more, patches, size, probabilities=self.probabilities)


def picture(left=10, right=10):
    image = np.full((16, 16, 3), 10, np.uint8)
    image[4:8, 2:6], image[4:8, 10:14] = left, right
    return image


def ignored(*polygons):
    regions = Regions(width=16, height=16, ignore=[*polygons])
    return Ignored(camera="line1", sha256="ab" * 32, regions=regions)


MASK = ignored(LEFT).seen(AS_IT_IS)


@pytest.mark.parametrize("top_fraction", [0.25, None])
def test_the_score_is_that_of_what_is_left(top_fraction):
    detector = Greys(top_fraction)
    scores = detector.score([picture(200, 50), picture(200, 50)])
    left = leave_out(detector, scores, [None, MASK])
    assert left.image_scores[0] == scores.image_scores[0]
    # 32 patches are left; a quarter of them are 4 of 50 and 4 of 10
    assert left.image_scores[1] == (30 if top_fraction else 50)
    assert left.patch_scores[1, :, :4].max() == left.patch_scores[1, :, 4:].min() == 10
    assert np.array_equal(left.patch_scores[0], scores.patch_scores[0])
    assert scores.patch_scores[1].max() == 200  # what was given is as it was
    assert leave_out(detector, scores, [None, None]) is scores


def test_nothing_that_is_left_is_refused():
    with pytest.raises(InputError, match="leave nothing of the image; make them smaller"):
        leave_out(Greys(), Greys().score([picture()]), [np.ones((16, 16), bool)])


@pytest.mark.parametrize("detector", [Greys(more=1), Greys(probabilities=True)])
def test_a_score_of_more_than_the_map_is_refused_before_any_image(detector):
    with pytest.raises(InputError, match=r"\(the vit, or patchcore by equation 7\) scores"):
        check(detector, (16, 16))
    check(Greys(), (16, 16))


def test_an_export_says_where_to_go():
    exported = Greys(more=1)
    exported.exported = "what stands in export.json"
    with pytest.raises(InputError, match="this export has maps and no patch scores"):
        check(exported, (16, 16))


def test_detectors_that_refuse_are_known_before_a_fit():
    assert [unmapped("vit", None), unmapped("median_residual", None)] == [True, False]
    assert [unmapped("patchcore", Knobs(each)) for each in (None, 0.01)] == [True, False]


def test_a_detector_that_ignores_scores_batches_of_prepared_images():
    judge = Ignoring(Greys(), ignored(LEFT), AS_IT_IS)
    assert judge.score([picture(200, 50), picture(10, 200)]).image_scores.tolist() == [30, 105]
    with pytest.raises(InputError, match="16 x 16 pixels, as the regions of line1 say, would be"):
        judge.score([np.zeros((16, 20, 3), np.uint8)])


def test_a_model_leaves_its_own_regions_and_others_out(tmp_path):
    model = make_model()
    photo = np.full((32, 32, 3), 100, np.uint8)
    photo[8:12, 4:8] = 255  # left
    right = photo[:, ::-1].copy()
    score = lambda judge, image, also=None: judge.score_seen([judge.see(image, also)])  # noqa: E731
    assert score(model, photo).flagged.tolist() == [True]
    assert score(model, photo, ignored(LEFT)).flagged.tolist() == [False]
    assert score(model, right, ignored(LEFT)).flagged.tolist() == [True]
    (tmp_path / "fitted").mkdir()
    (tmp_path / "own").mkdir()
    model.detector.save(tmp_path / "fitted")
    complete.save(
        tmp_path / "own", tmp_path / "fitted", model.facts, model.normal_scores, ignored(LEFT)
    )
    own = complete.load(tmp_path / "own")
    assert own.ignored == ignored(LEFT)
    for found in (own.score([photo]), own.score_prepared([own.prepare(photo)])):
        assert found.flagged.tolist() == [False]
        assert found.image_scores.tolist() == score(model, photo, ignored(LEFT)).image_scores
    assert own.score([right]).flagged.tolist() == [True]
    rest = ignored([(8, 0), (15, 0), (15, 8), (8, 8)])
    assert score(own, right, rest).flagged.tolist() == [False]
    assert own.regions(rest) == [ignored(LEFT), rest]
    done = own.for_prepared(Preprocessing(steps=[Step(crop="none", size=16)]))
    assert done.score([own.prepare(photo)]).flagged.tolist() == [False]
