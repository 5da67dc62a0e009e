import os
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import ExifTags, Image

from blackswan.data import images
from blackswan.data.images import (
    ImageSize,
    ShorterSide,
    Within,
    crop_and_resize,
    crop_box,
    decode_image,
    decode_mask,
    encode_png,
    png_size,
    read_image,
    read_mask,
    scaled_size,
)
from blackswan.errors import InputError
from blackswan.params import Section, load_section


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_lossless_formats_keep_every_pixel(tmp_path, picture, suffix):
    image = read_image(save(tmp_path / f"a.{suffix}", picture))
    assert np.array_equal(image, picture)
    assert image.dtype == np.uint8
    assert image.flags.writeable


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_are_rgb(tmp_path, suffix):
    orange = np.full((16, 16, 3), (200, 100, 20), np.uint8)
    read = read_image(save(tmp_path / f"a.{suffix}", orange, quality=95))
    assert np.abs(read.astype(int) - orange).max() <= 4


def test_grey_palette_bilevel_and_cmyk(tmp_path):
    grey = np.array([[0, 100, 255]], np.uint8)
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    assert np.array_equal(read_image(save(tmp_path / "grey.png", grey)), expected)
    assert np.array_equal(read_image(save(tmp_path / "palette.png", grey, "P")), expected)
    assert read_image(save(tmp_path / "bits.png", grey > 50)).tolist() == [
        [[0] * 3, [255] * 3, [255] * 3]
    ]
    cmyk = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
    cmyk.save(tmp_path / "cmyk.tif")
    assert read_image(tmp_path / "cmyk.tif").tolist() == [[[255, 0, 0]]]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_keep_their_high_byte(tmp_path, name):
    deep = np.array([[0, 257, 0x7FFF, 0xFFFF]], np.uint16)
    assert read_image(save(tmp_path / name, deep))[0, :, 0].tolist() == [0, 1, 0x7F, 255]


def test_big_endian_sixteen_bits(tmp_path):
    deep = Image.frombytes("I;16B", (2, 1), b"\x01\x00\xff\x00")
    deep.save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [1, 255]


def test_transparent_is_black_and_opaque_is_itself(tmp_path):
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128]]], np.uint8)
    read = read_image(save(tmp_path / "a.png", rgba))
    assert read.tolist() == [[[200, 100, 50], [0, 0, 0], [100, 50, 25]]]
    palette = Image.new("P", (1, 1), 1)
    palette.putpalette([9, 9, 9, 200, 100, 50])
    palette.save(tmp_path / "p.png", transparency=1)
    assert read_image(tmp_path / "p.png").tolist() == [[[0, 0, 0]]]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_exif_orientation_turns_the_image(tmp_path, name):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # shown turned by 90 degrees clockwise
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16] = 255
    read = read_image(save(tmp_path / name, stored, exif=exif))
    assert read.shape == (32, 16, 3)
    assert read[:12].min() > 240
    assert read[20:].max() < 15


def refused(act, *words):
    with pytest.raises(InputError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


def test_broken_files_are_named_with_a_remedy(tmp_path, picture):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    whole = save(tmp_path / "whole.png", np.tile(picture, (20, 20, 1))).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "head.png").write_bytes(whole[:20])
    for name in ("empty.png", "text.jpg", "cut.png", "head.png"):
        refused(
            lambda name=name: read_image(tmp_path / name), tmp_path / name, "replace or remove it"
        )
    refused(lambda: read_image(tmp_path / "absent.png"), "absent.png does not exist")
    refused(lambda: read_image(tmp_path), tmp_path, "cannot be decoded")
    refused(lambda: decode_image(b"", "request 3"), "request 3 is empty")


def test_formats_outside_the_list_are_refused(tmp_path, picture):
    save(tmp_path / "a.gif", picture).rename(tmp_path / "a.png")
    refused(lambda: read_image(tmp_path / "a.png"), "not a JPEG, PNG, BMP, TIFF, WebP, HEIC or PNM")
    save(tmp_path / "float.tif", np.ones((2, 2), np.float32))
    refused(lambda: read_image(tmp_path / "float.tif"), "32 bits", "convert it")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path, picture):
    path = save(tmp_path / "a.png", picture)
    path.chmod(0)
    refused(lambda: read_image(path), path, "permission")


def test_permission_error_becomes_a_sentence(tmp_path, picture, monkeypatch):
    def deny(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", deny)
    refused(lambda: read_image(tmp_path / "a.png"), "a.png may not be read", "chmod u+r")


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])  # silent, warned about, refused by Pillow
def test_decompression_bomb_is_refused_before_decoding(tmp_path, side):
    def chunk(kind, data):
        return (
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        )

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused(
            lambda: read_image(tmp_path / "bomb.png"), "bomb.png", "80,000,000", "scale it down"
        )
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        refused(
            lambda: read_image(tmp_path / "bomb.png"), "bomb.png", "80,000,000", "scale it down"
        )


def test_importing_turns_the_bomb_warning_into_an_error():
    code = (
        "import warnings, blackswan.data.images; from PIL import Image\n"
        "try: warnings.warn('x', Image.DecompressionBombWarning)\n"
        "except Image.DecompressionBombWarning: print('raised')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("raised\n", "")


def test_mask_marks_what_is_not_black(tmp_path):
    grey = np.array([[0, 1], [128, 255]], np.uint8)
    expected = [[False, True], [True, True]]
    assert read_mask(save(tmp_path / "a.png", grey), (2, 2)).tolist() == expected
    assert (
        read_mask(save(tmp_path / "b.bmp", np.dstack([grey, grey, grey])), (2, 2)).tolist()
        == expected
    )
    assert read_mask(save(tmp_path / "c.png", grey.astype(np.uint16)), (2, 2)).tolist() == expected
    assert read_mask(save(tmp_path / "d.png", grey > 0), (2, 2)).tolist() == expected
    opaque = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    assert read_mask(save(tmp_path / "e.png", opaque), (2, 2)).tolist() == expected


def test_mask_of_another_size_or_in_jpeg(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((4, 6), np.uint8))
    refused(lambda: read_mask(path, (5, 7)), path, "6 x 4", "7 x 5")
    jpeg = save(tmp_path / "a.jpg", np.full((4, 6), 128, np.uint8))
    refused(lambda: read_mask(jpeg, (4, 6)), jpeg, "save it as PNG")


def test_a_jpeg_mask_of_two_peaks_is_cut_at_half(tmp_path):
    marks = np.zeros((40, 60), bool)
    marks[8:24, 16:40] = True
    path = save(tmp_path / "a.jpg", marks * np.uint8(255), quality=60)
    assert np.array_equal(read_mask(path, (40, 60)), marks)
    assert not read_mask(save(tmp_path / "b.jpg", marks * np.uint8(0)), (40, 60)).any()
    ramp = np.tile(np.linspace(0, 255, 60).astype(np.uint8), (40, 1))
    path = save(tmp_path / "c.jpg", ramp)
    refused(lambda: read_mask(path, (40, 60)), path, "not black and white", "save it as PNG")


def test_alpha_that_varies_tells_what_is_marked(tmp_path):
    rgba = np.zeros((1, 4, 4), np.uint8)
    rgba[0, :, 1] = 164
    rgba[0, :, 3] = [0, 127, 128, 255]  # an antialiased edge
    assert read_mask(save(tmp_path / "a.png", rgba), (1, 4)).tolist() == [
        [False, False, True, True]
    ]
    rgba[0, :, :3], rgba[0, :, 3] = [[0] * 3, [1] * 3, [0] * 3, [9] * 3], 255
    assert read_mask(save(tmp_path / "b.png", rgba), (1, 4)).tolist() == [
        [False, True, False, True]
    ]


def test_png_round_trip_and_same_bytes(picture):
    assert np.array_equal(decode_image(encode_png(picture)), picture)
    assert encode_png(picture) == encode_png(picture.copy())
    mask = picture[:, :, 0] > 128
    assert decode_mask(encode_png(mask)).tolist() == mask.tolist()
    grey = picture[:, :, 0]
    assert np.array_equal(decode_image(encode_png(grey))[:, :, 1], grey)
    assert np.array_equal(decode_image(encode_png(picture[:, ::2])), picture[:, ::2])


def test_threads_encode_the_same_bytes(picture):
    large = np.tile(picture, (30, 30, 1))
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(encode_png, [large] * 16))) == 1


def test_crop_box():
    assert crop_box(7, 5, "none") == (0, 0, 7, 5)
    assert crop_box(7, 4, "center_square") == (1, 0, 4, 4)
    assert crop_box(4, 9, "center_square") == (0, 2, 4, 4)
    assert crop_box(7, 5, (2, 1, 5, 4)) == (2, 1, 5, 4)
    assert crop_box(7, 5, [0, 0, 7, 5]) == (0, 0, 7, 5)


@pytest.mark.parametrize(
    "box", [(3, 0, 5, 5), (0, 1, 7, 5), (-1, 0, 2, 2), (0, 0, 0, 3), (0, 0, 3, 0)]
)
def test_crop_box_outside(box):
    refused(lambda: crop_box(7, 5, box), list(box), "7 x 5", "choose a smaller box")


def test_nothing_to_do_returns_the_image_itself(picture):
    square = picture[:, :5]
    assert crop_and_resize(picture, "none", None) is picture
    assert crop_and_resize(square, "center_square", (5, 5)) is square
    assert crop_and_resize(square, (0, 0, 5, 5), (5, 5), mask=True) is square


def test_crop_takes_the_pixels_of_the_box(picture):
    assert np.array_equal(crop_and_resize(picture, (2, 1, 3, 4), None), picture[1:5, 2:5])
    assert np.array_equal(crop_and_resize(picture, "center_square", None), picture[:, 1:6])


def test_shrinking_averages():
    checks = np.indices((8, 8)).sum(axis=0) % 2 * 200
    image = np.repeat(checks[:, :, None], 3, axis=2).astype(np.uint8)
    assert np.unique(crop_and_resize(image, "none", (4, 4))).tolist() == [100]


def test_each_direction_has_its_own_step():
    checks = np.indices((2, 8)).sum(axis=0) % 2 * 200  # to 4 x 4: taller and narrower
    image = np.repeat(checks[:, :, None], 3, axis=2).astype(np.uint8)
    result = crop_and_resize(image, "none", (4, 4))
    assert result.shape == (4, 4, 3)
    assert np.unique(result).tolist() == [100]


def test_masks_take_the_nearest_pixel():
    mask = np.zeros((4, 6), bool)
    mask[:, 3:] = True
    scaled = crop_and_resize(mask, "none", (12, 12), mask=True)
    assert scaled.dtype == np.bool_
    assert scaled.tolist() == [[False] * 6 + [True] * 6] * 12


@pytest.mark.parametrize(("height", "width", "size"), [(50, 70, 16), (33, 32, 31), (48, 64, 16)])
def test_a_shrunk_mask_is_true_where_any_pixel_it_covers_is(height, width, size):
    for y, x in np.random.default_rng(0).integers(0, (height, width), (40, 2)):
        mask = np.zeros((height, width), bool)
        mask[y, x] = True
        expected = [
            [
                row * height < (y + 1) * size
                and (row + 1) * height > y * size
                and column * width < (x + 1) * size
                and (column + 1) * width > x * size
                for column in range(size)
            ]
            for row in range(size)
        ]
        assert crop_and_resize(mask, "none", (size, size), mask=True).tolist() == expected


def test_a_mask_shrinks_in_one_direction_and_grows_in_the_other():
    mask = np.zeros((2, 8), bool)
    mask[1, 3] = True
    expected = [[False] * 4, [False] * 4, [False, True, False, False], [False, True, False, False]]
    assert crop_and_resize(mask, "none", (4, 4), mask=True).tolist() == expected


def test_mask_stays_on_its_image():
    image = np.zeros((90, 120, 3), np.uint8)
    image[30:60, 40:70] = 255
    for size in (31, 64, 200):
        small = crop_and_resize(image, "center_square", (size, size))
        mask = crop_and_resize(image.any(axis=2), "center_square", (size, size), mask=True)
        least = 0 if size < 90 else 127  # a mask that shrinks has all that is not quite black
        assert ((small[:, :, 0] > least) ^ mask).sum() <= 4 * size // 10


def test_pixel_cap_lies_below_the_one_of_pillow():
    assert images.MAX_PIXELS < Image.MAX_IMAGE_PIXELS


class Sized(Section):
    image_size: ImageSize | None


def read_size(tmp_path, text):
    (tmp_path / "p.yaml").write_text(f"build_dataset: {{image_size: {text}}}")
    return load_section(Sized, "build_dataset", tmp_path / "p.yaml").image_size


@pytest.mark.parametrize(
    ("text", "size", "shape"),
    [
        ("64", (64, 64), (64, 64)),
        ("[64, 32]", (64, 32), (64, 32)),
        ("{shorter_side: 30}", ShorterSide(shorter_side=30), (40, 30)),
        ("{within: 100}", Within(within=(100, 100)), (100, 75)),
        ("{within: [120, 60]}", Within(within=(120, 60)), (80, 60)),
        ("null", None, None),
    ],
)
def test_sizes_as_a_file_names_them(tmp_path, text, size, shape):
    read = read_size(tmp_path, text)
    assert read == size
    again = Sized.model_validate_json(Sized(image_size=read).model_dump_json())
    assert again.image_size == size
    if shape:
        assert scaled_size(read, (400, 300)) == shape
        image = crop_and_resize(np.zeros((400, 300, 3), np.uint8), "none", read)
        assert image.shape == (*shape, 3)
        mask = crop_and_resize(np.ones((400, 300), bool), "none", read, mask=True)
        assert mask.shape == shape
        assert mask.all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{shorter_side: 8}", "shorter_side must be a number of pixels, 16 to 8944"),
        ("{shorter_side: [9]}", "shorter_side must be a number of pixels"),
        ("{within: 8}", "must be at least 16 pixels"),
        ("{within: [99999, 99999]}", "more pixels than a square of 8944"),
        (
            "{longer_side: 80}",
            r"takes \{shorter_side: 256\} or \{within: \[320, 256\]\}, or a size",
        ),
        ("large", "takes the side of a square"),
    ],
)
def test_sizes_that_are_none_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=f"build_dataset.image_size.*{message}"):
        read_size(tmp_path, text)


def test_an_image_of_which_nothing_would_be_left_is_named():
    with pytest.raises(InputError, match=r"^a.png has 900 x 20 pixels and would have 224 x 5 when"):
        scaled_size(Within(within=(224, 224)), (20, 900), "a.png")
    with pytest.raises(InputError, match=r"scaled to \{shorter_side: 8000\}; crop it"):
        scaled_size(ShorterSide(shorter_side=8000), (20, 900))


def test_a_png_begins_with_its_size(picture):
    assert png_size(encode_png(picture)) == (5, 7)
