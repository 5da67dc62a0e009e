"""Numbered photos that are the frames of one video, as a camera or ffmpeg leaves them in a folder.

Photos of separate parts are numbered too, so the numbers do not decide, the images do: a frame is
far more like the next one than like one of another time. Such frames get a time by their order, at
split.frames_per_second, and are from then on the frames of a clip, split by blocks of time.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from blackswan.data.images import read_image
from blackswan.data.records import Frame
from blackswan.data.splits import Params
from blackswan.errors import InputError
from blackswan.parallel import parallel_map

Item = TypeVar("Item")

FEWEST = 20  # images of a sequence; of fewer, parts in a lucky order pass for frames
NEIGHBOURS = 100  # pairs that are looked at
SIDE = 32  # pixels of the images that are compared
# Share of the pairs, one of neighbours and one of images far apart, in which neighbours differ
# less. Measured: 0.85 to 1 for the frames of 12 clips, a still camera among them; 0.46 to 0.55 for
# 200 screws, 58 aliens, 63 cookies and 70 boards in order, 0.74 at most for 20 in 4000 orders.
NEARER = 0.75
SAID = 5  # findings that are told
ONE_VIDEO = "frames of one video, split by blocks of their order (split.sequences: false if not)"
PHOTOS = "separate photos (split.sequences: true if they are frames of one video)"


def series(frame: Frame) -> str:
    """Name the series that a normal photo without split or group is numbered in, "" if in none."""
    alone = frame.image == f"images/{frame.group}.png"
    if frame.timestamp_s is not None or frame.split or frame.label != "normal" or not alone:
        return ""
    found = re.fullmatch(r"(.*?)\d+", frame.group)
    return f"{frame.source}/{found[1]}*" if found else ""


def with_times(frames: list[Frame], folder: Path, params: Params) -> list[Frame]:
    """Give numbered frames of one video a time, and print what was found; see `find_times`.

    `folder` is what the paths of images start from.
    """
    timed, findings = find_times(frames, lambda frame: read_image(folder / frame.image), params)
    for sentence in findings:
        print(sentence)
    return timed


def find_times(
    frames: list[Frame], read: Callable[[Frame], np.ndarray], params: Params
) -> tuple[list[Frame], list[str]]:
    """Give numbered frames of one video a time, and as source the name of their series.

    With split.sequences = auto the images decide, which `read` returns as RGB, and sentences say
    how. Raises InputError where it is true and no photo is numbered.
    """
    numbered = _by_series(frames) if params.sequences is not False else {}
    if params.sequences is True and not numbered and any(f.timestamp_s is None for f in frames):
        raise InputError(
            "split.sequences is true, and source.path has no numbered normal photos (name_0001.jpg)"
            " without given split or group_pattern; set it to auto"
        )
    findings: list[str] = []
    if params.sequences == "auto":
        numbered, findings = _those_of_one_video(numbered, read)
    timed = {}
    for name, members in numbered.items():
        for turn, frame in enumerate(members):
            time = round(turn / params.frames_per_second, 6)
            timed[frame.image] = replace(frame, source=name, timestamp_s=time, group="")
    return [timed.get(frame.image, frame) for frame in frames], findings


def _by_series(frames: list[Frame]) -> dict[str, list[Frame]]:
    """Return the members of each series in the order of their numbers."""
    numbered = defaultdict(list)
    for frame in frames:
        if name := series(frame):
            numbered[name].append(frame)

    def number(frame: Frame) -> tuple[int, str]:
        return int(re.findall(r"\d+", frame.group)[-1]), frame.image

    return {name: sorted(members, key=number) for name, members in numbered.items()}


def _those_of_one_video(
    numbered: dict[str, list[Frame]], read: Callable[[Frame], np.ndarray]
) -> tuple[dict[str, list[Frame]], list[str]]:
    """Return the series whose images show one video, and what was found of the first SAID."""
    large = {name: m for name, m in sorted(numbered.items()) if len(m) >= FEWEST}
    videos, findings = {}, []
    for turn, (name, members) in enumerate(large.items()):
        near, far = differences(members, read)
        nearer = np.sign(far - near[:, None]).mean() / 2 + 0.5  # a tie counts as half
        if nearer >= NEARER:
            videos[name] = members
        if turn < SAID:
            findings.append(
                f"{name}: {len(members)} numbered photos, neighbours {np.median(near):.3g} grey "
                f"levels apart, others {np.median(far):.3g}, neighbours nearer in {nearer:.0%}: "
                f"{ONE_VIDEO if name in videos else PHOTOS}"
            )
    if len(large) > SAID:
        findings.append(
            f"{len(videos)} of {len(large)} series of numbered photos are frames of one video"
        )
    return videos, findings


def differences(
    members: Sequence[Item], read: Callable[[Item], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return how much neighbours (N,) and images far apart (M,) differ, in grey levels.

    Far is more than a tenth of the sequence. At most 2 x NEIGHBOURS images are read.
    """
    first = np.unique(np.linspace(0, len(members) - 2, NEIGHBOURS).astype(int))
    places = np.unique([first, first + 1])
    read_small = parallel_map(lambda place: _small(read(members[place])), places)
    small = dict(zip(places, read_small, strict=True))
    near = [np.abs(small[n] - small[n + 1]).mean() for n in first]
    far = [
        np.abs(small[n] - small[m]).mean()
        for n in first
        for m in first
        if m - n > max(1, len(members) // 10)
    ]
    return np.array(near), np.array(far)


def _small(image: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
