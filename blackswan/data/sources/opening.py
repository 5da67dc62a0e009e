"""Any source as one sequence of images: a video, a folder of either kind, an MVTec-style tree."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from math import inf
from pathlib import Path
from typing import Literal

from blackswan.data import photos
from blackswan.data.files import list_files, list_images, tell, tell_left_out
from blackswan.data.images import Crop, ImageSize
from blackswan.data.preprocessing import PoseChoice, Preprocessing, Step
from blackswan.data.records import SourceImage
from blackswan.data.sources import annotations, folder, mvtec, video
from blackswan.data.sources.annotations import Interval
from blackswan.errors import InputError
from blackswan.params import InputName, InputPath, Section, in_short, written


class SourceParams(Section):
    """Where the images come from."""

    path: InputPath  # a video, a folder of videos or photos, an MVTec-style tree


class Params(photos.Params):
    """What is taken of a source, and how its files are meant."""

    pose: PoseChoice
    crop: Literal["auto"] | Crop  # auto: center_square of videos, none of photos
    size: ImageSize | None  # null keeps the size of the source
    video: video.Sampling
    folder: folder.Params
    category: InputName  # of an MVTec-style root with many; else empty


@dataclass(frozen=True)
class Source:
    """The images of a source, and what is done to each of them."""

    images: Iterable[SourceImage]
    preprocessing: Preprocessing


def open_source(path: Path, params: Params) -> Source:
    """Tell what kind of source `path` is, and list its images or decode its videos as they go.

    Raises InputError where it is none, or where labels, masks or groups are in doubt.
    """
    if not path.exists():
        raise InputError(
            f"source.path {path} does not exist; point it at a video or a folder of images"
        )
    if videos := video.list_videos(path):
        return Source(_decode(path, videos, params), _preprocessing(params, "center_square"))
    if path.is_file():
        raise InputError(
            f"source.path {path} is neither a folder nor a video; "
            f"videos end in {', '.join(sorted(video.SUFFIXES))}"
        )
    settled = photos.settle(path, _list_photos(path, params), params)
    preprocessing = _preprocessing(params, "none", settled.bit_depth)
    if isinstance(params.size, tuple) and preprocessing.steps[0].crop == "none":
        _tell_stretched(path, settled.shapes, params.size)
    return Source(settled.images, preprocessing)


def _tell_stretched(path: Path, shapes: Counter[tuple[int, int]], size: tuple[int, int]) -> None:
    """Say how many photos change their aspect by more than a hundredth, and what keeps it."""
    aspect = size[0] / size[1]
    stretched = Counter({shape: n for shape, n in shapes.items() if not _is_like(shape, aspect)})
    if not stretched:
        return
    unlike = "square" if aspect == 1 else f"of the shape {written(size)}"
    tell(
        f"{path}: {stretched.total()} of {shapes.total()} photos are not {unlike}; they are scaled "
        f"to {written(size)}, which changes their aspect (extract_frames.crop: center_square "
        f"cuts instead; size: {{within: {in_short(size)}}}, and build_dataset.image_size alike, "
        "keeps it)"
    )


def _is_like(shape: tuple[int, int], aspect: float) -> bool:
    return abs(shape[0] / shape[1] - aspect) <= 0.01 * aspect


def _decode(path: Path, videos: list[Path], params: Params) -> Iterable[SourceImage]:
    if path.is_file():
        times = {}
        if params.folder.annotations:
            file = annotations.find(path.parent, params.folder)
            times = annotations.read_times(file, [path.name])
        return _labelled(video.iterate_frames(path, params.video), times.get(path.name, []))
    if found := list_images(path):
        moves = videos[0].suffix.lower() == ".gif"
        convert = " (a GIF that moves is a video)" if moves else ""
        raise InputError(
            f"{path} holds videos, such as {videos[0].relative_to(path)}, and photos, such as "
            f"{found[0].relative_to(path)}; keep one kind{convert}"
        )
    tell_left_out(path, list_files(path, video.SUFFIXES).left_out)
    names = {file.relative_to(path).as_posix(): file for file in videos}
    video.check_headers(videos)
    times = {}
    if params.folder.annotations:
        times = annotations.read_times(annotations.find(path, params.folder), names)
    defects = folder.name_defects(path, names.keys() - times.keys(), params.folder)
    return chain.from_iterable(
        _labelled(
            video.iterate_frames(file, params.video, name),
            times[name] if name in times else [Interval(0, inf, defects[name])],
        )
        for name, file in names.items()
    )


def _labelled(frames: Iterable[SourceImage], times: list[Interval]) -> Iterable[SourceImage]:
    unseen, name = set(times), ""
    for item in frames:
        time, name = item.frame.timestamp_s or 0, item.frame.source
        shown = {part for part in times if part.start_s <= time < part.end_s}
        unseen -= shown
        defects = sorted({part.defect for part in shown} - {""})
        label = "anomalous" if defects else "normal"
        yield replace(item, frame=replace(item.frame, label=label, defect="+".join(defects)))
    for start, end, defect in sorted(unseen):
        tell(f"{name}: no frame that was taken shows {defect} from {start:g} to {end:g} s")


def _list_photos(path: Path, params: Params) -> list[SourceImage]:
    if params.folder.annotations:
        return annotations.list_frames(path, params.folder)
    if params.category or mvtec.is_tree(path) or mvtec.list_categories(path):
        named = params.folder
        return mvtec.list_frames(path, params.category, named.normal, named.group_pattern)
    return folder.list_frames(path, params.folder, inverted=bool(params.invert_masks))


def _preprocessing(params: Params, auto: Crop, bit_depth: int = 16) -> Preprocessing:
    crop = auto if params.crop == "auto" else params.crop
    step = Step(crop=crop, size=params.size)
    return Preprocessing(steps=[step], bit_depth=bit_depth, pose=params.pose)
