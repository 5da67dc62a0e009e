"""Outputs that appear whole or not at all.

A stage writes beside its output and swaps at the end. DVC takes the outputs of the last run away
before it starts the next; they stay in its cache, where `dvc checkout` finds them.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blackswan.errors import InputError


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `path` once the block ends without an error.

    Where `path` is a link, to a larger disk say, the folder behind it is replaced. Raises
    InputError where no folder can take that place.
    """
    _check_parents(path)
    link, path = path, path.resolve() if path.is_symlink() else path
    partial, old = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old")
    shutil.rmtree(partial, ignore_errors=True)
    if old.exists():  # killed between the renames below
        old.rename(partial if path.exists() else path)
        shutil.rmtree(partial, ignore_errors=True)
    _check_folder(link, path)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            path.rename(old)
        partial.rename(path)
        if old.exists():
            old.rename(partial)  # so that what is called old is whole at any moment
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a file name that takes the place of `path` once the block ends without an error.

    Where `path` is a link, the link is replaced and the file behind it stays as it is: it may be
    one of the cache of DVC. Raises InputError where no file can take that place.
    """
    _check_parents(path)
    if path.is_dir() and not path.is_symlink():
        raise InputError(f"{path} is a folder where a file is to be written; move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _check_parents(path: Path) -> None:
    for parent in reversed(path.parents):
        if parent.is_symlink() and not parent.exists():
            raise InputError(f"{parent} is a broken link; mend it or remove it")
        if parent.exists() and not parent.is_dir():
            raise InputError(f"{parent} is a file where a folder is needed; move it away")


def _check_folder(path: Path, real: Path) -> None:
    if path.is_symlink() and not real.exists():
        raise InputError(f"{path} is a link to {real}, which is missing; create it or unlink")
    if real.exists() and not real.is_dir():
        raise InputError(f"{path} is a file where a folder is to be written; move it away")
    if real.is_mount():
        raise InputError(f"{path} is a mount point, which cannot be replaced; mount its parent")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write sorted JSON with floats rounded to six significant digits, so that reruns are equal."""
    with replace_file(path) as partial:
        text = json.dumps(_rounded(content), indent=2, sort_keys=True, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
