"""A graph scales like OpenCV, to the bit."""

import cv2
import numpy as np
import pytest
import torch

from blackswan.data.images import ShorterSide, Within, crop_and_resize
from blackswan.data.preprocessing import Preprocessing, Step
from blackswan.export import resizing
from blackswan.networks.backbones import to_tensor

SIZES = [
    ((72, 72), (36, 36)), ((72, 72), (24, 24)), ((60, 30), (20, 20)), ((45, 22), (22, 22)),
    ((36, 36), (22, 22)), ((108, 108), (22, 22)), ((67, 103), (45, 45)), ((96, 64), (32, 32)),
    ((22, 22), (32, 32)), ((20, 30), (64, 45)), ((60, 40), (45, 45)), ((33, 33), (66, 66)),
    ((48, 48), (48, 48)), ((30, 22), (22, 22)),
]  # fmt: skip


def noise(height, width, count=2):
    return np.random.default_rng(height * width).integers(0, 256, (count, height, width, 3), "u1")


def as_numbers(images):
    return torch.from_numpy(images).float()


@pytest.mark.parametrize(("before", "after"), SIZES, ids=str)
def test_scaled_as_photos_are(before, after):
    images = noise(*before)
    expected = [crop_and_resize(image, "none", after) for image in images]
    assert np.array_equal(resizing.averaged(as_numbers(images), after).numpy(), expected)


@pytest.mark.parametrize(("before", "after"), SIZES, ids=str)
def test_scaled_as_the_input_of_a_network_is(before, after):
    images = noise(*before)
    expected = to_tensor(list(images), after, [0, 0, 0], [1 / 255] * 3).permute(0, 2, 3, 1)
    found = resizing.fitted(as_numbers(images), after)
    np.testing.assert_array_equal(found.numpy(), expected.round().numpy())


def test_prepared_as_the_steps_say():
    images = noise(70, 91)
    steps = [
        Step(crop="center_square", size=33),
        Step(crop=(2, 3, 25, 20), size=ShorterSide(shorter_side=16)),
        Step(crop="none", size=Within(within=(40, 40))),
        Step(crop="none", size=None),
    ]
    preprocessing = Preprocessing(steps=steps)
    expected = [preprocessing(image) for image in images]
    assert expected[0].shape == (32, 40, 3)
    assert np.array_equal(resizing.prepare(as_numbers(images), preprocessing).numpy(), expected)


def test_a_whole_frame_of_a_clip():
    frame = noise(720, 1280, 1)
    steps = [Step(crop="center_square", size=224)]
    preprocessing = Preprocessing(steps=steps)
    found = resizing.prepare(as_numbers(frame), preprocessing)
    assert np.array_equal(found[0].numpy(), preprocessing(frame[0]))
    assert np.array_equal(
        resizing.fitted(found, (320, 320))[0].numpy(),
        cv2.resize(preprocessing(frame[0]), (320, 320), interpolation=cv2.INTER_LINEAR),
    )
