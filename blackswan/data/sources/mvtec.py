"""An MVTec-style tree as a source: train/good, test/<defect>, ground_truth/<defect>.

So come MVTec AD, MPDD and BTAD (which says `ok`), and VisA and KolektorSDD once converted.
A mask is named like its image, with or without `_mask` behind it.
"""

import hashlib
from pathlib import Path, PurePosixPath

from blackswan.data.files import list_images, listed, name_by_stem, refuse_twins
from blackswan.data.photos import Photo
from blackswan.data.records import Frame, SourceImage
from blackswan.errors import InputError

_NORMAL = ("good", "ok")
_LAYOUT = "train/good, test/good, test/<defect> and ground_truth/<defect>"


def is_tree(path: Path) -> bool:
    """Say whether the folder `path` has a part of the layout of one category."""
    return any((path / name).is_dir() for name in ("train", "test", "ground_truth"))


def list_categories(path: Path) -> list[str]:
    """List the sub-folders of the folder `path` that are trees of their own."""
    return sorted(item.name for item in path.iterdir() if is_tree(item))


def list_frames(path: Path, category: str = "") -> list[SourceImage]:
    """List the images of the tree `path`, or of its `category`, as frames, sorted, undecoded.

    They carry split (train, test), label and defect. Raises InputError where the layout or a mask
    is in doubt or an image is in both splits.
    """
    root = _find_tree(path, category)
    files = name_by_stem(root, list_images(root))
    masks = _take_masks(files)
    refuse_twins(files.values())
    _check_splits(root, files)
    frames = []
    for stem, file in sorted(files.items()):
        split, kind = PurePosixPath(stem).parts[:2]
        normal, mask = kind in _NORMAL, masks.get(stem)
        if masks and mask is None and not normal:
            raise InputError(
                f"{file} has no mask in {root / 'ground_truth' / kind}; add it, or "
                "remove ground_truth to go without masks"
            )
        frame = Frame(
            image=stem,
            source=root.absolute().name,
            group=stem,
            split=split,
            label="normal" if normal else "anomalous",
            defect="" if normal else kind,
        )
        own = () if mask is None else (mask,)
        frames.append(SourceImage(frame, Photo(file, own, normal)))
    return frames


def _find_tree(path: Path, category: str) -> Path:
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
    if not any((root / "train" / name).is_dir() for name in _NORMAL):
        found = listed(sorted(item.name for item in root.iterdir())) or "nothing"
        raise InputError(
            f"{root} has no train/good folder, it holds {found}; expected an "
            f"MVTec-style tree ({_LAYOUT}) or a plain folder of images"
        )
    return root


def _take_masks(files: dict[str, Path]) -> dict[str, Path]:
    """Move the masks out of `files`, named like their images; refuse a file without a place."""
    masks: dict[str, Path] = {}
    for stem, file in list(files.items()):
        top, *folders = PurePosixPath(stem).parts[:-1] or ("",)
        if not folders or top not in ("train", "test", "ground_truth"):
            raise InputError(f"{file} has no place in an MVTec-style tree ({_LAYOUT}); remove it")
        if top == "train" and folders[0] not in _NORMAL:
            raise InputError(f"{file} is not normal, so it may not train; move it to test")
        if top == "ground_truth":
            image = "test/" + stem.removeprefix("ground_truth/").removesuffix("_mask")
            if image in masks:
                raise InputError(f"{masks[image]} and {file} are masks of one image; remove one")
            masks[image] = files.pop(stem)
    for image, file in masks.items():
        if image not in files:
            raise InputError(f"the mask {file} has no image {image}; add it or remove the mask")
    return masks


def _check_splits(root: Path, files: dict[str, Path]) -> None:
    """Raise InputError unless train and test hold images and share none."""
    train = [file for stem, file in files.items() if stem.startswith("train/")]
    test = [file for stem, file in files.items() if stem.startswith("test/")]
    if len(train) < 2:
        raise InputError(
            f"{root}/train has {len(train)} images (JPEG, PNG, BMP, TIFF, WebP); "
            "training and validation need at least two"
        )
    if not test:
        raise InputError(
            f"{root} has no test images; add test/good and test/<defect>, or take "
            f"{root}/train as a plain folder of normal images"
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
