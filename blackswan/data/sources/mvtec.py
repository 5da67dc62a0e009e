"""An MVTec-style tree as a source: train/good, test/<defect>, ground_truth/<defect>.

So come MVTec AD, MPDD and BTAD (which says `ok`), and VisA and KolektorSDD once converted; MVTec
LOCO and MVTec AD 2 add validation/good, several masks of one image in a folder of its name, and
test_public beside private tests. A mask is named like its image, with or without `_mask` behind it.
"""

import hashlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path, PurePosixPath

from blackswan.data.files import (
    list_files,
    listed,
    name_by_stem,
    refuse_twins,
    tell,
    tell_left_out,
)
from blackswan.data.photos import Photo
from blackswan.data.records import Frame, SourceImage
from blackswan.data.sources.folder import group_of
from blackswan.errors import InputError

_NORMAL = ("good", "ok")
_SPLITS = {"train": "train", "test": "test", "test_public": "test"} | dict.fromkeys(
    ("validation", "valid", "val"), "validation"
)
_TESTS = ("test", "test_public", "test_private", "test_private_mixed")
_FLAT_TESTS = [(name,) for name in _TESTS]
_LAYOUT = "train/good, test/good, test/<defect> and ground_truth/<defect>"


def is_tree(path: Path) -> bool:
    """Say whether the folder `path` has a part of the layout of one category."""
    return any((path / name).is_dir() for name in ("train", "test", "ground_truth"))


def list_categories(path: Path) -> list[str]:
    """List the sub-folders of the folder `path` that are trees of their own."""
    return sorted(item.name for item in path.iterdir() if is_tree(item))


def list_frames(
    path: Path, category: str = "", normal: str = "", group_pattern: str = ""
) -> list[SourceImage]:
    """List the images of the tree `path`, or of its `category`, as frames, sorted, undecoded.

    `normal` names the folders of normal images, beside `good` and `ok`; `group_pattern` is that of
    a plain folder, for paths in the tree. The frames carry split, label and defect; where the tree
    has no normal test image, train frames carry no split, so that some of them can test. Raises
    InputError where the layout or a mask is in doubt or an image is in two splits.
    """
    names = {*_NORMAL, normal} - {""}
    root = _find_tree(path, category, names)
    found = list_files(root)
    tell_left_out(root, found.left_out)
    files = name_by_stem(root, found.files)
    masks = _take_masks(files)
    _leave_out_unlabelled(root, files)
    _refuse_strays(files, names)
    refuse_twins(files.values())
    _check_splits(root, files)
    frames = []
    for stem, file in sorted(files.items()):
        top, kind = PurePosixPath(stem).parts[:2]
        is_normal = kind in names
        frame = Frame(
            image=stem,
            source=root.absolute().name,
            group=group_of(root, file, group_pattern),
            split=_SPLITS[top],
            label="normal" if is_normal else "anomalous",
            defect="" if is_normal else kind,
        )
        photo = Photo(file, tuple(masks.get(stem, [])), is_normal)
        frames.append(SourceImage(frame, photo))
    return _with_test_normals(root, frames)


def _find_tree(path: Path, category: str, names: set[str]) -> Path:
    """Return the folder of the one category that is meant; it has a folder to train on."""
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; name an existing MVTec-style tree")
    root, categories = path, list_categories(path)
    if is_tree(path):
        if category not in ("", path.absolute().name):
            raise InputError(
                f'{path} is itself one category; set extract_frames.category to "", not {category}'
            )
    elif categories:
        if category not in categories:
            asked = f"has no category {category}" if category else "is a root of categories"
            raise InputError(
                f"{path} {asked}; set extract_frames.category to one of {listed(categories)}"
            )
        root = path / category
    if not any((root / "train" / name).is_dir() for name in names):
        inside = root / "train" if (root / "train").is_dir() else root
        found = listed(sorted(item.name for item in inside.iterdir())) or "nothing"
        raise InputError(
            f"{root} has no train/good folder, {inside.name} holds {found}; expected an "
            f"MVTec-style tree ({_LAYOUT}) or a plain folder of images; "
            "extract_frames.folder.normal gives `good` another name"
        )
    return root


def _take_masks(files: dict[str, Path]) -> dict[str, list[Path]]:
    """Move the masks out of `files`, by the name of their image; refuse one without an image."""
    taken = {}
    for stem in list(files):
        top, *rest = PurePosixPath(stem).parts
        if top == "ground_truth":
            taken["/".join(["test", *rest])] = files.pop(stem)
        elif top in _TESTS and rest[:1] == ["ground_truth"]:
            taken["/".join([top, *rest[1:]])] = files.pop(stem)
    masks = defaultdict[str, list[Path]](list)
    for stem, file in taken.items():
        image = stem.removesuffix("_mask")
        if image in files:
            if image in masks:
                raise InputError(f"{masks[image][0]} and {file} are masks of one image; remove one")
        elif (folder := PurePosixPath(stem).parent.as_posix()) in files:
            image = folder  # several masks of one image
        else:
            raise InputError(f"the mask {file} has no image {image}; add it or remove the mask")
        masks[image].append(file)
    return dict(masks)


def _leave_out_unlabelled(root: Path, files: dict[str, Path]) -> None:
    """Take test images that lie in no folder of their own out of `files`, and say so."""
    folders = (PurePosixPath(stem).parts[:-1] for stem in files)
    loose = {stem for stem, parts in zip(files, folders, strict=True) if parts in _FLAT_TESTS}
    for stem in loose:
        del files[stem]
    if loose:
        tell(
            f"{root}: left out {len(loose)} test images without a label (they lie in no folder "
            "such as test/good): they neither train nor count in a metric"
        )


def _refuse_strays(files: dict[str, Path], names: set[str]) -> None:
    """Raise InputError for an image that has no place in the layout."""
    for stem, file in files.items():
        top, *folders = PurePosixPath(stem).parts[:-1] or ("",)
        if not folders or top not in _SPLITS:
            raise InputError(f"{file} has no place in an MVTec-style tree ({_LAYOUT}); remove it")
        if _SPLITS[top] != "test" and folders[0] not in names:
            raise InputError(f"{file} is not normal, so it may not train; move it to test")


def _with_test_normals(root: Path, frames: list[SourceImage]) -> list[SourceImage]:
    """Leave the split of train frames open where no normal frame is there to test."""
    if any(item.frame.split == "test" and item.frame.label == "normal" for item in frames):
        return frames
    tell(
        f"{root} has no normal test images (test/good): some of train are held out for the test, "
        "in the shares of split.train and split.validation"
    )
    return [
        replace(item, frame=replace(item.frame, split="")) if item.frame.split == "train" else item
        for item in frames
    ]


def _check_splits(root: Path, files: dict[str, Path]) -> None:
    """Raise InputError unless train holds images and shares none with the test."""
    train = [file for stem, file in files.items() if not stem.startswith("test")]
    test = [file for stem, file in files.items() if stem.startswith("test")]
    if (count := sum(stem.startswith("train/") for stem in files)) < 2:
        raise InputError(
            f"{root}/train has {count} images (JPEG, PNG, BMP, TIFF, WebP); "
            "training and validation need at least two"
        )
    # Only files of one length can be equal, so few are hashed.
    lengths = {_length(file) for file in train} & {_length(file) for file in test}
    seen = {_sha256(file): file for file in train if _length(file) in lengths}
    for file in test:
        if _length(file) in lengths and (twin := seen.get(_sha256(file))):
            raise InputError(f"{twin} and {file} are the same image; remove one of them")


def _length(path: Path) -> int:
    return path.stat().st_size


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
