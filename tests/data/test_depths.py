import cv2
import numpy as np
import pytest

from blackswan.data.decoding import count_values
from blackswan.data.depths import settle
from blackswan.data.images import read_turned
from blackswan.errors import InputError

SIDE = 120  # pixels; of 14,400, one hot pixel is less than 1 in 10,000


def values(*hot, top=4080):
    """Return values up to `top`, with hot pixels in the middle."""
    grey = np.linspace(0, top, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
    grey[SIDE // 2, : len(hot)] = hot
    return grey


def write_pnm(path, pixels, largest=65535):
    kind = "P6" if pixels.ndim == 3 else "P5"
    head = f"{kind} {SIDE} {SIDE} {largest}\n".encode()
    path.write_bytes(head + pixels.astype(">u2").tobytes())
    return path


def write(path, grey):
    """Write grey values by what the name of the file says: rgb_*, *.pgm, packed in 12 bits."""
    if path.name.startswith("rgb"):
        pixels = np.dstack([grey] * 3)
        if path.suffix == ".ppm":
            return write_pnm(path, pixels)
        cv2.imwrite(str(path), pixels)
    elif path.suffix == ".pgm":
        write_pnm(path, grey)
    else:
        cv2.imwrite(str(path), grey)
    return path


KINDS = ["a.png", "a.tif", "a.pgm", "rgb.png", "rgb.tif", "rgb.ppm"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hot_pixel_does_not_set_the_scale(tmp_path, capsys, kind):
    grey = values(65535)
    path = write(tmp_path / kind, grey)
    assert settle(tmp_path, [path], None) == 12
    count, hot = (grey.size * 3, 3) if kind.startswith("rgb") else (grey.size, 1)
    assert capsys.readouterr().err == (
        f"{tmp_path}: 1 files of 16 bits hold values up to 65535, but only {hot} of their {count} "
        "values, in 1 files, lie above 4095: taken for hot pixels, these are clipped, and the "
        "files are read as 12 bits; extract_frames.bit_depth=16 keeps them\n"
    )
    image, _ = read_turned(path, 12)
    expected = np.minimum(grey, 4095) >> 4
    assert np.array_equal(image, np.dstack([expected] * 3))
    assert settle(tmp_path, [path], 16) == 16
    assert np.array_equal(read_turned(path, 16)[0], np.dstack([grey >> 8] * 3))


@pytest.mark.parametrize("kind", KINDS)
def test_without_hot_pixels_the_largest_value_decides(tmp_path, capsys, kind):
    path = write(tmp_path / kind, values())
    assert settle(tmp_path, [path], None) == 12
    assert capsys.readouterr().err == (
        f"{tmp_path}: 1 files of 16 bits hold values up to 4080 and are read as 12 bits; "
        "extract_frames.bit_depth sets another\n"
    )
    assert np.array_equal(read_turned(path, 12)[0][:, :, 0], values() >> 4)


def test_bright_parts_are_no_hot_pixels(tmp_path, capsys):
    bright = write(tmp_path / "a.png", values(*[9000] * 2))  # more than 1 in 10,000
    assert settle(tmp_path, [bright], None) == 14
    dark = [write(tmp_path / f"{n}.png", values()) for n in range(9)]
    assert settle(tmp_path, [bright, *dark], None) == 12
    small = tmp_path / "small.png"  # few of the source, but much of its own file
    cv2.imwrite(str(small), np.full((2, 2), 9000, np.uint16))
    assert settle(tmp_path, [small, *dark], None) == 14
    assert "are clipped" in capsys.readouterr().err.splitlines()[1]


def test_a_depth_that_was_chosen_clips_few_and_refuses_many(tmp_path, capsys):
    hot, bright = write(tmp_path / "a.png", values(5000)), write(tmp_path / "b.png", values())
    assert settle(tmp_path, [hot], 12) == 12
    assert capsys.readouterr().err == (
        f"{tmp_path}: 1 of their 14400 values, in 1 files, lie above 4095 and are clipped "
        "(extract_frames.bit_depth is 12)\n"
    )
    assert settle(tmp_path, [bright], 10) == 10
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match=r"b.png has the value 4080, which takes more than 10"):
        read_turned(bright, 10)


def test_a_pnm_that_gives_its_largest_value_is_taken_at_its_word(tmp_path, capsys):
    path = write_pnm(tmp_path / "a.pgm", values(4095), largest=4095)
    assert settle(tmp_path, [], None) == 16
    for bit_depth in (12, 16):
        image, _ = read_turned(path, bit_depth)
        assert np.abs(image[:, :, 0].astype(int) - (values(4095) >> 4)).max() <= 1
    assert capsys.readouterr().err == ""


def test_alpha_of_16_bits_beside_colour_of_12(tmp_path):
    pixels = np.dstack([values(), values(), values(), np.full((SIDE, SIDE), 65535, np.uint16)])
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    assert settle(tmp_path, [tmp_path / "a.png"], None) == 12
    assert np.array_equal(read_turned(tmp_path / "a.png", 12)[0][:, :, 0], values() >> 4)


def test_hot_pixels_are_counted_over_strips(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png", values(*[65535] * 10))
    monkeypatch.setattr("blackswan.data.decoding.STRIP", SIDE)
    assert read_turned(path, 12)[0].max() == 255
    counts, largest = count_values(path)
    expected, _ = np.histogram(values(*[65535] * 10), 256, (0, 1 << 16))
    assert np.array_equal(counts, expected)
    assert largest == 65535
