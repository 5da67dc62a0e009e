"""Typed parameters: one block of params.yaml becomes one frozen pydantic model."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from blackswan.errors import InputError, shown

PARAMS = Path("params.yaml")
SMALLEST = 16  # pixels, a side of an image
# Far above what a person writes; params.yaml has 5 levels and some 300 values.
MAX_BYTES, MAX_VALUES, MAX_DEPTH = 1_000_000, 10_000, 100
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(/[A-Za-z0-9_][A-Za-z0-9_-]*)*")


class Section(BaseModel):
    """A block of parameters: immutable, without unknown keys, without defaults in code."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _as_written(value: object) -> object:
    if not isinstance(value, (str, Path)):
        raise ValueError("YAML reads no text here; begin a name like 2024 with ./, as ./2024")
    if str(value).startswith("~"):
        raise ValueError("~ is the home folder to a shell alone; write the whole path")
    return value


def _as_name(value: object) -> object:
    if value is None:
        raise ValueError("is empty; write '' for none")
    if not isinstance(value, str):
        raise ValueError("YAML reads no text here; begin a name like 0 with ./, as ./0")
    return PurePosixPath(value).as_posix() if value else ""


def height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) of a size; one number is a square's."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def as_size(value: object) -> tuple[int, int]:
    """Return (height, width) of what a file says; raises ValueError where that is no size."""
    sides: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    if len(sides) not in (1, 2) or any(type(side) is not int for side in sides):
        raise ValueError("takes the side of a square, 224, or height and width, [320, 128]")
    if min(sides) < SMALLEST:
        raise ValueError(f"must be at least {SMALLEST} pixels")
    return sides[0], sides[-1]


def written(size: tuple[int, int]) -> str:
    """Return a size for a message: 224 x 224, or [320, 128], which params call it."""
    return f"{size[0]} x {size[1]}" if size[0] == size[1] else str(list(size))


def in_short(size: tuple[int, int]) -> int | list[int]:
    """Return a size as a file says it."""
    return size[0] if size[0] == size[1] else list(size)


# Pixels, (height, width); 224 in a file is a square.
Size = Annotated[tuple[int, int], BeforeValidator(as_size), PlainSerializer(in_short)]
InputPath = Annotated[Path, BeforeValidator(_as_written)]  # of what a person brings along
InputName = Annotated[str, BeforeValidator(_as_name)]  # of what lies in it, / between levels
Engine = Literal["local", "spark"]  # what runs the work of a stage; the bytes are the same
AnySection = TypeVar("AnySection", bound=BaseModel)  # a Section, or a RootModel of one value


def block_name(block: str, stage: str) -> str:
    """Return the name in `stage`, which DVC calls fit_detector@NAME, or NAME alone.

    DVC takes the dots of a key for blocks in blocks, and the name becomes a folder of data/: raises
    InputError unless it consists of letters, digits, _ and -, with slashes between.
    """
    name = stage.rpartition("@")[2]
    if not NAME.fullmatch(name):
        raise InputError(
            f"{block}: the name {shown(repr(name))} may hold only letters, digits, _ and -, with "
            "slashes between; rename the block and what names it (`repository` keeps its dots)"
        )
    return name


def load_section(kind: type[AnySection], key: str, path: Path = PARAMS) -> AnySection:
    """Read the block `key` (dotted: "detectors.padim"; "" is all) of `path` as a `kind`.

    Raises InputError with the full name of the first key that is missing, misspelt or out of range.
    """
    block = _read_yaml(path)
    for name in filter(None, key.split(".")):
        if not isinstance(block, dict) or name not in block:
            raise InputError(
                f"{path} has no block {shown(key)}; add it (params.yaml in git shows one)"
            )
        block = block[name]
    try:
        return kind.model_validate(block if block is not None else {})
    except ValidationError as invalid:
        raise InputError(f"{path}: {_explain(kind, key, invalid)}") from None


def _read_yaml(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{path} has {size:,} bytes, the limit is {MAX_BYTES:,}; shorten it")
        # A subclass of SafeLoader: it makes nothing but plain values.
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506
    except FileNotFoundError:
        remedy = (
            "run from the top of the repository"
            if path == PARAMS
            else "make it again with `dvc repro`"
        )
        raise InputError(f"{path} is missing; {remedy}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except yaml.reader.ReaderError as error:
        raise InputError(
            f"{path} is not valid YAML: character {error.position} may not stand there; remove it"
        ) from None
    except yaml.MarkedYAMLError as error:
        raise InputError(f"{path} is not valid YAML: {_where(error)}; mend it") from None


class _Loader(yaml.SafeLoader):
    """YAML of a bounded size once its aliases are written out, in which no key stands twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth, self.values = 0, 0
        self.sizes: dict[yaml.Node, int] = {}  # values in a node, aliases written out

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401
        """Count what the next node adds."""
        mark = self.peek_event().start_mark
        alias = self.check_event(yaml.AliasEvent)
        before, self.depth = self.values, self.depth + 1
        if self.depth > MAX_DEPTH:
            raise _fault(f"more than {MAX_DEPTH} levels", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is None:
            return None
        if alias and node not in self.sizes:
            raise _fault("an alias of what it stands in", mark)
        self.values += self.sizes[node] if alias else 1
        if self.values > MAX_VALUES:
            raise _fault(f"more than {MAX_VALUES:,} values, counting those of aliases", mark)
        self.sizes.setdefault(node, self.values - before)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401
        """Refuse a key that stands twice, of which YAML would drop one."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise _fault(f"the key {shown(key.value)} stands twice", key.start_mark)
                seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401
        """Build a value; one that cannot be, as the date 2001-99-99, is a fault of the file."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError):
            raise _fault("a value that YAML cannot read", node.start_mark) from None


def _fault(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _where(error: yaml.MarkedYAMLError) -> str:
    """Say what is wrong in which line, without the text that stands there."""
    said = " ".join(filter(None, (error.context, error.problem)))
    # PyYAML quotes names of tags and aliases; a sign or the <name> of a token may stay.
    said = re.sub(r"""(["'])(?!<)(?:(?!\1).){3,}\1""", "what stands there", said)
    mark = error.problem_mark or error.context_mark
    return f"{said} (line {mark.line + 1}, column {mark.column + 1})" if mark else said


def _explain(kind: type[BaseModel], key: str, invalid: ValidationError) -> str:
    # A misspelt key is unknown and its correct name missing; that it is unknown says more.
    errors = sorted(invalid.errors(), key=lambda error: error["type"] != "extra_forbidden")
    error = errors[0]
    path = [
        str(part) for part in error["loc"] if "[" not in str(part)
    ]  # less the branches of a union
    name = shown(".".join(filter(None, [key, *path])))
    if error["type"] == "extra_forbidden":
        close = get_close_matches(path[-1], _known_keys(kind, path[:-1]), n=1)
        return f"{name} is not a known key" + (
            f"; did you mean {close[0]}?" if close else "; remove it"
        )
    if error["type"] == "missing":
        return f"{name} is missing; add it"
    value = "" if isinstance(error["input"], dict) else f" = {shown(repr(error['input']))}"
    return f"{name}{value}: {shown(error['msg'].removeprefix('Value error, '))}"


def _known_keys(kind: Any, path: list[str]) -> list[str]:  # noqa: ANN401 - any annotation
    """Return the keys of the section at a path, none where it is no section."""
    for name in path:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            field = getattr(kind, "model_fields", {}).get(name)
            kind = field and field.annotation
    return list(getattr(kind, "model_fields", []))
