"""Files that label a source: COCO, SageMaker Ground Truth, tables of images, times of videos.

What the file does not name is left out and counted: nobody has said that it is normal.
"""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from blackswan.data.drawings import Colours, Drawing, Polygons, RunLengths, box, read_json
from blackswan.data.files import first, list_images, listed, refuse_twins, tell
from blackswan.data.photos import Photo
from blackswan.data.records import SourceImage
from blackswan.data.sources.folder import Params, make_frame
from blackswan.data.sources.hints import TABLE, TIMES
from blackswan.errors import InputError, cause, shown

BACKGROUND = "BACKGROUND"  # class of Ground Truth's colour maps that marks nothing


@dataclass
class Label:
    """What an annotation says of one image; no defect is normal."""

    defects: set[str] = field(default_factory=set)
    masks: list[Path | Drawing] = field(default_factory=list)


class Interval(NamedTuple):
    """A part of a video that shows a defect, its end excluded."""

    start_s: float
    end_s: float
    defect: str


def find(path: Path, params: Params) -> Path:
    """Return the file of `extract_frames.folder.annotations`; InputError where there is none."""
    file = path / params.annotations
    if not file.is_file():
        raise InputError(
            f"extract_frames.folder.annotations names {file}, which is no file; give its path "
            f"below {path}"
        )
    return file


def list_frames(path: Path, params: Params) -> list[SourceImage]:
    """List the images that the annotations name, with label, defect and masks, undecoded.

    Raises InputError where the file is of no known kind or names an image that is not there.
    """
    file = find(path, params)
    images = list_images(path)
    refuse_twins(images)
    find_image = _Finder(path, file, images)
    labels = _read_labels(file, find_image, params)
    find_image.refuse_missing()
    masks = {mask for label in labels.values() for mask in label.masks if isinstance(mask, Path)}
    masks |= {
        mask.path for found in labels.values() for mask in found.masks if isinstance(mask, Colours)
    }
    if unnamed := [image for image in images if image not in labels and image not in masks]:
        tell(f"{path}: left out {len(unnamed)} images that {file.name} does not name")
    if sum(not label.defects for label in labels.values()) < 2:
        raise InputError(f"{file} names fewer than two normal images; the splits need at least two")
    return [
        SourceImage(
            make_frame(path, image, "+".join(sorted(label.defects)), params),
            Photo(image, tuple(label.masks), normal=not label.defects),
        )
        for image, label in sorted(labels.items())
    ]


def read_times(file: Path, videos: Iterable[str]) -> dict[str, list[Interval]]:
    """Read a CSV with the columns of TIMES: which parts of which of the `videos` show a defect.

    An empty end is that of the video, an empty video the only one. Raises InputError for another
    header, an unknown video and times that are none.
    """
    known = set(videos)
    times = defaultdict[str, list[Interval]](list)
    columns, rows = _rows(file)
    if columns != TIMES:
        raise InputError(
            f"{file} has the columns {listed(columns) or 'none'}; make its first line "
            f"{','.join(TIMES)}"
        )
    for where, row in rows:
        name = row["video"] or (next(iter(known)) if len(known) == 1 else "")
        if name not in known:
            raise InputError(
                f"{where} names the video {shown(name) or 'of no name'}, which is not there; name "
                f"one of {listed(sorted(known))}"
            )
        times[name].append(_interval(row, where))
    return dict(times)


def _rows(file: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """Return the columns of a CSV, and its rows with where each stands."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        reader = csv.DictReader(lines, strict=True)
        return list(reader.fieldnames or []), [
            (f"line {reader.line_num} of {file}", row) for row in reader
        ]
    except UnicodeDecodeError:
        raise InputError(f"{file} is no table in UTF-8; save it as CSV UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{file} is no table ({cause(error)}); mend its quotes") from None


def _interval(row: dict[str, str], where: str) -> Interval:
    try:
        start, end = float(row["start_s"]), float(row["end_s"] or "inf")
    except (ValueError, TypeError):
        start = end = float("nan")
    if not 0 <= start < end or not row["defect"] or None in row:
        raise InputError(
            f"{where} needs start_s, a later end_s (or none) in seconds, and a defect; mend it"
        )
    return Interval(start, end, row["defect"])


class _Finder:
    """Finds the file that an annotation means: by as many parts of its path as are there.

    Annotations hold the paths of the machine or the bucket where they were made. What is missing is
    noted, to be named at once.
    """

    def __init__(self, root: Path, file: Path, images: list[Path]) -> None:
        self._root, self._file = root, file
        self._missing: dict[str, None] = {}
        self._by_name = defaultdict[str, list[Path]](list)
        for image in images:
            self._by_name[image.name].append(image)

    def __call__(self, name: str) -> Path:
        parts = PurePosixPath(str(name).replace("\\", "/")).parts
        found = self._by_name.get(parts[-1] if parts else "", [])
        for count in range(len(parts), 0, -1):
            fits = [file for file in found if file.parts[-count:] == parts[-count:]]
            if len(fits) == 1:
                return fits[0]
            if fits:
                raise InputError(
                    f"{self._file} names {shown(name)}, which may be {fits[0]} or {fits[1]}; "
                    "name it by its path"
                )
        self._missing[str(name)] = None
        return self._root / str(name)

    def refuse_missing(self) -> None:
        """Raise InputError with the files that are named and not there."""
        if not self._missing:
            return
        names = first([shown(name)[-60:] for name in self._missing])
        said = f"{self._file} names {names}, which is not below {self._root}; add it, or remove it"
        if len(self._missing) > 1:
            said = (
                f"{self._file} names {len(self._missing)} files that are not below {self._root}: "
                f"{names}; add them, or remove them"
            )
        raise InputError(f"{said} from {self._file.name}")


def _read_labels(file: Path, find_image: _Finder, params: Params) -> dict[Path, Label]:
    if file.suffix.lower() == ".csv":
        return _read_table(file, find_image, params)
    try:
        if file.suffix.lower() in (".jsonl", ".manifest"):
            return _read_manifest(file, find_image, params)
        return _read_coco(file, find_image)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise InputError(
            f"{file} is neither COCO (images, annotations, categories) nor a manifest of SageMaker "
            "Ground Truth (a JSON object with source-ref in each line of a .jsonl or .manifest "
            "file); export it again"
        ) from None


def _read_table(file: Path, find_image: _Finder, params: Params) -> dict[Path, Label]:
    """Read a CSV with the columns of TABLE, and maybe mask; commas part the classes of a label."""
    columns, rows = _rows(file)
    if columns == TIMES:
        raise InputError(
            f"{file} gives the times of videos, and {file.parent} holds none; add them"
        )
    if not set(TABLE) <= set(columns):
        raise InputError(
            f"{file} has the columns {listed(columns) or 'none'}; of photos it needs image and "
            "label, and may have mask"
        )
    labels = {}
    for where, row in rows:
        if not row["image"]:
            raise InputError(f"{where} names no image; mend or remove it")
        if None in row:
            raise InputError(f"{where} has more values than columns; quote a label with commas")
        path = find_image(row["image"])
        names = {name.strip() for name in (row["label"] or "").split(",")} - {""}
        if path in labels or not names:
            fault = "names an image twice" if names else "has no label"
            raise InputError(f"{where} {fault}; mend or remove it")
        defects = set().union(*(_class_defects(file, name, params) for name in sorted(names)))
        mask = row.get("mask")
        labels[path] = Label(defects, [find_image(mask)] if mask else [])
    return labels


def _read_coco(file: Path, find_image: _Finder) -> dict[Path, Label]:
    found = read_json(file)
    names = {category["id"]: str(category["name"]) for category in found["categories"]}
    if "" in names.values():
        raise InputError(f"{file} has a category without a name; name it after the defect")
    labels, sizes, by_id = {}, {}, {}
    for image in found["images"]:
        path = find_image(image["file_name"])
        if path in labels:
            raise InputError(f"{file} names {path} twice; remove one of the two images")
        labels[path], by_id[image["id"]] = Label(), path
        sizes[path] = (int(image["height"]), int(image["width"]))
    for annotation in found["annotations"]:
        path = by_id[annotation["image_id"]]
        labels[path].defects.add(names[annotation["category_id"]])
        labels[path].masks.append(_coco_mask(f"{file} ({path.name})", annotation, sizes[path]))
    return labels


def _coco_mask(origin: str, annotation: dict[str, Any], size: tuple[int, int]) -> Drawing:
    """Return the outline, the runs, or else the box of an annotation."""
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        if isinstance(outline["counts"], str):
            raise InputError(
                f"{origin} holds a compressed mask; export polygons, or runs as lists of numbers"
            )
        return RunLengths(origin, tuple(outline["counts"]), size)
    if outline:
        polygons = [list(zip(flat[::2], flat[1::2], strict=True)) for flat in outline]
        return Polygons(origin, tuple(polygons), size)
    left, top, width, height = annotation["bbox"]
    return Polygons(origin, (box(left, top, left + width - 1, top + height - 1),), size)


def _read_manifest(file: Path, find_image: _Finder, params: Params) -> dict[Path, Label]:
    labels = {}
    for line in filter(str.strip, file.read_text(encoding="utf-8-sig").splitlines()):
        row = json.loads(line)
        path = find_image(row["source-ref"])
        if path in labels:
            raise InputError(f"{file} names {path} twice; remove one of the two lines")
        labels[path] = _manifest_label(file, row, find_image, params)
    return labels


def _manifest_label(file: Path, row: dict[str, Any], find_image: _Finder, params: Params) -> Label:
    """Join what the classes, boxes and colours of one line say."""
    label, says = Label(), Counter[str]()
    for key, metadata in row.items():
        if not key.endswith("-metadata"):
            continue
        value, kind = row[key.removesuffix("-metadata")], metadata["type"].rpartition("/")[2]
        says[kind] += 1
        if kind == "image-classification":
            label.defects |= _class_defects(file, metadata["class-name"], params)
        elif kind == "object-detection":
            names = metadata["class-map"]
            for one in value["annotations"]:
                right, bottom = one["left"] + one["width"] - 1, one["top"] + one["height"] - 1
                corners = box(one["left"], one["top"], right, bottom)
                label.defects.add(names[str(one["class_id"])])
                label.masks.append(Polygons(f"{file} ({row['source-ref']})", (corners,)))
        elif kind == "semantic-segmentation":
            colours = metadata["internal-color-map"].values()
            marked = {c["class-name"]: _rgb(c["hex-color"]) for c in colours}
            background = marked.pop(BACKGROUND, (0, 0, 0))
            label.defects |= marked.keys()
            picture = Colours(find_image(value), tuple(marked.values()), (background, (0, 0, 0)))
            label.masks += [picture] if marked else []
        else:
            raise InputError(
                f"{file} has labels of the type {shown(kind)}; export image-classification, "
                "object-detection or semantic-segmentation"
            )
    if not says:
        raise InputError(f"{file} has a line without a label ({row['source-ref']}); remove it")
    if len(label.defects) > 1:  # a colour or a box says more than the class of the whole image
        label.defects.discard(PurePosixPath(params.anomalous).name)
    return label


def _class_defects(file: Path, name: str, params: Params) -> set[str]:
    if name == params.normal:
        return set()
    if params.anomalous in (name, "*"):
        return {name}
    raise InputError(
        f"{file} has the class {shown(name)}; set extract_frames.folder.normal and anomalous (now "
        f"{params.normal or 'none'} and {params.anomalous or 'none'}) to the classes of the "
        "labels, anomalous to '*' for every other"
    )


def _rgb(code: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(code.lstrip("#"))
    return red, green, blue
