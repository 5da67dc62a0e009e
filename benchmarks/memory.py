"""How much memory does an image of 80 megapixels take: to be read, and as one of many on all cores?

Draws one image of every kind, reads each in a fresh process, lets 1 to 8 threads take the longest
path there is (read, kept as large as it is, written), and writes benchmarks/memory.json.
`python benchmarks/memory.py`
"""

import multiprocessing
import struct
import tempfile
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import yaml
from measured import record
from PIL import ExifTags, Image

from blackswan.data import leaks, synthesis
from blackswan.data.images import read_image, read_mask, write_png
from blackswan.errors import InputError, run
from blackswan.outputs import write_json
from blackswan.parallel import parallel_map

RESULT = Path("benchmarks/memory.json")
SIDE = 8900  # 79.2 megapixels
WORKERS = (1, 2, 4, 8)
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {  # mode, suffix, how it is saved
    "1 png": ("1", "png", {}),
    "L png": ("L", "png", {}),
    "LA png": ("LA", "png", {}),
    "P png": ("P", "png", {}),
    "P transparent png": ("P", "png", {"transparency": 0}),
    "RGB png": ("RGB", "png", {}),
    "RGB transparent png": ("RGB", "png", {"transparency": (1, 2, 3)}),
    "RGBA png": ("RGBA", "png", {}),
    "I;16 png": ("I;16", "png", {}),
    "I;16B tiff": ("I;16B", "tif", {}),
    "RGB bmp": ("RGB", "bmp", {}),
    "RGB tiff": ("RGB", "tif", {}),
    "RGBA tiff in strips": ("RGBA", "tif", {"compression": "tiff_lzw"}),
    "CMYK tiff in strips": ("CMYK", "tif", {"compression": "tiff_lzw"}),
    "LAB tiff": ("LAB", "tif", {}),
    "YCbCr tiff": ("YCbCr", "tif", {}),
    "RGB jpeg": ("RGB", "jpg", {}),
    "RGB jpeg progressive": ("RGB", "jpg", {"progressive": True}),
    "RGB jpeg progressive 4:4:4": ("RGB", "jpg", {"progressive": True, "subsampling": 0}),
    "CMYK jpeg": ("CMYK", "jpg", {}),
    "RGB webp": ("RGB", "webp", {"method": 0}),
    "RGB webp lossless": ("RGB", "webp", {"lossless": True, "method": 0}),
    "RGBA webp": ("RGBA", "webp", {"method": 0}),
    "RGBA webp lossless": ("RGBA", "webp", {"lossless": True, "method": 0}),
    **{f"RGB tiff orientation {n}": ("RGB", "tif", {"orientation": n}) for n in (3, 6)},
    **{f"RGB jpeg orientation {n}": ("RGB", "jpg", {"orientation": n}) for n in range(2, 9)},
    **{f"RGBA png orientation {n}": ("RGBA", "png", {"orientation": n}) for n in (5, 6)},
    "RGB png of 16 bits": ("16 bits", "png", {}),
    "RGB png interlaced": ("interlaced", "png", {}),
    "RGBA png animated": ("RGBA", "png", {"frames": 2, "disposal": 1}),
    "RGB webp animated": ("RGB", "webp", {"frames": 2, "method": 0}),
    "MPO of two": ("RGB", "mpo.jpg", {"frames": 2, "format": "MPO"}),
    "RGB tiff of two pages": ("RGB", "tif", {"frames": 2}),
    "RGB png of noise": ("noise", "png", {}),  # the last, which the stages get
}


def draw(kind: str, folder: Path) -> Path:
    """Write an image of `kind` and return its path."""
    mode, suffix, options = KINDS[kind]
    path = folder / f"{len(list(folder.iterdir())):02d}.{suffix}"
    options = {"compress_level": 1} | options if suffix == "png" else dict(options)
    if orientation := options.pop("orientation", None):
        options["exif"] = Image.Exif()
        options["exif"][ExifTags.Base.Orientation] = orientation
    if mode in ("16 bits", "interlaced"):
        write_zeros(path, 16 if mode == "16 bits" else 8, mode == "interlaced")
    elif mode == "noise":
        noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, **options)
    else:
        bands = len(Image.new(mode, (1, 1)).getbands())
        color = (90, 120, 60, 128)[:bands] if bands > 1 else 1
        image = Image.new(mode, (SIDE, SIDE), color)
        if frames := options.pop("frames", 0):
            other = Image.new(mode, (SIDE, SIDE), 0)
            options |= {"save_all": True, "append_images": [other] * (frames - 1)}
        image.save(path, **options)
    return path


def write_zeros(path: Path, bits: int, interlaced: bool) -> None:
    """Write a black RGB PNG of kinds that Pillow only reads."""
    passes = [(0, 0, 1, 1)]
    if interlaced:  # Adam7: first column, first row, step across, step down
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
        passes += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    packer, packed = zlib.compressobj(1), b""
    for left, top, across, down in passes:
        row = bytes(1 + len(range(left, SIDE, across)) * 3 * bits // 8)
        for _ in range(top, SIDE, down):
            packed += packer.compress(row)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, bits, 2, 0, 0, interlaced)
    chunks = [(b"IHDR", header), (b"IDAT", packed + packer.flush()), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


def memory(field: str) -> int:
    """Return VmRSS (now), RssAnon (now, without files) or VmHWM (most so far) of this process.

    Not ru_maxrss, which a child takes over from its parent.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def growth(work: Callable[..., object], *arguments: Any) -> int | str:  # noqa: ANN401
    """Return by how many MB the memory of this process grew at most while `work` ran."""
    with tempfile.TemporaryDirectory() as folder:  # whatever is loaded once
        write_png(Path(folder, "small.png"), np.zeros((16, 16, 3), np.uint8))
        read_image(Path(folder, "small.png"))
    before = memory("VmRSS")
    try:
        work(*arguments)
    except InputError as error:
        return f"refused: {str(error).removeprefix(str(arguments[0]))}"
    return round((memory("VmHWM") - before) / 1e6)


def in_fresh_process(work: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
    """Return what `work` returns in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def rewrite(path: Path, workers: int, folder: Path) -> None:
    """Read an image and write it, once and once more for each worker."""

    def copy(number: int) -> None:
        write_png(folder / f"copy-{number}.png", read_image(path))

    for _ in parallel_map(copy, range(workers + 1), workers):
        pass


def fetch(path: Path, workers: int) -> None:
    """Read an image several times and let the results wait for each other."""
    for _ in parallel_map(lambda _: read_image(path), range(workers + 3), workers):
        pass


def synthesize(path: Path, generator: synthesis.GeneratorName, folder: Path) -> None:
    """Make and write an anomaly with the patches of params.yaml."""
    block = yaml.safe_load(Path("params.yaml").read_text())["synthesize_anomalies"]["patch"]
    made = synthesis.synthesize(
        read_image(path), generator, synthesis.Params(**block), np.random.default_rng(0)
    )
    if made is None:
        raise InputError(f"{path} is too flat for {generator}")
    for name, pixels in zip(("image", "mask"), made, strict=True):
        write_png(folder / f"{name}.png", pixels)


def main() -> None:
    """Measure every kind, then the paths through the stages."""
    results: dict[str, Any] = {"megapixels": SIDE**2 / 1e6, "read_mb": {}, "mask_mb": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in KINDS:
            path = in_fresh_process(draw, kind, folder)
            results["read_mb"][kind] = in_fresh_process(growth, read_image, path)
            results["mask_mb"][kind] = in_fresh_process(growth, read_mask, path, (SIDE, SIDE))
            print(kind, results["read_mb"][kind], results["mask_mb"][kind], flush=True)
        for what, work, more in (("rewrite_mb", rewrite, [folder]), ("fetch_mb", fetch, [])):
            results[what] = {
                str(workers): in_fresh_process(growth, work, path, workers, *more)
                for workers in WORKERS
            }
            print(what, results[what], flush=True)
        results["leaks_mb"] = {
            "fingerprint": in_fresh_process(growth, leaks.fingerprint, path),
            "pixel_difference": in_fresh_process(growth, leaks.pixel_difference, path, path),
        }
        results["synthesize_mb"] = {
            generator: in_fresh_process(growth, synthesize, path, generator, folder)
            for generator in get_args(synthesis.GeneratorName)
        }
        print(results["leaks_mb"], results["synthesize_mb"])
    write_json(RESULT, results)
    record([RESULT.name])


if __name__ == "__main__":
    run(main)
