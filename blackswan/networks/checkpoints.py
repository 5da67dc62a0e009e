"""Checkpoints of a long fit: which can be resumed, and of what run they are.

The last file of a checkpoint is its mark, which lists the sha256 of the others. The mark is written
last and deleted first, so a kill at any moment leaves no half checkpoint that counts as whole.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from blackswan.outputs import replace_file

COMPLETE = "complete"  # the mark, in the format of `sha256sum`


def fingerprint(settings: str, files: Iterable[Path]) -> str:
    """Name everything that a checkpoint depends on: settings, and the bytes of data and code."""
    digest = hashlib.sha256(settings.encode())
    for path in files:
        digest.update(bytes.fromhex(_sha256(path)))
    return digest.hexdigest()[:16]


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint as complete once all its files are written."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    with replace_file(checkpoint / COMPLETE) as partial:
        lines = [f"{_sha256(path)}  {path.relative_to(checkpoint).as_posix()}\n" for path in files]
        partial.write_text("".join(lines), encoding="utf-8")


def is_complete(checkpoint: Path) -> bool:
    """Tell whether a checkpoint has its mark and every file that the mark lists is whole."""
    try:
        lines = (checkpoint / COMPLETE).read_text(encoding="utf-8").splitlines()
        listed = [line.split("  ", 1) for line in lines]
        return bool(listed) and all(_sha256(checkpoint / name) == sha for sha, name in listed)
    except (OSError, ValueError):
        return False


def remove(folder: Path) -> None:
    """Delete a checkpoint, or a folder of them, where there is one: the marks first."""
    for mark in sorted(folder.rglob(COMPLETE)):
        mark.unlink()
    if folder.exists():
        shutil.rmtree(folder)


def last_complete(
    folder: Path, needs: Callable[[Path], set[Path]] = lambda checkpoint: set()
) -> Path | None:
    """Return the newest complete checkpoint-<step> of `folder`; those that it `needs` are complete.

    Half-written and later ones are deleted, and so are the folders of other runs beside it.
    """
    for other in folder.parent.glob("*"):
        if other != folder:
            remove(other)
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    complete = [path for path in checkpoints if is_complete(path)]
    last = next((path for path in reversed(complete) if needs(path) <= {*complete}), None)
    kept = complete[: complete.index(last) + 1] if last else []
    for path in checkpoints:
        if path not in kept:
            remove(path)
    return last


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
