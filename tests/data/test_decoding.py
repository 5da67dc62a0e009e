import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from blackswan.data import decoding
from blackswan.data.decoding import FORMATS, decode_marks, decode_rgb
from blackswan.data.images import MAX_SIDE, encode_png, write_png
from blackswan.errors import InputError

HEIGHT, WIDTH = 23, 37
MODES = {
    "1": ["png", "bmp", "tiff"],
    "L": ["png", "bmp", "tiff", "jpeg", "webp"],
    "LA": ["png", "tiff"],
    "P": ["png", "bmp", "tiff"],
    "RGB": ["png", "bmp", "tiff", "jpeg", "webp"],
    "RGBA": ["png", "bmp", "tiff", "webp"],
    "CMYK": ["tiff", "jpeg"],
    "YCbCr": ["tiff", "jpeg"],
    "LAB": ["tiff"],
    "I;16": ["png", "tiff"],
    "I;16B": ["tiff"],
}


def reference(data):
    """Decode as a whole, the way it was done before: the pixels may not change."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):
            grey = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2), np.asarray(image).astype(np.bool_)
        opaque_grey = image.mode in ("1", "L") and not image.has_transparency_data
        marks = np.asarray(image).astype(np.bool_) if opaque_grey else None
        if image.has_transparency_data:
            alpha = np.asarray(image.convert("RGBA"))[:, :, 3]
            marks = alpha > 127 if np.ptp(alpha) else None
            black = Image.new("RGBA", image.size, "black")
            image = Image.alpha_composite(black, image.convert("RGBA"))
        rgb = np.array(image.convert("RGB"))
        return rgb, np.any(rgb, axis=2) if marks is None else marks


def drawn(mode):
    rng = np.random.default_rng(0)
    if mode.startswith("I;16"):
        deep = rng.integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16)
        return Image.frombytes(mode, (WIDTH, HEIGHT), deep.tobytes())
    pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 4)).astype(np.uint8)
    pixels[:8] *= rng.random((8, WIDTH, 1)) > 0.5  # some of it is black
    if mode in ("YCbCr", "LAB", "CMYK"):
        bands = len(Image.new(mode, (1, 1)).getbands())
        return Image.frombytes(mode, (WIDTH, HEIGHT), pixels[:, :, :bands].tobytes())
    return Image.fromarray(pixels).convert(mode)


def saved(image, suffix, orientation=None, **options):
    if orientation:
        options["exif"] = Image.Exif()
        options["exif"][ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


def check(data):
    rgb, marks = reference(data)
    found = decode_rgb(io.BytesIO(data), "x")
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert np.array_equal(found, rgb)
    with Image.open(io.BytesIO(data)) as image:
        jpeg = image.format in ("JPEG", "MPO")
    if not jpeg:
        found = decode_marks(io.BytesIO(data), "x")
        assert found.dtype == np.bool_
        assert np.array_equal(found, marks)


@pytest.fixture(params=[200, 1 << 19], ids=["strips", "whole"])
def strips(request, monkeypatch):
    monkeypatch.setattr(decoding, "STRIP", request.param)


@pytest.mark.parametrize(
    ("mode", "suffix"), [(mode, suffix) for mode, found in MODES.items() for suffix in found]
)
def test_every_mode_upright(strips, mode, suffix):
    for orientation in (None, *range(1, 10)) if suffix != "bmp" else (None,):
        check(saved(drawn(mode), suffix, orientation))


@pytest.mark.parametrize(
    ("mode", "suffix", "options"),
    [
        ("L", "png", {"transparency": 90}),
        ("P", "png", {"transparency": 5}),
        ("P", "png", {"transparency": bytes(range(256))}),
        ("RGB", "png", {"transparency": (1, 2, 3)}),
        ("RGBA", "tiff", {"compression": "tiff_lzw"}),
        ("CMYK", "tiff", {"compression": "tiff_adobe_deflate"}),
        ("YCbCr", "tiff", {"compression": "jpeg"}),
        ("RGB", "jpeg", {"progressive": True}),
        ("RGB", "jpeg", {"subsampling": 0}),
        ("RGBA", "webp", {"lossless": True}),
    ],
)
def test_options_of_the_formats(strips, mode, suffix, options):
    check(saved(drawn(mode), suffix, **options))
    check(saved(drawn(mode), suffix, 6, **options))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("png", {"disposal": 1}),
        ("png", {"disposal": 2, "default_image": True}),
        ("webp", {}),
        ("tiff", {}),
        ("mpo", {}),
    ],
)
def test_the_first_of_several(strips, suffix, options):
    frames = [drawn("RGB" if suffix == "mpo" else "RGBA"), Image.new("RGB", (WIDTH, HEIGHT))]
    check(saved(frames[0], suffix, save_all=True, append_images=frames[1:], **options))


def packed(bits, color, rows, interlaced):
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, color, 0, 0, interlaced)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize(("color", "bands"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("bits", [8, 16])
def test_png_of_16_bits_and_interlaced(strips, bits, color, bands):
    rng = np.random.default_rng(1)
    adam7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
    for interlaced in (False, True):
        passes = [*adam7, (0, 1, 1, 2)] if interlaced else [(0, 0, 1, 1)]
        rows = b"".join(
            b"\0" + rng.bytes(len(range(left, WIDTH, across)) * bands * bits // 8)
            for left, top, across, down in passes
            for _ in range(top, HEIGHT, down)
        )
        check(packed(bits, color, rows, interlaced))


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_large_webp_is_decoded_otherwise_to_the_same_pixels(strips, monkeypatch, mode, lossless):
    decoded = []
    original = decoding._decode_webp
    monkeypatch.setattr(decoding, "_is_large_webp", lambda image: image.format == "WEBP")
    monkeypatch.setattr(
        decoding, "_decode_webp", lambda *given: decoded.append(1) or original(*given)
    )
    for orientation in range(1, 9):
        check(saved(drawn(mode), "webp", orientation, lossless=lossless))
    assert len(decoded) >= 16
    whole = saved(drawn(mode), "webp")
    with pytest.raises(InputError, match="x cannot be decoded .*; replace or remove it"):
        decode_rgb(io.BytesIO(whole[:-20]), "x")


@pytest.mark.parametrize(
    ("mode", "suffix", "options", "bytes_a_pixel"),
    [
        ("RGB", "png", {}, 7),
        ("RGBA", "png", {}, 7),
        ("L", "png", {}, 4),
        ("I;16", "png", {}, 5),
        ("RGB", "jpeg", {}, 7),
        ("RGB", "jpeg", {"progressive": True}, 7),  # coefficients of 4:2:0 take 3
        ("RGB", "jpeg", {"progressive": True, "subsampling": 0}, 10),
        ("CMYK", "jpeg", {"progressive": True}, 12),
        ("RGBA", "tiff", {"compression": "tiff_lzw", "strip_size": 1 << 20}, 8),
        ("RGBA", "tiff", {"compression": "tiff_lzw", "strip_size": 64}, 7),
        ("RGB", "webp", {"lossless": True, "save_all": True, "append_images": [drawn("L")]}, 19),
    ],
)
def test_what_takes_too_much_is_refused_before_it_is_decoded(
    monkeypatch, mode, suffix, options, bytes_a_pixel
):
    data = saved(drawn(mode), suffix, **options)
    needed = bytes_a_pixel * HEIGHT * WIDTH + (2 * len(data) if suffix == "webp" else 0)
    monkeypatch.setattr(decoding, "MAX_BYTES", needed)
    decode_rgb(io.BytesIO(data), "x")
    monkeypatch.setattr(decoding, "MAX_BYTES", needed - 1)
    with pytest.raises(InputError, match=r"x takes 0 MB to decode, the limit is 0; save it as PNG"):
        decode_rgb(io.BytesIO(data), "x")


@pytest.mark.parametrize(
    "error", [OSError(12, "Cannot allocate memory"), OSError("out of memory error when reading")]
)
def test_missing_memory_is_no_fault_of_the_file(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(decoding, "_rgb", fail)
    with pytest.raises(MemoryError):
        decode_rgb(io.BytesIO(encode_png(np.zeros((4, 4, 3), np.uint8))), "x")


def test_what_is_scaled_to_has_a_limit():
    assert MAX_SIDE**2 <= decoding.MAX_PIXELS < (MAX_SIDE + 1) ** 2


MEASURE = """
import sys
from pathlib import Path
from blackswan.data.decoding import decode_marks, decode_rgb
from blackswan.data.images import write_png
from blackswan.parallel import parallel_map

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(field))

what, path, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
work = {
    "read": lambda _: len(decode_rgb(path, "x")),
    "mask": lambda _: len(decode_marks(path, "x")),
    "rewrite": lambda number: write_png(path.with_name(f"{number}.png"), decode_rgb(path, "x")),
}[what]
before = memory("VmRSS")
list(parallel_map(work, range(workers), workers))
print(memory("VmHWM") - before)  # of ru_maxrss a child takes over what its parent had
"""


def growth(what, path, workers=1):
    command = [sys.executable, "-c", MEASURE, what, str(path), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_image_of_80_megapixels_takes_600_mb(tmp_path):
    image = Image.new("LA", (8900, 8900), (90, 128))
    image.save(tmp_path / "a.png", compress_level=1)
    assert growth("read", tmp_path / "a.png") < 600
    assert growth("mask", tmp_path / "a.png") < 450


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_more_workers_take_no_more(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = Image.new("RGBA", (8900, 8900), (90, 120, 60, 128))
    image.save(tmp_path / "a.png", compress_level=1, exif=exif)
    assert growth("rewrite", tmp_path / "a.png", 4) < 640


def test_a_large_image_is_written_as_a_small_one(tmp_path, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    pictures = [image, image[:, :, 0], image[:, :, 0] > 90, image[:, ::2]]
    expected = [encode_png(picture) for picture in pictures]
    monkeypatch.setattr("blackswan.data.images.IN_MEMORY", 100)
    monkeypatch.setattr(cv2, "imencode", None)
    for picture, content in zip(pictures, expected, strict=True):
        write_png(tmp_path / "a.png", picture)
        assert (tmp_path / "a.png").read_bytes() == content
        assert encode_png(picture) == content


def test_a_large_image_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("blackswan.data.images.IN_MEMORY", 100)
    (tmp_path / "a.png").symlink_to("/dev/full")  # OpenCV says that it wrote it
    with pytest.raises(OSError, match="No space left on device"):
        write_png(tmp_path / "a.png", np.zeros((40, 50, 3), np.uint8))


@pytest.mark.parametrize("depth", [255, 65535])
def test_pgm_of_8_and_16_bits(tmp_path, depth):
    values = np.linspace(0, depth, 6).astype(">u2" if depth > 255 else np.uint8).reshape(2, 3)
    (tmp_path / "a.pgm").write_bytes(f"P5 3 2 {depth}\n".encode() + values.tobytes())
    grey = values.astype(int) >> (8 if depth > 255 else 0)
    assert np.array_equal(decode_rgb(tmp_path / "a.pgm", "a"), np.stack([grey] * 3, axis=2))


@pytest.mark.slow  # CI installs the extra for these
def test_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    image = Image.new("RGB", (64, 48), (200, 40, 90))
    heif.from_pillow(image).save(tmp_path / "a.heic", quality=-1)
    decoded = decode_rgb(tmp_path / "a.heic", "a")
    assert decoded.shape == (48, 64, 3)
    assert np.abs(decoded.reshape(-1, 3).mean(axis=0) - (200, 40, 90)).max() < 3
