import io

import numpy as np
import pytest
from PIL import Image

from blackswan.errors import InputError
from blackswan.networks import photos


def test_the_photos_of_both_packages_are_decoded_by_name(monkeypatch):
    asked = {}

    def fetch(requirement, wheel_sha256, pins, built_for):
        asked.update(pins)
        assert requirement == "scikit-image==0.26.0"
        assert "--platform=manylinux_2_28_x86_64" in built_for
        picture = io.BytesIO()
        Image.new("L", (30, 20), 7).save(picture, "PNG")
        return dict.fromkeys(pins, picture.getvalue())

    monkeypatch.setattr(photos, "fetch_files_from_wheel", fetch)
    found = photos.sample_photos()
    assert len(asked) == 11
    assert len(found) == 13
    assert np.array_equal(found["coffee"], np.full((20, 30, 3), 7, np.uint8))
    assert {name: found[name].shape for name in ("china", "flower")} == {
        "china": (427, 640, 3),
        "flower": (427, 640, 3),
    }


@pytest.mark.slow
def test_the_pins_hold():
    try:
        found = photos.sample_photos()
    except InputError as error:
        if "sha256" in str(error):
            raise
        pytest.skip(str(error))
    assert found["astronaut"].shape == (512, 512, 3)
