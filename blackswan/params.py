"""Typed parameters: one block of params.yaml becomes one frozen pydantic model."""

from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from blackswan.errors import InputError

PARAMS = Path("params.yaml")


class Section(BaseModel):
    """A block of parameters: immutable, without unknown keys, without defaults in code."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnySection = TypeVar("AnySection", bound=Section)


def load_section(kind: type[AnySection], key: str, path: Path = PARAMS) -> AnySection:
    """Read the block `key` (dotted: "detectors.padim") of `path` as a `kind`.

    Raises InputError with the full name of the first key that is missing, misspelt or out of range.
    """
    try:
        block = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        remedy = (
            "run from the top of the repository"
            if path == PARAMS
            else "make it again with `dvc repro`"
        )
        raise InputError(f"{path} is missing; {remedy}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    for name in key.split("."):
        if not isinstance(block, dict) or name not in block:
            raise InputError(f"{path} has no block {key}; add it (params.yaml in git shows one)")
        block = block[name]
    try:
        return kind.model_validate(block if block is not None else {})
    except ValidationError as invalid:
        raise InputError(f"{path}: {_explain(kind, key, invalid)}") from None


def _explain(kind: type[Section], key: str, invalid: ValidationError) -> str:
    # A misspelt key is unknown and its correct name missing; that it is unknown says more.
    errors = sorted(invalid.errors(), key=lambda error: error["type"] != "extra_forbidden")
    error = errors[0]
    path = [
        str(part) for part in error["loc"] if "[" not in str(part)
    ]  # less the branches of a union
    name = ".".join([key, *path])
    if error["type"] == "extra_forbidden":
        close = get_close_matches(path[-1], _known_keys(kind, path[:-1]), n=1)
        return f"{name} is not a known key" + (
            f"; did you mean {close[0]}?" if close else "; remove it"
        )
    if error["type"] == "missing":
        return f"{name} is missing; add it"
    value = "" if isinstance(error["input"], dict) else f" = {error['input']!r}"
    return f"{name}{value}: {error['msg'].removeprefix('Value error, ')}"


def _known_keys(kind: type[Section], path: list[str]) -> list[str]:
    for name in path:
        kind = kind.model_fields[name].annotation  # type: ignore[assignment]
    return list(kind.model_fields)
