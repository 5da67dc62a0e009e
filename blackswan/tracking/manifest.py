"""The sha256 of every file of a folder, written beside them and checked before they are read."""

import hashlib
from pathlib import Path

from blackswan.errors import InputError
from blackswan.outputs import write_json
from blackswan.params import Section, load_section

MANIFEST = "manifest.json"


class Manifest(Section):
    """What a folder held when it was registered."""

    code_sha256: str  # of the library that scores by it
    files: dict[str, str]  # path below the folder, / between levels -> sha256


def write(folder: Path, code_sha256: str) -> str:
    """Write the manifest of `folder` into it and return the sha256 of the manifest itself."""
    content = Manifest(code_sha256=code_sha256, files=digests(folder))
    write_json(folder / MANIFEST, content.model_dump())
    return digest(folder / MANIFEST)


def check(folder: Path) -> None:
    """Raise InputError unless `folder` holds what its manifest lists, byte by byte."""
    written = load_section(Manifest, "", folder / MANIFEST).files
    found = digests(folder)
    for name in sorted(written.keys() | found.keys()):
        if written.get(name) != found.get(name):
            what = (
                "is missing" if name not in found
                else "is not listed in" if name not in written
                else "differs from"
            )  # fmt: skip
            rest = "" if what == "is missing" else f" {folder / MANIFEST}"
            raise InputError(
                f"{folder / name} {what}{rest}, so this is not the model that was registered; "
                "fetch it again, or register it anew"
            )


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below `folder` but the manifest, by path, sorted."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): digest(path) for path in paths}
    named.pop(MANIFEST, None)
    return named


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
