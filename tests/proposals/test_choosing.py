"""The least certain images come first; what is asked of each shows the same place."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import make_model

from blackswan.data.images import decode_image, write_png
from blackswan.data.known import sha256_of
from blackswan.data.sources.video import Sampling
from blackswan.errors import InputError
from blackswan.evaluation.model import Model, Seen
from blackswan.evaluation.thresholds import largest_p_values
from blackswan.proposals.choosing import candidates, least_certain, sample
from blackswan.reporting.verdicts import list_source, open_images

ALL = Sampling(every_n_seconds=0, start_s=0, end_s=None, max_frames=None)


def images_of(path):
    files = list_source(path)
    return lambda: open_images(path, files, ALL)


class Ranked(Model):
    """A model that gives the images scores in turn."""

    def __init__(self, scores):
        made = make_model()
        super().__init__(made.detector, made.facts, made.normal_scores)
        self.scores = iter(scores)

    def score_seen(self, seen):
        scores = np.array([next(self.scores) for _ in seen], np.float32)
        p_values = largest_p_values(scores, self.normal_scores, self.facts.alpha)
        found = super().score_seen(seen)
        return replace(found, image_scores=scores, p_values=p_values, flagged=scores > 5)


def test_the_least_certain_are_nearest_to_the_threshold(photos):
    # Of four normal scores, 1 to 4, p-values are 1/5, at alpha, to 1.
    scores = [0.5, 9.0, 3.5, 4.1, 30.0, 1.5, 2.5, 6.0, 0.1, 0.2]
    found = [least_certain(Ranked(scores), images_of(photos), most) for most in (1, 3, 4, 6)]
    assert found == [[3], [1, 3, 7], [1, 3, 4, 7], [1, 2, 3, 4, 6, 7]]


def test_a_sample_is_a_part_of_every_larger_one(photos):
    three, five = (sample(images_of(photos), most, 0) for most in (3, 5))
    assert len(three) == 3
    assert set(three) < set(five) < set(range(10))
    assert sample(images_of(photos), 3, 0) == three
    assert sample(images_of(photos), 5, 1) != five
    assert sample(images_of(photos), 99, 0) == list(range(10))


def test_a_candidate_shows_what_the_detector_found(photos):
    files = list_source(photos)
    marked = next(n for n, file in enumerate(files) if file.name == "3.png")
    first, second = candidates(make_model(), images_of(photos), [0, marked])
    assert [first.image, second.image] == ["0/0.png", "1/3.png"]
    assert second.sha256 == sha256_of(files[marked].read_bytes())
    pictures = {name: decode_image(content) for name, content in second.pictures.items()}
    assert {name: picture.shape for name, picture in pictures.items()} == dict.fromkeys(
        ("crop", "image", "heatmap"), (16, 16, 3)
    )
    assert (pictures["image"] == decode_image(files[marked].read_bytes())).all()
    assert pictures["crop"].mean() > pictures["image"].mean()  # the specks are white
    assert (pictures["heatmap"] != pictures["image"]).any()
    assert (first.verdict, second.verdict) == ("normal", "anomalous")


def test_equal_images_are_asked_about_once(photos):
    # Eight of the ten photos are the same flat one.
    found = list(candidates(make_model(), images_of(photos), range(10)))
    assert len(found) == len({one.sha256 for one in found}) == 3


@pytest.mark.parametrize(
    ("score", "verdict", "is_certain"),
    [(9.0, "anomalous", True), (4.5, "normal", False), (2.5, "normal", True)],
)
def test_who_is_certain(photos, score, verdict, is_certain):
    [one] = candidates(Ranked([score]), images_of(photos), [0])
    assert (one.verdict, one.is_certain) == (verdict, is_certain)


def test_large_pictures_are_scaled_down(tmp_path):
    image = np.full((40, 2100, 3), 90, np.uint8)
    image[10:14, 1000:1006] = 255
    write_png(tmp_path / "parts/wide.png", image)
    model = make_model()
    model.see = lambda pixels: Seen(pixels, None, None)
    [one] = candidates(model, images_of(tmp_path / "parts"), [0])
    sizes = [decode_image(content).shape[:2] for content in one.pictures.values()]
    assert sizes[1:] == [(20, 1024), (20, 1024)]
    assert max(sizes[0]) == 1024
    assert decode_image(one.pictures["crop"]).max() == 255


def test_an_image_that_cannot_be_read_is_named(photos):
    broken = photos / "0/0.png"
    broken.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"0/0\.png"):
        least_certain(make_model(), images_of(photos), 3)
