"""Checkpoints of a long fit: which can be resumed, and of what run they are."""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

COMPLETE = "complete"  # the last file of a checkpoint; without it the run died while writing


def fingerprint(settings: str, files: Iterable[Path]) -> str:
    """Name everything that a checkpoint depends on: settings, and the bytes of data and code."""
    digest = hashlib.sha256(settings.encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def last_complete(folder: Path) -> Path | None:
    """Return the newest complete checkpoint-<step> of `folder`.

    Half-written ones are deleted, and so are the folders of other runs beside it.
    """
    for other in folder.parent.glob("*"):
        if other != folder:
            shutil.rmtree(other)
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for path in checkpoints:
        if not (path / COMPLETE).exists():
            shutil.rmtree(path)
    return next((path for path in reversed(checkpoints) if path.exists()), None)
