"""What does the leak check cost where nearly all images look alike, and what did it cost before?

Draws the frames of a camera that stands still, the same scene under new noise, and checks them: as
photos in three given splits, where every pair across them is compared, with the noise of a lit
scene and with the least that is no leak, which samples do not decide; as one clip; and as photos
beside the check as it was, pair by pair. Writes benchmarks/leaks.json. `python benchmarks/leaks.py`
"""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from measured import record
from tqdm import tqdm

from blackswan.data import leaks
from blackswan.data.images import write_png
from blackswan.errors import InputError, explained, run
from blackswan.outputs import write_json
from blackswan.parallel import parallel_map

RESULT = Path("benchmarks/leaks.json")
SIZE = 224
PARAMS = leaks.Params(max_hash_distance=6, max_pixel_difference=1.0)
SHARES = {"train": 0.55, "validation": 0.2, "test": 0.25}
# What is measured: how, noise in grey levels, images. Frames under a noise of 0.9 differ by 1.04.
CASES = {
    "photos": ("photos", 6.0, 5000),
    "photos at the limit": ("photos", 0.9, 5000),
    "one clip": ("clip", 6.0, 5000),
    "1000 photos": ("photos", 6.0, 1000),
    "1000 photos, pair by pair": ("pair by pair", 6.0, 1000),
    "200 photos at the limit": ("photos", 0.9, 200),
    "200 photos at the limit, pair by pair": ("pair by pair", 0.9, 200),
}


def draw(folder: Path, noise: float, count: int) -> None:
    """Write `count` frames of a still scene, each with its own noise."""
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.normal(0, 1, (SIZE, SIZE, 3)), (0, 0), 12)
    scene = cv2.normalize(scene, None, 30, 220, cv2.NORM_MINMAX)

    def write(number: int) -> None:
        added = np.random.default_rng([1, number]).standard_normal(scene.shape, np.float32)
        image = np.clip(np.rint(scene + noise * added), 0, 255).astype(np.uint8)
        write_png(folder / f"{number:05d}.png", image)

    folder.mkdir(exist_ok=True)
    for _ in tqdm(parallel_map(write, range(count)), str(folder.name), count, disable=None):
        pass


def items(folder: Path, kind: str, count: int) -> list[leaks.Item]:
    """Return the frames with their splits, in order."""
    borders = np.cumsum([round(count * share) for share in SHARES.values()])
    names = list(SHARES)
    clip = "camera.mp4" if kind == "clip" else ""
    return [
        leaks.Item(
            folder / f"{number:05d}.png",
            names[int(np.searchsorted(borders, number, "right"))],
            clip=clip,
        )
        for number in range(count)
    ]


def pair_by_pair(images: list[leaks.Item]) -> int:
    """Count the leaks as the check did before: each row with all, each near pair by itself."""
    read = list(parallel_map(leaks.fingerprint, [image.path for image in images]))
    hashes = np.array([hash_ for hash_, _ in read], np.uint64)
    splits = np.array([image.split for image in images])
    found = 0
    for row, image in enumerate(images):
        distance = np.bitwise_count(hashes[row] ^ hashes)
        near = (distance <= PARAMS.max_hash_distance) & (splits[row] < splits)
        for column in np.flatnonzero(near).tolist():
            difference = cv2.absdiff(read[row][1], read[column][1])
            mean, deviation = cv2.meanStdDev(difference.reshape(-1, 1))
            error = leaks.DEVIATIONS * float(deviation[0, 0]) / leaks.SAMPLED**0.5 + 0.01
            if float(mean[0, 0]) - error <= PARAMS.max_pixel_difference:
                full = leaks.pixel_difference(image.path, images[column].path)
                found += full <= PARAMS.max_pixel_difference
    return found


def check(folder: Path, kind: str, count: int) -> None:
    """Check the frames in this process; they hold no leak."""
    images = items(folder, kind, count)
    if kind == "pair by pair":
        found = pair_by_pair(images)
    else:
        found = sum(1 for _ in leaks.find_leaks(images, PARAMS))
    if found:
        raise InputError(f"{found} pairs of {folder} are leaks; raise its noise in CASES")


def measure(folder: Path, name: str) -> dict[str, float]:
    """Check the frames of a case in a process of its own and say what it used."""
    kind, noise, count = CASES[name]
    process = subprocess.Popen([sys.executable, __file__, str(folder / str(noise)), name])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise InputError(f"{name} failed; run it by hand")
    per_split = Counter(item.split for item in items(folder, kind, count)).values()
    pairs = 0 if kind == "clip" else (count**2 - sum(n**2 for n in per_split)) // 2
    return {
        "images": count,
        "pairs": pairs,
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 3),
    }


def check_one() -> None:
    """Check the case that the command line names."""
    kind, _, count = CASES[sys.argv[2]]
    check(Path(sys.argv[1]), kind, count)


def main() -> None:
    """Measure all cases, each in a process of its own, and write what came out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for noise in sorted({noise for _, noise, _ in CASES.values()}):
            count = max(count for _, other, count in CASES.values() if other == noise)
            draw(folder / str(noise), noise, count)
        write_json(RESULT, {case: measure(folder, case) for case in CASES})
    record([RESULT.name])


if __name__ == "__main__":
    if sys.argv[1:]:
        explained(check_one)
    else:
        run(main)
