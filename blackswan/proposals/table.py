"""The table of proposals: a row an image that was asked about, on the disk before the next is.

What is asked stands in a file beside it, `.NAME.asked`, until the answer is a row: after a kill the
image counts as asked, for it was sent and may have been paid for.
"""

import csv
import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import BinaryIO, Literal, get_args

from blackswan.data.corrections import LABELS
from blackswan.data.files import tell
from blackswan.errors import InputError, shown
from blackswan.outputs import replace_file

try:
    import fcntl
except ImportError:  # Windows has none: there nobody is kept from asking twice at once
    fcntl = None  # type: ignore[assignment]

Status = Literal["proposed", "disputed", "abstained"]
STATUSES = get_args(Status)


@dataclass(frozen=True)
class Proposal:
    """What a model answered of one image; never a label before a person confirms it."""

    image: str  # as in the source
    sha256: str  # see choosing.Candidate
    status: Status  # disputed: the detector is certain of the contrary
    label: str  # normal, anomalous; "" where it abstained
    defect: str  # "none" of a normal image, "new" for an unknown type; "" where it abstained
    confidence: float | None  # as the model says
    reason: str  # of the label, or why it abstained
    detector: str
    verdict: str  # of the detector: normal, anomalous
    p_value: float
    disagrees: bool  # label and verdict differ
    model: str
    prompt: str  # version
    tokens_in: int | None  # None where nobody said
    tokens_out: int | None
    cost: float  # what it may have cost at most, where nobody said


COLUMNS = [field.name for field in fields(Proposal)]


class Proposals:
    """The table while it is written; `opened` makes one."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._file, self._asked = file, asked_file(path)
        self._asked_before(path)
        self.rows = read_proposals(path)
        self._begin()

    @property
    def cost(self) -> float:
        """What all rows have cost."""
        return math.fsum(row.cost for row in self.rows)

    def holds(self, sha256: str, model: str, prompt: str) -> bool:
        """Tell whether a model was asked about an image by a version of the prompt."""
        return (sha256, model, prompt) in self._keys

    def ask(self, row: Proposal) -> None:
        """Enter that an image is sent now; `row` is what is to be known of it if we are killed."""
        with replace_file(self._asked) as partial, partial.open("wb") as file:
            file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())

    def refused(self) -> None:
        """Enter that the image that was sent had no answer, so that it is asked about again."""
        self._asked.unlink(missing_ok=True)

    def add(self, row: Proposal) -> None:
        """Append a row; it is on the disk when this returns."""
        self._append(_line(row))
        self._asked.unlink(missing_ok=True)
        self.rows.append(row)
        self._keys.add(_key(row))

    def _begin(self) -> None:
        self._keys = {_key(row) for row in self.rows}
        self._file.seek(0, os.SEEK_END)
        if self._file.tell() == 0:
            self._append(_line(COLUMNS))
        else:
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":  # as an editor left it
                self._append(b"\n")

    def _asked_before(self, path: Path) -> None:
        """Take over what was asked when a run was killed: it has an answer, or it abstained."""
        if not self._asked.exists():
            return
        line = self._asked.read_bytes()
        content = self._file.read()
        if content and not content.endswith(b"\n"):  # killed while the answer was written
            content = content[: content.rfind(b"\n") + 1]
            self._file.truncate(len(content))
        [row] = _parsed(line.decode(), self._asked, first=1)
        if content and _key(row) not in {_key(each) for each in read_proposals(path)}:
            self._append(line)
            tell(f"{path}: {row.image} was sent when the last run ended, and counts as abstained")
        self._asked.unlink()

    def _append(self, line: bytes) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())


def asked_file(path: Path) -> Path:
    """Return the file beside a table that holds what is asked just now."""
    return path.with_name(f".{path.name}.asked")


@contextmanager
def opened(path: Path) -> Iterator[Proposals]:
    """Yield the table at `path`, new where there is none; nobody else writes it meanwhile.

    Raises InputError where somebody does, or the table is broken.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file with --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another run writes {path}; wait for it, or name another file with --out"
            ) from None
        file.seek(0)
        yield Proposals(path, file)


def read_proposals(path: Path) -> list[Proposal]:
    """Read the table, empty where there is none; raises InputError where a row of it is none."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError:
        raise InputError(f"{path} is no table in UTF-8; bring it back, or name another") from None
    if not text:
        return []
    head, _, rest = text.partition("\n")
    if head.rstrip("\r") != ",".join(COLUMNS):
        raise InputError(
            f"the first line of {path} must be {','.join(COLUMNS)}; bring it back, or name another"
        )
    rows = _parsed(rest, path, first=2)
    keys = set()
    for row in rows:
        if _key(row) in keys:
            raise InputError(
                f"{path} has two rows of {shown(row.image)} by {row.model} and {row.prompt}; "
                "remove one"
            )
        keys.add(_key(row))
    return rows


def _parsed(text: str, path: Path, first: int) -> list[Proposal]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        for cells in reader:
            rows.append(_proposal(cells))
    except (ValueError, csv.Error):
        raise InputError(
            f"line {first + max(0, reader.line_num - 1)} of {path} is no proposal; mend or remove "
            "it, and its image is asked about again"
        ) from None
    return rows


def _proposal(cells: list[str]) -> Proposal:
    """Return the row of some cells; raises ValueError where they are none."""
    values = dict(zip(COLUMNS, cells, strict=True))
    row = Proposal(
        image=values["image"],
        sha256=values["sha256"],
        status=values["status"],  # type: ignore[arg-type]
        label=values["label"],
        defect=values["defect"],
        confidence=float(values["confidence"]) if values["confidence"] else None,
        reason=values["reason"],
        detector=values["detector"],
        verdict=values["verdict"],
        p_value=float(values["p_value"]),
        disagrees={"true": True, "false": False}.get(values["disagrees"]),  # type: ignore[arg-type]
        model=values["model"],
        prompt=values["prompt"],
        tokens_in=int(values["tokens_in"]) if values["tokens_in"] else None,
        tokens_out=int(values["tokens_out"]) if values["tokens_out"] else None,
        cost=float(values["cost"]),
    )
    labels = ("",) if row.status == "abstained" else LABELS
    numbers = (row.p_value, row.cost, row.confidence or 0)
    if (
        row.status not in STATUSES
        or row.label not in labels
        or row.verdict not in LABELS
        or row.disagrees is None
        or not all(math.isfinite(number) and number >= 0 for number in numbers)
    ):
        raise ValueError
    return row


def _key(row: Proposal) -> tuple[str, str, str]:
    return row.sha256, row.model, row.prompt


def _line(row: Proposal | list[str]) -> bytes:
    cells = row if isinstance(row, list) else [_cell(value) for value in astuple(row)]
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\n").writerow(cells)
    return written.getvalue().encode()


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
