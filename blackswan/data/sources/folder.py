"""A folder of images as a source: all normal, or with one sub-folder for each label."""

import re
from pathlib import Path, PurePosixPath

from pydantic import field_validator

from blackswan.data.files import list_images, name_by_stem, refuse_twins
from blackswan.data.photos import Photo
from blackswan.data.records import Frame, SourceImage
from blackswan.errors import InputError, cause, shown
from blackswan.params import Section

# Folders that speak of labels or masks: to take all of them as normal would poison the training.
_LABELS = {
    "good",
    "ok",
    "normal",
    "bad",
    "ko",
    "ng",
    "defect",
    "defects",
    "defective",
    "abnormal",
    "anomaly",
    "anomalies",
    "anomalous",
    "broken",
    "test",
    "ground_truth",
    "mask",
    "masks",
    "label",
    "labels",
}
_MASK_ENDS = ("_mask", "_label")  # of file names


class Params(Section):
    """Sub-folders, relative to the source, `/` between levels; "" where there is none.

    A source without the sub-folder `normal` holds normal images only, at any depth.
    """

    normal: str
    anomalous: str  # its own sub-folders, if it has some, name the defects
    masks: str  # laid out like `anomalous`; a mask has the name of its image, in any format
    # Regular expression searched in each relative path: its first group, or the one named `group`,
    # is the group of the image (the shots of one part); "" gives each image its own group.
    group_pattern: str

    @field_validator("group_pattern")
    @classmethod
    def _has_group(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"is not a regular expression ({cause(error)})") from None
        if value and groups == 0:
            raise ValueError("put what the shots of one part share in brackets: part(\\d+)")
        return value


def list_frames(path: Path, params: Params) -> list[SourceImage]:
    """List the images below `path` as frames with label, defect and group, sorted, undecoded.

    Raises InputError where a label, mask or group is in doubt or fewer than two images are normal.
    """
    files = name_by_stem(path, list_images(path))
    for name in (params.normal, params.anomalous, params.masks):
        if name and (path / name).is_file():
            raise InputError(f"{path / name} is a file; replace it by the folder of that name")
    masks = _take(files, params.masks)
    if params.masks and not masks:
        raise InputError(
            f"{path} has no masks in {params.masks}; set extract_frames.folder.masks to the right "
            'sub-folder, or to ""'
        )
    normal, anomalous = _by_label(path, files, params)
    refuse_twins([*normal.values(), *anomalous.values()])
    _check_masks(masks, anomalous)
    if len(normal) < 2:
        raise InputError(
            f"{path} has {len(normal)} normal images (JPEG, PNG, BMP, TIFF, WebP); "
            "the splits need at least two"
        )
    frames = [
        SourceImage(_frame(path, file, "normal", "", params), Photo(file))
        for file in normal.values()
    ]
    for stem, file in anomalous.items():
        folders = PurePosixPath(stem).parts[:-1]
        defect = folders[0] if folders else PurePosixPath(params.anomalous).name
        frame = _frame(path, file, "anomalous", defect, params)
        own = (masks[stem],) if stem in masks else ()
        frames.append(SourceImage(frame, Photo(file, own)))
    return sorted(frames, key=lambda item: item.frame.image)


def _take(files: dict[str, Path], folder: str) -> dict[str, Path]:
    """Move the files below `folder` out of `files`; the new names are relative to it."""
    prefix = PurePosixPath(folder).as_posix() + "/"
    stems = [stem for stem in files if stem.startswith(prefix)]
    return {stem.removeprefix(prefix): files.pop(stem) for stem in stems}


def _by_label(
    path: Path, files: dict[str, Path], params: Params
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Divide `files` into the normal and the anomalous ones."""
    if not params.normal:
        return files, {}
    if not (path / params.normal).is_dir():
        for stem in files:
            folders = PurePosixPath(stem).parent
            speaks = {part.lower() for part in folders.parts} & _LABELS or stem.endswith(_MASK_ENDS)
            if speaks or folders.is_relative_to(params.anomalous or "/"):
                raise InputError(
                    f"{path} holds {stem} but no folder {params.normal}; set normal, anomalous and "
                    'masks of extract_frames.folder to its sub-folders, or normal to "" if every '
                    "image is normal"
                )
        return files, {}
    normal, anomalous = _take(files, params.normal), _take(files, params.anomalous)
    if files:
        raise InputError(
            f"{next(iter(files.values()))} is neither in {params.normal} nor in "
            f"{params.anomalous or 'a folder of anomalous images'}; move it, or set "
            "normal, anomalous and masks of extract_frames.folder as they are"
        )
    return normal, anomalous


def _check_masks(masks: dict[str, Path], anomalous: dict[str, Path]) -> None:
    for stem, mask in masks.items():
        if stem not in anomalous:
            raise InputError(f"the mask {mask} has no anomalous image {stem}; add or remove one")
    for stem, image in anomalous.items():
        if masks and stem not in masks:
            raise InputError(
                f"{image} has no mask while others do; add it, or set "
                'extract_frames.folder.masks to "" to go without'
            )


def _frame(path: Path, file: Path, label: str, defect: str, params: Params) -> Frame:
    relative = file.relative_to(path)
    stem = relative.with_suffix("").as_posix()
    group = _group(relative.as_posix(), params.group_pattern) if params.group_pattern else stem
    return Frame(image=stem, source=path.absolute().name, group=group, label=label, defect=defect)


def _group(relative: str, pattern: str) -> str:
    if match := re.search(pattern, relative):
        group = match["group"] if "group" in match.re.groupindex else match[1]
        if group:
            return group
    raise InputError(
        f"folder.group_pattern {shown(pattern)} finds no group in {relative}; change it so "
        "that it fits every image"
    )
