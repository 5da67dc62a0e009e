import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from blackswan.data.images import read_mask
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
    assert found.shapes == {(2, 3): 1}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("orientation", range(1, 9))
def test_shapes_are_those_of_upright_photos(tmp_path, orientation):
    path = save(tmp_path / "a.jpg", np.zeros((20, 30, 3), np.uint8), orientation)
    found = settle(tmp_path, items(Photo(path)), params())
    assert found.shapes == {found.images[0].read()[0].shape[:2]: 1}


def test_files_of_several_pages_are_named(tmp_path, capsys):
    pages = [Image.new("RGB", (6, 6), colour) for colour in ("red", "green", "blue")]
    for name, count in (("a.tif", 3), ("b.webp", 2), ("c.png", 3), ("d.mpo", 2), ("e.tif", 1)):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:count])
    (tmp_path / "d.mpo").rename(tmp_path / "d.jpg")  # as phones write photos
    photos = [Photo(path) for path in sorted(tmp_path.iterdir())]
    assert [image[0, 0, 0] > 200 for image, _ in settled(tmp_path, *photos)] == [True] * 5
    assert capsys.readouterr().err == (
        f"{tmp_path}: 3 files hold several pages or pictures, of which the first is read: "
        "a.tif (3), b.webp (2), c.png (3); save the others as files of their own if they count\n"
    )


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


def test_one_inverted_mask_among_others_is_named(tmp_path, capsys):
    photos = masked(tmp_path, 90, 5, 4)
    with pytest.raises(InputError) as caught:
        settled(tmp_path, *photos)
    assert str(caught.value) == (
        "1 of 3 masks mark most of the image and of its border, unlike the others: "
        f"{tmp_path}/0-mask.png (90%); invert them if they are white where normal, or set "
        "extract_frames.invert_masks to false if the defects are that large"
    )
    assert [mask.sum() for _, mask in settled(tmp_path, *photos, invert_masks=False)] == [90, 5, 4]
    assert capsys.readouterr().err == ""
    settled(tmp_path, *masked(tmp_path, 90, 95, 10), invert_masks=True)
    assert "2-mask.png (90%); they may be drawn the other way" in capsys.readouterr().err


def test_one_large_defect_that_leaves_the_border_stops_nothing(tmp_path):
    photos = masked(tmp_path, 0, 5, 4)
    mask = np.zeros((10, 10), np.uint8)
    mask[1:9, 1:9] = 255
    save(tmp_path / "0-mask.png", mask)
    assert [mask.sum() for _, mask in settled(tmp_path, *photos)] == [64, 5, 4]


WHITE, RED = (255, 255, 255), (237, 28, 36)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("colour", [RED, (0, 0, 0)])
def test_coloured_marks_on_white_are_read_once_white_is_said_to_be_normal(tmp_path, suffix, colour):
    mask = np.full((40, 40, 3), WHITE, np.uint8)
    mask[8:16, 16:32] = colour
    image = save(tmp_path / "a.png", np.zeros((40, 40, 3), np.uint8))
    path = tmp_path / f"mask.{suffix}"
    Image.fromarray(mask).save(path, quality=95, subsampling=0)
    photo = Photo(image, (path,))
    with pytest.raises(InputError, match="extract_frames.invert_masks to true if they are white"):
        settled(tmp_path, photo)
    [(_, marks)] = settled(tmp_path, photo, invert_masks=True)
    assert np.array_equal(marks, mask[:, :, 1] < 255)


def test_marks_of_grey_labels_and_of_alpha_on_white(tmp_path):
    def inverted(mask):
        Image.fromarray(mask).save(tmp_path / "mask.png")
        return read_mask(tmp_path / "mask.png", (1, 3), inverted=True).tolist()[0]

    assert inverted(np.array([[255, 128, 0]], np.uint8)) == [False, True, True]
    assert inverted(np.array([[1, 1, 0]], np.uint8)) == [False, False, True]
    assert inverted(np.array([[0, 0, 0]], np.uint8)) == [True, True, True]
    assert inverted(np.array([[60000, 1, 0]], np.uint16)) == [False, False, True]
    assert inverted(np.array([[True, True, False]])) == [False, False, True]
    rgba = np.array([[[0, 0, 0, 255], [0, 0, 0, 200], [255, 255, 255, 0]]], np.uint8)
    assert inverted(rgba) == [False, False, True]
    rgba[:, :, 3] = 255
    assert inverted(rgba) == [True, True, False]


def test_masks_that_mark_most_of_the_image_either_way_are_refused(tmp_path):
    mask = np.full((10, 10), 128, np.uint8)
    mask[0, :4] = 255
    image = save(tmp_path / "a.png", np.zeros((10, 10, 3), np.uint8))
    photo = Photo(image, (save(tmp_path / "mask.png", mask),))
    with pytest.raises(InputError, match=r"mark 100% .* and 96% if white is normal; draw the def"):
        settled(tmp_path, photo)
    with pytest.raises(InputError, match=r"mark 96% .* not white; set .*invert_masks to null or f"):
        settled(tmp_path, photo, invert_masks=True)
    assert settled(tmp_path, photo, invert_masks=False)[0][1].all()


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
