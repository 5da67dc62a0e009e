"""A folder of images as a source: all normal, or with sub-folders or masks that tell the labels."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import field_validator

from blackswan.data import drawings
from blackswan.data.decoding import decode_marks, decode_rgb
from blackswan.data.files import (
    SUFFIXES,
    counted_folders,
    list_files,
    listed,
    name_by_stem,
    refuse_twins,
    tell,
    tell_left_out,
)
from blackswan.data.photos import Photo
from blackswan.data.records import Frame, SourceImage
from blackswan.data.sources import hints
from blackswan.errors import InputError, cause, shown
from blackswan.parallel import parallel_map
from blackswan.params import InputName, Section

BESIDE = "rename one, or, if one is a mask, set extract_frames.folder.masks, for example to *.png"
REST = "*"  # of `anomalous`: every sub-folder that `normal` does not name


class Params(Section):
    """Sub-folders, relative to the source, `/` between levels; "" where there is none.

    A `*` in `normal` and `anomalous` stands for any name or part of one: */OK is the folder OK of
    every folder. Images that lie in no sub-folder that is named here are refused, unless `normal`
    is "": then each is normal whose mask does not say otherwise.
    """

    normal: InputName
    anomalous: InputName  # its own sub-folders, if it has some, name the defects; "*": all others
    # A sub-folder laid out like `anomalous`, in which a mask has the name of its image, in any
    # format; with another name for them, of which * is that of the image: masks/*_mask. Without a
    # folder (*_label, *.png) the masks lie beside the images. A mask may be a picture, a LabelMe
    # file (*.json) or boxes in lines of left, top, right and bottom (*.txt).
    masks: InputName
    # A file of the source that labels what it names: photos by COCO (.json) or SageMaker Ground
    # Truth (.jsonl, .manifest), the times of videos by a table (.csv); "" where there is none.
    annotations: InputName
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

    @field_validator("masks")
    @classmethod
    def _one_star(cls, value: str) -> str:
        folder, _, name = value.rpartition("/")
        if "*" in folder or name.count("*") > 1 or value == "*":
            raise ValueError("takes one *, for the name of the image: *_label, or masks/*_mask")
        return value

    @property
    def mask_folder(self) -> str:
        """The sub-folder of the masks; "" where they lie beside the images, or are none."""
        if "*" not in self.masks:
            return self.masks
        return self.masks.rpartition("/")[0]

    @property
    def mask_name(self) -> str:
        """The name of a mask, with * for that of its image."""
        return self.masks.rpartition("/")[2] if "*" in self.masks else "*"


def list_frames(path: Path, params: Params, *, inverted: bool = False) -> list[SourceImage]:
    """List the images below `path` as frames with label, defect and group, sorted, undecoded.

    Where only its mask tells the label of an image, it is normal if that is black, or, `inverted`,
    white. Raises InputError where a label, mask or group is in doubt or fewer than two images are
    normal.
    """
    found = list_files(path, SUFFIXES | drawings.SUFFIXES if params.masks else SUFFIXES)
    for name in (params.normal, params.anomalous, params.mask_folder):
        if name and (path / name).is_file():
            raise InputError(f"{path / name} is a file; replace it by the folder of that name")
    others, masks = _take_masks(path, found.files, params)
    images = [file for file in others if file.suffix.lower() not in drawings.SUFFIXES]
    files = name_by_stem(path, images, BESIDE)
    refuse_twins(images)
    unused = [file.suffix.lower() for file in others if file.suffix.lower() in drawings.SUFFIXES]
    for stem in sorted(masks.keys() - files.keys()):
        if not _is_note(mask := masks.pop(stem)):
            raise InputError(f"the mask {mask} has no image {stem}; add or remove one")
        unused.append(mask.suffix.lower())
    tell_left_out(path, found.left_out + Counter(unused))
    defects = _defects(path, files, masks, params, inverted)
    if not params.masks:
        _refuse_masks(files)
    normal = [stem for stem, defect in defects.items() if not defect]
    if len(normal) < 2:
        by_masks = any(_named_defect(stem, params) is None for stem in masks)
        other = not inverted and by_masks
        raise InputError(
            f"{path} has {len(normal)} normal images (JPEG, PNG, BMP, TIFF, WebP); "
            "the splits need at least two"
            + "; set extract_frames.invert_masks to true if masks are white for normal"
            * other
        )
    frames = []
    for stem, file in files.items():
        defect, own = defects[stem], (masks[stem],) if stem in masks else ()
        frame = make_frame(path, file, defect, params)
        frames.append(SourceImage(frame, Photo(file, own, normal=not defect)))
    return sorted(frames, key=lambda item: item.frame.image)


def _take_masks(
    path: Path, files: list[Path], params: Params
) -> tuple[list[Path], dict[str, Path]]:
    """Divide `files` into images and masks, these by the relative path of their image."""
    if not params.masks:
        return files, {}
    images, masks = [], dict[str, Path]()
    inside = PurePosixPath(params.mask_folder)
    base = "" if not params.mask_folder or "*" in params.anomalous else params.anomalous
    for file in files:
        place = PurePosixPath(file.relative_to(path).as_posix())
        name = _name_of_image(place.name, params.mask_name)
        if not name or not place.is_relative_to(inside):
            images.append(file)
            continue
        stem = (PurePosixPath(base) / place.relative_to(inside).with_name(name)).as_posix()
        if stem in masks:
            raise InputError(f"{masks[stem]} and {file} are masks of one image; remove one")
        masks[stem] = file
    if not masks:
        raise InputError(
            f"{path} has no masks in {params.masks}; set extract_frames.folder.masks to the right "
            'sub-folder or pattern, or to ""'
        )
    return images, masks


def _name_of_image(name: str, pattern: str) -> str:
    """Return what * stands for where the file `name` fits the pattern, else ""."""
    before, after = pattern.split("*")
    if not after.lower().endswith(tuple(SUFFIXES | drawings.SUFFIXES | {".gif"})):
        name = PurePosixPath(name).stem
    fits = name.startswith(before) and name.endswith(after)
    return name[len(before) : len(name) - len(after)] if fits else ""


def _is_note(file: Path) -> bool:
    """Say whether a file that has the suffix of a drawing is none, as readme.txt."""
    try:
        if file.suffix.lower() in drawings.SUFFIXES:
            drawings.read_drawing(file)
    except InputError:
        return True
    return False


def _defects(
    path: Path, files: dict[str, Path], masks: dict[str, Path], params: Params, inverted: bool
) -> dict[str, str]:
    """Return the defect of each image by its relative path, "" where it is normal."""
    defects = name_defects(path, files, params)
    doubtful = [stem for stem in masks if _named_defect(stem, params) is None]
    marked = parallel_map(lambda stem: _is_marked(masks[stem], inverted), doubtful)
    other = PurePosixPath(params.anomalous.replace(REST, "")).name or "anomaly"
    return defects | {
        stem: other for stem, is_marked in zip(doubtful, marked, strict=True) if is_marked
    }


def _refuse_masks(files: dict[str, Path]) -> None:
    """Raise InputError where a file of two grey levels is named like an image and a tail: a_mask.

    As an image it would teach a detector that masks are normal.
    """
    named_like = {}
    for stem in files:
        cuts = [place for place, sign in enumerate(stem) if sign in "_-."]
        if image := next((stem[:cut] for cut in cuts if stem[:cut] in files), ""):
            named_like[stem] = image
    has_two = parallel_map(lambda stem: _has_two_levels(files[stem]), named_like)
    for (stem, image), is_mask in zip(named_like.items(), has_two, strict=True):
        if is_mask:
            raise InputError(
                f"{files[stem]} has two grey levels and is named like {files[image].name}: if it "
                f"is its mask, set extract_frames.folder.masks to '*{stem[len(image) :]}', else "
                "rename it"
            )


def _has_two_levels(file: Path) -> bool:
    try:
        return len(np.unique(decode_rgb(file, str(file)))) == 2
    except InputError:
        return False  # what is broken is said with all others, when they are read


def name_defects(path: Path, names: Iterable[str], params: Params) -> dict[str, str]:
    """Return the defect that its folder gives to each file by its name below `path`, "" for none.

    Raises InputError where files lie in folders that no param names, or both do, and for a pattern
    that fits no folder.
    """
    names = list(names)
    _refuse_idle_patterns(path, names, params)
    chosen = params.masks or params.annotations
    found = [] if chosen else hints.find(path, set(names), params.anomalous)
    named = {name: _named_defect(name, params) for name in names}
    unnamed = [name for name, defect in named.items() if defect is None]
    flat = not (path / params.normal).is_dir() and all("/" not in name for name in named)
    if params.normal and unnamed and not flat:
        now = f"now {params.normal}, {params.anomalous or 'none'} and {params.masks or 'none'}"
        patterns = _patterns(unnamed)
        also = f" ({listed(patterns)} name those of all folders)" if patterns else ""
        raise InputError(
            f"{path} holds files in folders that no param names: {counted_folders(unnamed)}; set "
            f"extract_frames.folder.normal, anomalous and masks ({now}) to its sub-folders{also}, "
            f'or normal to "" if every other file is normal' + _or_read(found)
        )
    if found and flat and params.normal:
        raise InputError(
            f"{path} holds {'; '.join(hint.what for hint in found)}, and no param names it: every "
            'file would be normal; set extract_frames.folder.normal to "" if so' + _or_read(found)
        )
    for hint in found:
        tell(f"{path}: {hint.what}, is not read; {hint.remedy} reads it")
    return {name: defect or "" for name, defect in named.items()}


def _or_read(found: list[hints.Hint]) -> str:
    return f", or {' or '.join(hint.remedy for hint in found)}" if found else ""


def _refuse_idle_patterns(path: Path, names: list[str], params: Params) -> None:
    for key, pattern in (("normal", params.normal), ("anomalous", params.anomalous)):
        is_idle = not any(_fitting(PurePosixPath(name).parts[:-1], pattern) for name in names)
        if names and "*" in pattern and pattern != REST and is_idle:
            raise InputError(
                f"extract_frames.folder.{key} is {pattern}, which fits no folder of {path}: it "
                f"holds files in {counted_folders(names)}; mend the pattern, in which a * stands "
                "for the name of one folder or a part of it"
            )


def _patterns(names: Iterable[str]) -> list[str]:
    """Return patterns for the folders of one name in several others: */OK for day1/OK, day2/OK."""
    parents = defaultdict(set)
    for folder in {PurePosixPath(name).parent for name in names}:
        parents["*/" * (len(folder.parts) - 1) + folder.name].add(folder.parent)
    return sorted(f"'{pattern}'" for pattern, found in parents.items() if len(found) > 1)


def _named_defect(stem: str, params: Params) -> str | None:
    """Return the defect that the innermost folder which a param names tells, None without one."""
    folders = PurePosixPath(stem).parts[:-1]
    normal = _fitting(folders, params.normal)
    if params.anomalous == REST:
        if normal:
            return ""
        # What contains the folder of normal images, too, names no defect.
        apart = _shared(folders, params.normal)
        return folders[apart] if apart < len(folders) else None
    anomalous = _fitting(folders, params.anomalous)
    if anomalous > normal:
        return folders[anomalous] if anomalous < len(folders) else folders[anomalous - 1]
    if anomalous and anomalous == normal:
        raise InputError(
            f"extract_frames.folder.normal ({params.normal}) and anomalous ({params.anomalous}) "
            f"both name the folder {'/'.join(folders[:normal])}; narrow one of them, or set "
            "anomalous to '*' for every folder that normal does not name"
        )
    return "" if normal else None


def _fitting(folders: tuple[str, ...], named: str) -> int:
    """Return how many of the `folders`, from the first on, a param names: all its parts, or 0."""
    count = len(PurePosixPath(named).parts)
    return count if _shared(folders, named) == count else 0


def _shared(folders: tuple[str, ...], named: str) -> int:
    """Return how many of the `folders`, from the first on, fit the parts of a param."""
    pairs = zip(folders, PurePosixPath(named).parts, strict=False)
    return sum(1 for _ in takewhile(lambda pair: _is_named(*pair), pairs))


def _is_named(folder: str, part: str) -> bool:
    return folder == part or fnmatchcase(folder, re.sub(r"[\[?]", r"[\g<0>]", part))


def _is_marked(mask: Path, inverted: bool) -> bool:
    try:
        if mask.suffix.lower() in drawings.SUFFIXES:
            return not drawings.is_empty(mask)
        return bool(decode_marks(mask, str(mask), inverted=inverted).any())
    except InputError:
        return True  # what is broken is said with all others, when they are read


def make_frame(path: Path, file: Path, defect: str, params: Params) -> Frame:
    """Return the record of an image below `path`; no defect is normal."""
    stem = file.relative_to(path).with_suffix("").as_posix()
    group = group_of(path, file, params.group_pattern)
    label = "anomalous" if defect else "normal"
    return Frame(image=stem, source=path.absolute().name, group=group, label=label, defect=defect)


def group_of(path: Path, file: Path, pattern: str) -> str:
    """Return the group of an image below `path`: what the pattern finds, without one its name.

    Raises InputError where the pattern finds nothing.
    """
    relative = file.relative_to(path)
    if not pattern:
        return relative.with_suffix("").as_posix()
    if match := re.search(pattern, relative.as_posix()):
        group = match["group"] if "group" in match.re.groupindex else match[1]
        if group:
            return group
    raise InputError(
        f"folder.group_pattern {shown(pattern)} finds no group in {relative}; change it so "
        "that it fits every image"
    )
