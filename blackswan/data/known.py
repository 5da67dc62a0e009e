"""Which frame an image is, by the sha256 of its bytes, and what people decided of frames, kept.

An image is known as a frame, or as the photo of the source that a frame was made of.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from blackswan.data.corrections import Correction, read_corrections, write_corrections
from blackswan.data.files import frame_name, list_images
from blackswan.data.records import read_index
from blackswan.errors import InputError


def sha256_of(content: bytes) -> str:
    """Return what an image is known by."""
    return hashlib.sha256(content).hexdigest()


def known_frames(folder: Path) -> list[tuple[str, str]]:
    """Return the frames of a folder, each with the sha256 of its file."""
    return [
        (frame.image, sha256_of((folder / frame.image).read_bytes()))
        for frame in read_index(folder / "index.csv")
    ]


def known_photos(source: Path) -> list[tuple[str, str]]:
    """Return which frame is made of each photo of a source, with the sha256 of the photo."""
    from blackswan.data.sources import video  # brings PyAV, which a server of exports lacks

    if not source.is_dir() or video.list_videos(source):
        return []
    return [
        (
            f"images/{frame_name(file.relative_to(source).with_suffix('').as_posix())}.png",
            sha256_of(file.read_bytes()),
        )
        for file in list_images(source)
    ]


def kept_corrections(path: Path) -> list[Correction]:
    """Read what is to be written again; raises InputError where it would be lost."""
    try:
        return read_corrections(path)
    except InputError:
        raise InputError(
            f"{path} is broken, and what it holds would be lost; mend it, or move it away and run "
            "the same command again"
        ) from None


def keep_corrections(path: Path, decided: Iterable[Correction], frames: Iterable[str]) -> int:
    """Write decisions beside those that the table `path` has; of one image the later counts.

    Returns how many others stay, which are of images among `frames`. Raises InputError where the
    table is broken.
    """
    latest, images = {correction.image: correction for correction in decided}, set(frames)
    others = [
        correction
        for correction in kept_corrections(path)
        if correction.image in images
        and (correction.image not in latest or latest[correction.image].time < correction.time)
    ]
    latest |= {correction.image: correction for correction in others}
    write_corrections(path, latest.values())
    return len(others)
