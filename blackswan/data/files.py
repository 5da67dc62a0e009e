"""Folders of images: which files they hold, and which names frames may take from them."""

import errno
import hashlib
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NoReturn

from blackswan.data.decoding import FORMATS, is_still
from blackswan.errors import InputError

STILL_GIF = ".gif (still)"  # in the place of the suffix of a GIF that does not move
HEIF_SUFFIXES = frozenset({".heic", ".heif"})
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp"}
    | {STILL_GIF}
    | {".pbm", ".pgm", ".pnm", ".ppm"}
    | (HEIF_SUFFIXES if "HEIF" in FORMATS else set())
)
MAX_NAME = 200  # bytes; file systems take 255, and later stages write `<name>-0.png`
MAX_PATH = 1000  # bytes; systems take 4096, and stages write below folders of their own


@dataclass
class Listing:
    """What a folder holds at any depth."""

    files: list[Path] = field(default_factory=list)  # sorted by their relative POSIX path
    left_out: Counter[str] = field(default_factory=Counter)  # other files, by suffix in small


def list_images(folder: Path) -> list[Path]:
    """List the image files below `folder`, sorted by their relative POSIX path.

    Raises InputError as `list_files` does, which also counts what is left out.
    """
    return list_files(folder).files


def list_files(folder: Path, suffixes: Collection[str] = SUFFIXES) -> Listing:
    """List the files below `folder` that end in `suffixes`, and count by suffix what else is there.

    Hidden files and folders are left out and not counted (macOS writes `._a.png` beside `a.png`),
    links are followed. Raises InputError for a folder that cannot be read or is reached twice, a
    name that is not UTF-8 or breaks a line, and a link that is broken or was copied as text.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name an existing folder of images")
    check_name(folder.absolute().parent, folder.absolute())
    found, seen = Listing(), dict[str, Path]()
    for parent, folders, files in os.walk(folder, onerror=_refuse_folder, followlinks=True):
        _refuse_again(seen, Path(parent))
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(parent, name) for name in files if not name.startswith(".")]
        for path in paths:
            kind = kind_of(path)
            is_listed = kind in suffixes
            # A broken link may have led to a folder of them, whatever its name is.
            if not path.is_file() if is_listed else path.is_symlink() and not path.exists():
                raise InputError(f"{path} is a broken link or no regular file; mend or remove it")
            if is_listed:
                found.files.append(path)
                continue
            found.left_out[kind] += 1
            if not path.suffix:
                _refuse_lost_link(path)
    for path in found.files:
        check_name(folder, path)
    found.files.sort(key=lambda path: path.relative_to(folder).as_posix())
    return found


def kind_of(path: Path) -> str:
    """Return the suffix of a file in small letters, STILL_GIF for a GIF that does not move."""
    suffix = path.suffix.lower()
    return STILL_GIF if suffix == ".gif" and is_still(path) else suffix


def tell_left_out(folder: Path, left_out: Counter[str]) -> None:
    """Print to stderr, in one line, how many files were left out, by suffix."""
    if left_out:
        counts = listed(
            [f"{left_out[name]} {name or 'without suffix'}" for name in sorted(left_out)]
        )
        more = "; `pip install pillow-heif` reads HEIC" if HEIF_SUFFIXES & left_out.keys() else ""
        tell(f"{folder}: left out {counts}{more}")


def tell(sentence: str) -> None:
    """Print to stderr one line that a person should know though nothing stops."""
    print(sentence, file=sys.stderr)


def state_of(files: list[Path]) -> str:
    """Return a hash of the names of files, their sizes and when they changed last."""
    digest = hashlib.sha256()
    for file in files:
        found = file.stat()
        digest.update(f"{file.name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def counted_folders(names: Iterable[str]) -> str:
    """Return in one line which folders the relative paths `names` lie in, each with its count."""
    counts = Counter(PurePosixPath(name).parent.as_posix() for name in names)
    shown = {name: "the folder itself" if name == "." else name[-60:] for name in sorted(counts)}
    return first([f"{shown[name]} ({counts[name]})" for name in shown])


def first(parts: list[str], between: str = ", ") -> str:
    """Return the parts in one line; of many the first eight and how many more."""
    more = [f"{len(parts) - 8} more"] if len(parts) > 8 else []
    return between.join(parts[:8] + more)


def name_by_stem(
    folder: Path, paths: Iterable[Path], remedy: str = "rename one"
) -> dict[str, Path]:
    """Map the POSIX path of each file, relative to `folder` and without its suffix, to the file.

    Raises InputError, which names the remedy, where two files differ only in their suffix.
    """
    named: dict[str, Path] = {}
    for path in paths:
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in named:
            raise InputError(f"{named[stem]} and {path} differ only in their suffix; {remedy}")
        named[stem] = path
    return named


def refuse_twins(paths: Iterable[Path]) -> None:
    """Raise InputError where two paths lead, through links, to one file."""
    seen: dict[tuple[int, int], list[Path]] = {}
    for path in paths:
        if not path.exists():
            continue  # whoever opens it says so
        found = path.stat()
        same = seen.setdefault((found.st_dev, found.st_ino), [])
        for twin in same:  # one inode: linked, or two names of equal standing, which may be two
            if twin.resolve() == path.resolve():
                raise InputError(f"{twin} and {path} are one file; remove one of the links")
        same.append(path)


def check_name(folder: Path, path: Path) -> None:
    """Raise InputError where the name of `path` below `folder` is not UTF-8 or breaks a line."""
    name = path.relative_to(folder).as_posix()
    if is_plain(name):
        return
    shown = os.fsencode(name).decode("utf-8", "backslashreplace")
    shown = "".join(c if is_plain(c) else ascii(c)[1:-1] for c in shown)[-150:]
    kind = "has a control character"
    try:
        name.encode()
    except UnicodeEncodeError:
        kind = "is not UTF-8"
    raise InputError(f"{ascii(str(folder))[1:-1]} holds the name {shown}, which {kind}; rename it")


def is_plain(name: str) -> bool:
    """Say whether `name` is UTF-8 in one line: no control characters, no line separators."""
    return not {unicodedata.category(character) for character in name} & {"Cc", "Cs", "Zl", "Zp"}


def listed(names: list[str]) -> str:
    """Return names in one line for a message; of many the first eight and how many more."""
    plain = [ascii(name)[1:-1] if not is_plain(name) else name for name in names[:8]]
    short = [name if len(name) <= 20 else f"{name[:17]}..." for name in plain]
    return first(short + names[8:])


def frame_name(name: str) -> str:
    """Return `name`, parts between `/`, with long parts shortened, so that files can be named so.

    A part keeps its beginning and gets a hash of the whole, which makes it unique. Raises
    InputError where there are too many parts.
    """
    short = "/".join(map(_shortened, PurePosixPath(name).parts))
    if len(short.encode()) > MAX_PATH:
        raise InputError(
            f"the path ...{name[-60:]} has {len(name.encode())} bytes, the limit is {MAX_PATH}; "
            "shorten the names of its folders"
        )
    return short


def _shortened(part: str) -> str:
    content = part.encode()
    if len(content) <= MAX_NAME:
        return part
    digest = hashlib.sha256(content).hexdigest()[:16]
    return content[: MAX_NAME - 17].decode(errors="ignore") + "~" + digest


def _refuse_lost_link(path: Path) -> None:
    """Refuse what git on Windows and some archives make of a link: a file with its target."""
    if not path.is_file() or path.stat().st_size > MAX_PATH:
        return
    target = os.fsdecode(path.read_bytes())
    # Path.is_dir would raise for a line that is too long to be a name.
    if target and is_plain(target) and os.path.isdir(path.parent / target):  # noqa: PTH112
        raise InputError(
            f"{path} is a text file that names the folder {target}: a link lost in copying; "
            "make it a link again, or replace it by the folder"
        )


def _refuse_again(seen: dict[str, Path], folder: Path) -> None:
    real = os.path.realpath(folder)
    if real not in seen:
        seen[real] = folder
        return
    if folder.is_relative_to(seen[real]):
        raise InputError(f"{folder} leads back to {seen[real]} without end; remove the link in it")
    raise InputError(f"{seen[real]} and {folder} are one folder; remove one of the links")


def _refuse_folder(error: OSError) -> NoReturn:
    remedy = "make it readable"
    if error.errno == errno.ENAMETOOLONG:
        remedy = "shorten the names of its folders"
    raise InputError(f"{str(error.filename)[-150:]} cannot be listed ({error.strerror}); {remedy}")
