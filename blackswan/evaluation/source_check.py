"""What a source holds and what it can support, said in seconds, before anything is computed."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

import numpy as np

from blackswan.data import splits
from blackswan.data.decoding import read_header
from blackswan.data.files import first, frame_name
from blackswan.data.photos import Photo
from blackswan.data.preprocessing import Preprocessing
from blackswan.data.records import Frame, SourceImage
from blackswan.data.sequences import find_times
from blackswan.data.sources.opening import Params, open_source
from blackswan.data.splits import SPLITS, assign_splits
from blackswan.errors import InputError
from blackswan.evaluation import support
from blackswan.parallel import parallel_map
from blackswan.params import PARAMS, load_section, written

SECONDS = 2.5  # of decoding; what remains of a large source is counted, or not looked at
SHOWN = 20  # broken images that are named


@dataclass
class Holdings:
    """What was found; `looked_at` of the frames were decoded, all of them or those in time."""

    frames: list[Frame] = field(default_factory=list)
    photos: list[SourceImage] = field(default_factory=list)  # none of a video
    sizes: Counter[str] = field(default_factory=Counter)
    depths: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    masks: int = 0
    looked_at: int = 0
    complete: bool = True  # else a video goes on


def check(path: Path, params_file: Path = PARAMS) -> Iterator[str]:
    """Yield lines on the source `path` as the pipeline would read it by the params of a file.

    Raises InputError, after them, where the pipeline would end: at files that cannot be read, at a
    split that stays empty, or at settings that ask for more images than there are.
    """
    source = open_source(path, load_section(Params, "extract_frames", params_file))
    found = _look_at(source.images, source.preprocessing)
    yield from _contents(path, found)
    step = source.preprocessing.steps[0]
    size = written(step.size) if isinstance(step.size, tuple) else step.size or "as they are"
    pose = "" if source.preprocessing.pose == "none" else f"pose {source.preprocessing.pose}, "
    yield f"  taken     {pose}crop {step.crop}, size {size}"
    yield from (f"  broken    {sentence}" for sentence in found.broken[:SHOWN])
    problems = []
    if found.broken:
        count = f"{len(found.broken)} of {found.looked_at} images of {path}"
        problems.append(f"{count} cannot be taken; replace or remove them")
    if found.complete:
        try:
            splitting = load_section(splits.Params, "split", params_file)
            frames, findings = _with_times(found, source.preprocessing, splitting)
            yield from (f"  numbered  {sentence}" for sentence in findings)
            yield from _supported(frames, splitting, params_file)
        except InputError as error:
            problems.append(str(error))
    else:
        yield "  splits    not looked at: more frames than can be decoded in seconds"
    if problems:
        raise InputError(". ".join(problems))


def _look_at(images: Iterable[SourceImage], prepare: Preprocessing) -> Holdings:
    found, end = Holdings(), monotonic() + SECONDS
    is_listed = isinstance(images, list)

    def in_time() -> Iterator[SourceImage]:
        for item in images:
            if monotonic() > end:
                found.complete = is_listed
                return
            yield item

    for item, result in parallel_map(lambda item: (item, _look_into(item, prepare)), in_time()):
        found.looked_at += 1
        found.frames.append(item.frame)
        if isinstance(result, InputError):
            found.broken.append(str(result))
            continue
        size, depth, has_mask = result
        found.sizes[size] += 1
        found.depths[depth] += 1
        found.masks += has_mask
    if isinstance(images, list):
        found.photos, found.frames = images, [item.frame for item in images]
    return found


def _look_into(item: SourceImage, prepare: Preprocessing) -> tuple[str, str, bool] | InputError:
    try:
        image, mask = item.read()
        prepare.find_pose(image, item.frame.image if item.frame.label == "normal" else "")
        if mask is not None and not mask.any():
            raise InputError(f"the mask of {item.frame.image} marks nothing; draw or remove it")
        is_deep = isinstance(item.read, Photo) and read_header(item.read.image).deep
    except InputError as error:
        return error
    height, width = image.shape[:2]
    return f"{width} x {height}", "16" if is_deep else "8", mask is not None


def _contents(path: Path, found: Holdings) -> Iterator[str]:
    """Say how many frames of which label, defect, size and depth there are."""
    defects = Counter(frame.defect for frame in found.frames if frame.label == "anomalous")
    anomalous, count = defects.total(), len(found.frames)
    is_clip = any(frame.timestamp_s is not None for frame in found.frames) or not found.complete
    kind = "frames" if is_clip else "photos"
    more = "" if found.complete else " and more, of which the first were decoded"
    yield f"{path}: {count} {kind}{more}"
    yield f"  normal    {count - anomalous}"
    named = f" ({_counted(defects)})" if defects else ""
    yield f"  anomalous {anomalous}{named}"
    if found.looked_at < count:
        yield f"  decoded   {found.looked_at} of them, of which the following is said"
    if anomalous:
        yield f"  masks     {found.masks}"
    yield f"  size      {_counted(found.sizes)}"
    yield f"  bits      {_counted(found.depths)}"
    if len(videos := Counter(frame.source for frame in found.frames)) > 1:
        yield f"  videos    {_counted(videos)}"


def _counted(counts: Counter[str]) -> str:
    return first([f"{name}: {count}" for name, count in sorted(counts.items())])


class _LateError(Exception):
    """The time for another image is over."""


def _with_times(
    found: Holdings, prepare: Preprocessing, params: splits.Params
) -> tuple[list[Frame], list[str]]:
    """Return the frames as the stage `label` times those that are numbered, and what it says."""
    if not found.photos:
        return found.frames, []
    stored = {f"images/{frame_name(item.frame.image)}.png": item for item in found.photos}
    frames = [replace(item.frame, image=image) for image, item in stored.items()]
    end = monotonic() + SECONDS / 2

    def read(frame: Frame) -> np.ndarray:
        if monotonic() > end:
            raise _LateError
        return prepare(stored[frame.image].read()[0])

    try:
        return find_times(frames, read, params)
    except _LateError:
        return frames, [
            "not looked at: more than can be decoded in seconds; taken for separate photos "
            "(split.sequences: true if they are frames of one video)"
        ]
    except InputError:
        if not found.broken:
            raise
        return frames, ["not looked at, for some are broken; taken for separate photos"]


def _supported(frames: list[Frame], splitting: splits.Params, params_file: Path) -> Iterator[str]:
    """Say how the frames are split; InputError where that or a setting fails for want of them."""
    assigned = assign_splits(frames, splitting)
    counts = Counter((frame.split, frame.label) for frame in assigned)
    yield (
        "  splits    "
        + ", ".join(f"{split} {counts[split, 'normal']}" for split in SPLITS)
        + f" normal; test {counts['test', 'anomalous']} anomalous"
    )
    if lost := splits.defects_left_out(frames, assigned):
        yield f"  left out  {lost}"
    support.check(assigned, splitting.guard_seconds, params_file)
    yield "  support   every detector and evaluate.alpha have as many images as they ask for"
