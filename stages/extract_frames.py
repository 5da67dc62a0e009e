"""source.path -> data/frames: one PNG per frame, and index.csv with a record of each.

Any source becomes the same frames: a video or a folder of videos is sampled by time, a folder of
photos or an MVTec-style tree is read as it is; all are cropped and resized here. `dvc repro
extract_frames`
"""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from blackswan.data import preprocessing
from blackswan.data.files import first, frame_name
from blackswan.data.images import write_png
from blackswan.data.preprocessing import Preprocessing
from blackswan.data.records import Frame, SourceImage, write_index
from blackswan.data.sources.opening import Params, SourceParams, open_source
from blackswan.errors import MESSAGE_CHARACTERS, InputError, run
from blackswan.outputs import replace_folder
from blackswan.parallel import parallel_map
from blackswan.params import load_section

FRAMES = Path("data/frames")


def store(item: SourceImage, prepare: Preprocessing, frames: Path) -> Frame:
    """Crop, resize and write one image with its mask, if it has one."""
    image, mask = item.read()
    name = f"{frame_name(item.frame.image)}.png"
    frame = replace(item.frame, image=f"images/{name}")
    pose = prepare.find_pose(image, name if frame.label == "normal" else "")
    image = prepare.apply(image, pose, name=name)  # the source may be large: let it go
    write_png(frames / frame.image, image)
    del image
    if mask is None:
        return frame
    if not mask.any():
        raise InputError(f"the mask of {name} marks nothing; draw the anomaly, or remove the mask")
    mask = prepare.apply(mask, pose, mask=True)
    if not mask.any():
        raise InputError(
            f"extract_frames.crop leaves nothing of the anomaly of {name}; take a larger one"
        )
    frame = replace(frame, mask=f"masks/{name}")
    write_png(frames / frame.mask, mask)
    return frame


def store_all(items: Iterable[SourceImage], prepare: Preprocessing, frames: Path) -> list[Frame]:
    """Store every image; InputError names all that cannot be read, or what fails them all alike."""

    def attempt(item: SourceImage) -> Frame | InputError:
        try:
            return store(item, prepare, frames)
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
    path = load_section(SourceParams, "source").path
    with replace_folder(FRAMES) as partial:
        source = open_source(path, params)
        frames = store_all(source.images, source.preprocessing, partial)
        twice = [
            name for name, count in Counter(frame.image for frame in frames).items() if count > 1
        ]
        if twice:
            raise InputError(
                f"{path} has two images that would both be {sorted(twice)[0]}; rename one"
            )
        write_index(partial / "index.csv", frames)
        preprocessing.write(partial / "preprocessing.json", source.preprocessing)
    print(f"{len(frames)} frames from {path}{described(frames)}")


if __name__ == "__main__":
    run(main)
