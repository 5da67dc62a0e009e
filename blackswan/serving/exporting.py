"""Decisions of the service as corrections of data/frames, and new images as files of the source.

An image is known by the sha256 of its bytes: as a frame, or as the photo that a frame was made of.
"""

import shutil
from collections import Counter
from pathlib import Path

from PIL import Image

from blackswan.data.corrections import Correction
from blackswan.data.decoding import FORMATS
from blackswan.data.known import keep_corrections, known_frames, known_photos
from blackswan.data.sources import video
from blackswan.data.sources.folder import Params
from blackswan.errors import InputError, shown
from blackswan.outputs import replace_file
from blackswan.serving.decisions import TABLE, Decision, Decisions

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp",
            "GIF": ".gif", "PPM": ".ppm", "HEIF": ".heic"}  # fmt: skip


def export(folder: Path, out: Path, frames: Path, source: Path, folders: Params | None) -> str:
    """Write the decisions of `folder` that concern images of `frames` to `out`; say what was done.

    What `out` has from elsewhere stays, unless a decision is later. With `folders`, those of the
    source, images that it does not hold are copied into it, for the next run to read. Raises
    InputError where there are no decisions, or the source takes no photos.
    """
    if not (folder / TABLE).is_file():
        raise InputError(
            f"{folder} holds no {TABLE}; name the folder of `blackswan serve --decisions`"
        )
    decisions = Decisions(folder)
    try:
        counted = {one.sha256: one for one in decisions.counted()}
        made, photos = known_frames(frames), known_photos(source)
        held = {image for image, _ in made}
        pairs = [*made, *(pair for pair in photos if pair[0] in held)]
        known, there = {sha256 for _, sha256 in pairs}, {sha256 for _, sha256 in photos}
        new = [one for one in counted.values() if one.sha256 not in known | there]
        waiting = len(counted.keys() & (there - known))
        if folders and new:
            _check_source(source, folders)
            for one in new:
                _copy(one, decisions.image(one.sha256), source, folders)
    finally:
        decisions.close()
    latest: dict[str, Decision] = {}
    for image, sha256 in pairs:  # a frame and its photo are one image, which either may show
        decision = counted.get(sha256)
        if decision and (image not in latest or latest[image].id < decision.id):
            latest[image] = decision
    others = keep_corrections(
        out,
        (
            Correction(image, one.label, one.defect, shown(one.user), one.time)
            for image, one in latest.items()
        ),
        held,
    )
    return "; ".join(filter(None, [
        f"{out}: {len(latest)} images of {frames}",
        f"{others} that were decided elsewhere stay" if others else "",
        f"{waiting} of {source} that no run has read yet: export again after it" if waiting else "",
        _told(new, frames, source, added=folders is not None),
    ]))  # fmt: skip


def _told(new: list[Decision], frames: Path, source: Path, *, added: bool) -> str:
    if not new:
        return ""
    labels = ", ".join(f"{count} {name}" for name, count in sorted(
        Counter(one.label for one in new).items()))  # fmt: skip
    if added:
        return f"added to {source}: {labels}; run `dvc repro`"
    left_out = f"left out, for {frames} does not hold them: {labels}"
    if source.is_file():
        return f"{left_out}; {source} takes no photos, a folder of photos as source.path would"
    return f"{left_out}; --add-images copies them to {source}"


def _check_source(source: Path, folders: Params) -> None:
    if not source.is_dir() or video.list_videos(source):
        raise InputError(
            f"source.path {source} is no folder of photos, so --add-images cannot add to it; make "
            "it one, or leave the option out"
        )
    if folders.annotations or "*" in folders.normal or not (source / folders.normal).is_dir():
        raise InputError(
            f"extract_frames.folder does not say where a normal photo of {source} lies; set "
            "normal to a sub-folder that it has, and annotations to ''"
        )
    if not folders.anomalous or (folders.anomalous != "*" and "*" in folders.anomalous):
        raise InputError(
            "extract_frames.folder.anomalous does not say where an anomalous photo lies; set it to "
            "a sub-folder, or to '*'"
        )


def _copy(one: Decision, image: Path, source: Path, folders: Params) -> None:
    if one.label == "normal":
        place = source / folders.normal
    elif folders.anomalous == "*":
        place = source / (one.defect or "anomaly")
    else:
        place = source / folders.anomalous / one.defect
    try:
        with Image.open(image, formats=FORMATS) as opened:
            suffix = SUFFIXES[opened.format or ""]
    except (OSError, KeyError):
        raise InputError(
            f"{image}, of the decision {one.id}, is missing or no image; bring it back from a copy"
        ) from None
    with replace_file(place / f"{one.sha256}{suffix}") as partial:
        shutil.copyfile(image, partial)
