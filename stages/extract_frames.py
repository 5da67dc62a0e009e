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
from typing import Literal

from pydantic import Field

from blackswan.data.files import frame_name, list_images
from blackswan.data.images import MAX_SIDE, Crop, crop_and_resize, write_png
from blackswan.data.photos import Params as PhotoParams
from blackswan.data.photos import settle
from blackswan.data.records import Frame, SourceImage, write_index
from blackswan.data.sources import folder, mvtec, video
from blackswan.errors import InputError, run
from blackswan.outputs import replace_folder
from blackswan.parallel import parallel_map
from blackswan.params import Section, load_section

FRAMES = Path("data/frames")


class Source(Section):
    """Where the images come from."""

    path: Path  # a video, a folder of videos or photos, an MVTec-style tree


class Params(PhotoParams):
    """What is taken of the source."""

    crop: Literal["auto"] | Crop  # auto: center_square of videos, none of photos
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
        return mvtec.list_frames(path, params.category)
    return folder.list_frames(path, params.folder)


def settle_photos(path: Path, items: Iterable[SourceImage], params: Params) -> list[SourceImage]:
    """Settle how photos are read; say on stderr where they are squeezed to a square."""
    settled, not_square = settle(path, items, params)
    if not_square and params.size and params.crop in ("auto", "none"):
        print(
            f"{path}: {not_square} of {len(settled)} photos are not square; they are scaled to "
            f"{params.size} x {params.size}, which changes their aspect (extract_frames.crop: "
            "center_square cuts instead)",
            file=sys.stderr,
        )
    return settled


def crop_of(frame: Frame, crop: Literal["auto"] | Crop) -> Crop:
    """Return the crop of a frame: what "auto" means depends on whether it is one of a video."""
    if crop != "auto":
        return crop
    return "none" if frame.timestamp_s is None else "center_square"


def store(item: SourceImage, params: Params, frames: Path) -> Frame:
    """Crop, resize and write one image with its mask, if it has one."""
    image, mask = item.read()
    name = f"{frame_name(item.frame.image)}.png"
    frame = replace(item.frame, image=f"images/{name}", label=item.frame.label or "normal")
    crop = crop_of(frame, params.crop)
    image = crop_and_resize(image, crop, params.size)  # the source may be large: let it go
    write_png(frames / frame.image, image)
    del image
    if mask is None:
        return frame
    if not mask.any():
        raise InputError(f"the mask of {name} marks nothing; draw the anomaly, or remove the mask")
    mask = crop_and_resize(mask, crop, params.size, mask=True)
    if not mask.any():
        raise InputError(
            f"extract_frames.crop leaves nothing of the anomaly of {name}; take a larger one"
        )
    frame = replace(frame, mask=f"masks/{name}")
    write_png(frames / frame.mask, mask)
    return frame


def main() -> None:
    """Write every sampled frame of the source."""
    params = load_section(Params, "extract_frames")
    source = load_section(Source, "source")
    with replace_folder(FRAMES) as partial:
        items = open_source(source.path, params)
        if isinstance(items, list):  # of files; a video is decoded as it goes
            items = settle_photos(source.path, items, params)
        frames = list(parallel_map(lambda item: store(item, params, partial), items))
        twice = [
            name for name, count in Counter(frame.image for frame in frames).items() if count > 1
        ]
        if twice:
            raise InputError(
                f"{source.path} has two images that would both be {sorted(twice)[0]}; rename one"
            )
        write_index(partial / "index.csv", frames)
    print(f"{len(frames)} frames from {source.path}")


if __name__ == "__main__":
    run(main)
