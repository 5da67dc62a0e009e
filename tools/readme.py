"""Write what was measured into the tables of README.md, each between its marks (`make readme`)."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from blackswan.drift.corruptions import FAMILIES
from blackswan.drift.simulation import STEP
from blackswan.errors import InputError, explained
from blackswan.reporting.leaderboard import UNSEEN, Cell, board

README = Path("README.md")
SUMMARY = Path("metrics/summary.json")
PHOTOS = Path("benchmarks/photos.json")
WRITTEN_BY = {SUMMARY: "dvc repro compare", PHOTOS: "python benchmarks/durations.py"}
DURATIONS = Path("benchmarks/durations.json")
DRIFTS, SHOWN = Path("metrics/drift"), 3  # the severity of the table
RATES = ("image_auroc", "false_positive_rate", "recall")


def leaderboard(summary: Path) -> str:
    """Return the one table of a report as Markdown; the best of a column is bold."""
    if not summary.exists():
        raise InputError(f"{summary} is missing; run `{WRITTEN_BY[summary]}`, which writes it")
    table = board(json.loads(summary.read_bytes()))
    titles = [
        f"unseen: {column.title}" if column.group == UNSEEN else column.title
        for column in table.columns
    ]
    head = ["detector", *titles, "groups"]
    lines = [
        head,
        ["---"] * len(head),
        *([line.name, *map(_cell, line.cells), line.count] for line in table.lines),
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(cell: Cell) -> str:
    number = f"**{cell.text}**" if cell.best else cell.text
    return " ".join(filter(None, [number, cell.bounds, cell.note and f"({cell.note})"]))


def durations() -> str:
    """Return how long each section took, and how many stages of the pipeline it computed."""
    measured = json.loads(DURATIONS.read_bytes())["sections"]
    cells = [["", "minutes", "stages computed", "taken from the cache"], ["---"] * 4]
    for name, found in sorted(measured.items(), key=lambda item: item[1]["order"]):
        counts = (found["stages_computed"], found["stages_from_cache"])
        shown = [str(count) if any(counts) else "" for count in counts]
        cells.append([name, f"{found['minutes']:g}", *shown])
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def robustness() -> str:
    """Return image AUROC, false alarms and recall by kind of drift, means at one severity.

    The best under light that changes comes first; empty where `make drift` has not run.
    """
    found = {path.stem: pd.read_csv(path) for path in sorted(DRIFTS.glob("*.csv"))}
    if not found:
        return ""
    head = ["detector", "no drift", *FAMILIES]
    rows = {}
    for name, table in found.items():
        steps = table[table.kind == STEP]
        parts = [steps[steps.severity == 0]]
        parts += [
            steps[steps.drift.isin(drifts) & (steps.severity == SHOWN)]
            for drifts in FAMILIES.values()
        ]
        rows[name] = [part[list(RATES)].mean() for part in parts]
    order = sorted(rows, key=lambda name: (-rows[name][1].image_auroc, name))
    lines = [[name, *(" / ".join(f"{v:.2f}" for v in cell) for cell in rows[name])]
             for name in order]  # fmt: skip
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *lines])


TABLES: dict[str, Callable[[], str]] = {
    "photos": partial(leaderboard, PHOTOS),
    "leaderboard": partial(leaderboard, SUMMARY),
    "durations": durations,
    "drift": robustness,
}


def with_tables(readme: str) -> str:
    """Return the README with its tables as metrics/ and benchmarks/ have them."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if readme.count(begin) != 1 or end not in readme.split(begin)[1]:
            raise InputError(f"{README} has no single {begin.strip()} with {end} after; add both")
        head, rest = readme.split(begin)
        readme = head + begin + table() + end + rest.split(end)[1]
    return readme


def main() -> None:
    """Write the tables into the README."""
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    explained(main)
