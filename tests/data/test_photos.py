import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from blackswan.data.photos import Params, Photo, settle
from blackswan.data.records import Frame, SourceImage
from blackswan.errors import InputError


def params(bit_depth=None, invert_masks=None, turn_masks=False):
    return Params(bit_depth=bit_depth, invert_masks=invert_masks, turn_masks=turn_masks)


def items(*photos):
    return [SourceImage(Frame(photo.image.stem, "shop"), photo) for photo in photos]


def settled(root, *photos, **changes):
    found = settle(root, items(*photos), params(**changes))
    return [item.read() for item in found.images]


def save(path, pixels, orientation=None):
    exif = Image.Exif()
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def deep(path, *values, colour=False):
    pixels = np.array([values], np.uint16)
    cv2.imwrite(str(path), np.dstack([pixels // 2, pixels, pixels]) if colour else pixels)
    return path


def test_one_scale_for_the_whole_source(tmp_path, capsys):
    dark, bright = deep(tmp_path / "a.png", 0, 160), deep(tmp_path / "b.tif", 0, 4080)
    pixels = [image[0, :, 0].tolist() for image, _ in settled(tmp_path, Photo(dark), Photo(bright))]
    assert pixels == [[0, 10], [0, 255]]
    assert capsys.readouterr().err == (
        f"{tmp_path}: 2 files of 16 bits hold values up to 4080 and are read as 12 bits; "
        "extract_frames.bit_depth sets another\n"
    )
    image, _ = settled(tmp_path, Photo(bright), bit_depth=14)[0]
    assert image[0, :, 0].tolist() == [0, 63]
    assert capsys.readouterr().err == ""
    with pytest.raises(
        InputError, match=r"b.tif has the value 4080, which takes more than 10 bits"
    ):
        settled(tmp_path, Photo(bright), bit_depth=10)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colour_of_12_bits(tmp_path, suffix):
    path = deep(tmp_path / f"a.{suffix}", 0, 4080, colour=True)
    image, _ = settled(tmp_path, Photo(path))[0]
    assert image.tolist() == [[[0, 0, 0], [255, 255, 127]]]


def test_8_bits_are_not_decoded_for_the_scale(tmp_path, capsys, monkeypatch):
    path = save(tmp_path / "a.png", np.full((2, 3, 3), 7, np.uint8))
    monkeypatch.setattr("blackswan.data.depths.count_values", None)
    found = settle(tmp_path, items(Photo(path)), params())
    assert (found.images[0].read()[0] == 7).all()
    assert found.not_square == 1
    assert capsys.readouterr().err == ""


def masked(root, *shares):
    photos = []
    for number, share in enumerate(shares):
        image = save(root / f"{number}.png", np.zeros((10, 10, 3), np.uint8))
        mask = np.zeros((10, 10), np.uint8)
        mask.flat[:share] = 255
        photos.append(Photo(image, (save(root / f"{number}-mask.png", mask),)))
    return photos


def test_masks_that_mark_most_of_the_image_are_refused_or_inverted(tmp_path):
    photos = masked(tmp_path, 90, 95, 20)
    with pytest.raises(InputError, match=r"mark 90% .* extract_frames.invert_masks to true"):
        settled(tmp_path, *photos)
    found = [mask.sum() for _, mask in settled(tmp_path, *photos, invert_masks=True)]
    assert found == [10, 5, 80]
    found = [mask.sum() for _, mask in settled(tmp_path, *photos, invert_masks=False)]
    assert found == [90, 95, 20]


def test_one_large_defect_stops_nothing(tmp_path):
    photos = masked(tmp_path, 90, 5, 4)
    assert [mask.sum() for _, mask in settled(tmp_path, *photos)] == [90, 5, 4]


def test_an_inverted_mask_of_a_normal_photo_marks_nothing(tmp_path):
    [photo] = masked(tmp_path, 100)
    normal = Photo(photo.image, photo.masks, normal=True)
    assert settled(tmp_path, normal, invert_masks=True)[0][1] is None
    with pytest.raises(InputError, match="marks a defect in it"):
        settled(tmp_path, normal)


def turned(root, orientation):
    image = np.zeros((20, 30, 3), np.uint8)
    image[:8, :8] = 255
    mask = (image[:, :, 0] > 0) * np.uint8(255)
    photo = save(root / "a.png", image, orientation)
    return Photo(photo, (save(root / "a-mask.png", mask),))


def test_a_mask_beside_a_photo_turned_by_90(tmp_path):
    photo = turned(tmp_path, 6)
    with pytest.raises(
        InputError, match=r"a.png is turned by its EXIF .* extract_frames.turn_mask"
    ):
        settled(tmp_path, photo)
    image, mask = settled(tmp_path, photo, turn_masks=True)[0]
    assert image.shape[:2] == mask.shape == (30, 20)
    assert np.array_equal(image[:, :, 0] > 0, mask)


def test_a_mask_beside_a_photo_turned_by_180(tmp_path, capsys):
    photo = turned(tmp_path, 3)
    image, mask = settled(tmp_path, photo)[0]
    assert mask[:8, :8].all()
    assert image[-8:, -8:].all()
    assert capsys.readouterr().err == (
        f"{tmp_path}: EXIF turns 1 photos that have masks, which are read as drawn on the upright "
        "photo; extract_frames.turn_masks changes that\n"
    )
    image, mask = settled(tmp_path, photo, turn_masks=True)[0]
    assert np.array_equal(image[:, :, 0] > 0, mask)
    assert "turned along" in capsys.readouterr().err
