"""source.path -> data/frames: one PNG per frame, and index.csv with a record of each.

Any source becomes the same frames: a video or a folder of videos is sampled by time, a folder of
photos or an MVTec-style tree is read as it is; all are cropped and resized here. `dvc repro
extract_frames`
"""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path

from pydantic import Field

from blackswan.data import preprocessing
from blackswan.data.files import first, frame_name, list_images
from blackswan.data.images import MAX_SIDE, Crop, crop_and_resize, write_png
from blackswan.data.preprocessing import Preprocessing, Step
from blackswan.data.records import Frame, SourceImage, write_index
from blackswan.data.sources import folder, mvtec, video
from blackswan.errors import MESSAGE_CHARACTERS, InputError, run
from blackswan.outputs import replace_folder
from blackswan.parallel import parallel_map
from blackswan.params import InputPath, Section, load_section

FRAMES = Path("data/frames")


class Source(Section):
    """Where the images come from."""

    path: InputPath  # a video, a folder of videos or photos, an MVTec-style tree


class Params(Section):
    """What is taken of the source."""

    crop: Crop
    size: int | None = Field(ge=16, le=MAX_SIDE)  # pixels a side; null keeps the size of the source
    video: video.Sampling
    folder: folder.Params
    category: str  # of an MVTec-style root with many; else empty


def open_source(path: Path, params: Params) -> Iterable[SourceImage]:
    """Tell what kind of source `path` is and list its images."""
    if not path.exists():
        raise InputError(
            f"source.path {path} does not exist; point it at a video or a folder of images"
        )
    if videos := video.list_videos(path):
        if path.is_dir() and (photos := list_images(path)):
            raise InputError(
                f"{path} holds videos and photos, such as {photos[0].name}; keep one kind"
            )
        return chain.from_iterable(video.iterate_frames(file, params.video) for file in videos)
    if path.is_file():
        raise InputError(
            f"source.path {path} is neither a folder nor a video; "
            f"videos end in {', '.join(sorted(video.SUFFIXES))}"
        )
    if params.category or mvtec.is_tree(path) or mvtec.list_categories(path):
        return mvtec.list_frames(path, params.category, params.folder.normal)
    return folder.list_frames(path, params.folder)


def store(item: SourceImage, params: Params, frames: Path) -> Frame:
    """Crop, resize and write one image with its mask, if it has one."""
    image, mask = item.read()
    name = f"{frame_name(item.frame.image)}.png"
    frame = replace(item.frame, image=f"images/{name}", label=item.frame.label or "normal")
    image = crop_and_resize(image, params.crop, params.size)  # the source may be large: let it go
    write_png(frames / frame.image, image)
    del image
    if mask is None:
        return frame
    if not mask.any():
        raise InputError(f"the mask of {name} marks nothing; draw the anomaly, or remove the mask")
    mask = crop_and_resize(mask, params.crop, params.size, mask=True)
    if not mask.any():
        raise InputError(
            f"extract_frames.crop or size leaves nothing of the anomaly of {name}; take larger ones"
        )
    frame = replace(frame, mask=f"masks/{name}")
    write_png(frames / frame.mask, mask)
    return frame


def store_all(items: Iterable[SourceImage], params: Params, frames: Path) -> list[Frame]:
    """Store every image; InputError names all that cannot be read, or what fails them all alike."""

    def attempt(item: SourceImage) -> Frame | InputError:
        try:
            return store(item, params, frames)
        except InputError as error:
            return error

    stored: list[Frame] = []
    broken: dict[str, InputError] = {}
    for result in parallel_map(attempt, items):
        if isinstance(result, Frame):
            stored.append(result)
        elif str(result) in broken:  # of no file, so of the params: the next would fail as well
            raise result
        else:
            broken[str(result)] = result
    if len(broken) > 1:
        said = ": " + "; ".join(broken)
        if len(said) > MESSAGE_CHARACTERS // 2:
            print(*broken, sep="\n", file=sys.stderr)
            said = f", each is named above; the first: {next(iter(broken))}"
        total = len(stored) + len(broken)
        raise InputError(f"{len(broken)} of {total} images cannot be taken{said}")
    for error in broken.values():
        raise error
    return stored


def described(frames: list[Frame]) -> str:
    """Return the counts of labels, defects and masks, "" where every frame is normal."""
    defects = Counter(frame.defect for frame in frames if frame.label == "anomalous")
    if not defects:
        return ""
    masked = sum(bool(frame.mask) for frame in frames)
    counts = first([f"{count} {defect}" for defect, count in sorted(defects.items())])
    anomalous = f"{defects.total()} anomalous ({counts}; {masked} with a mask)"
    return f": {len(frames) - defects.total()} normal, {anomalous}"


def main() -> None:
    """Write every sampled frame of the source."""
    params = load_section(Params, "extract_frames")
    source = load_section(Source, "source")
    with replace_folder(FRAMES) as partial:
        frames = store_all(open_source(source.path, params), params, partial)
        twice = [
            name for name, count in Counter(frame.image for frame in frames).items() if count > 1
        ]
        if twice:
            raise InputError(
                f"{source.path} has two images that would both be {sorted(twice)[0]}; rename one"
            )
        write_index(partial / "index.csv", frames)
        step = Step(crop=params.crop, size=params.size)
        preprocessing.write(partial / "preprocessing.json", Preprocessing(steps=[step]))
    print(f"{len(frames)} frames from {source.path}{described(frames)}")


if __name__ == "__main__":
    run(main)
