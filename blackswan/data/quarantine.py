"""Images that fail: a share of them may, and each of these is listed with its reason."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from blackswan.errors import InputError
from blackswan.outputs import replace_file

Result = TypeVar("Result")

TABLE = "quarantine.csv"


@dataclass(frozen=True)
class Failure:
    """An image that cannot be used, as the index names it, and why."""

    path: str
    reason: str


def attempt(path: str, function: Callable[[], Result]) -> Result | Failure:
    """Return what a function makes of an image, or why it cannot.

    An InputError is the fault of the image; whatever else is raised ends the run.
    """
    try:
        return function()
    except InputError as error:
        return Failure(path, str(error))


class Quarantine:
    """The failures of a run over `total` images, of which `max_failed_share` may fail.

    `key` names the parameter of that share.
    """

    def __init__(self, total: int, max_failed_share: float, key: str) -> None:
        self.total, self.allowed, self.key = total, int(total * max_failed_share), key
        self.failures: dict[str, str] = {}  # reasons by path

    def add(self, failure: Failure) -> None:
        """Take one more, in the order of the index; raises InputError where that is too many."""
        self.failures.setdefault(failure.path, failure.reason)
        if not self.allowed:
            raise InputError(failure.reason)
        if len(self.failures) > self.allowed:
            raise InputError(
                f"more than {self.allowed} of {self.total} images fail, which is what {self.key} "
                f"allows; mend them, or raise it; the first: {next(iter(self.failures.values()))}"
            )

    def write(self, folder: Path) -> None:
        """Write the table, sorted by path; it has a header alone where nothing failed."""
        with (
            replace_file(folder / TABLE) as partial,
            partial.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["path", "reason"])
            writer.writerows(sorted(self.failures.items()))

    def told(self, folder: Path) -> str:
        """Return the end of the last line of the run: how many failed, "" for none."""
        count = len(self.failures)
        return f"; {count} of {self.total} images failed, see {folder / TABLE}" if count else ""
