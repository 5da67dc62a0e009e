"""Write what was measured into the tables of README.md, each between its marks (`make readme`)."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from blackswan.drift.corruptions import FAMILIES
from blackswan.drift.robustness import summarise
from blackswan.errors import InputError, explained
from blackswan.reporting import formats, robustness
from blackswan.reporting.leaderboard import UNSEEN, Cell, board

README = Path("README.md")
SUMMARY = Path("metrics/summary.json")
PHOTOS = Path("benchmarks/photos.json")
DURATIONS = Path("benchmarks/durations.json")
DRIFTS = Path("metrics/drift")
SCREWS = Path("benchmarks/screw/summary.json")
SCREWS_DRIFT = Path("benchmarks/screw/drift")
WRITTEN_BY = {
    SUMMARY: "dvc repro compare",
    PHOTOS: "python benchmarks/durations.py",
    SCREWS: "benchmarks/screw/run.sh",
}


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


def drift() -> str:
    """Return what detectors are worth when the camera drifts, best first where the light changes.

    A choice, the table of `drift_kinds`, and a line for each drift; empty where `make drift` has
    not run.
    """
    laid = robustness.table(summarise(DRIFTS))
    if laid is None:
        return ""
    drifts = [["image AUROC / recall", *laid.detectors]]
    drifts += [[line.drift, *line.cells] for line in laid.lines]
    return f"{laid.choice}\n\n{drift_kinds(DRIFTS)}\n{_markdown(drifts)}"


def drift_kinds(folder: Path) -> str:
    """Return image AUROC, false alarms and recall by kind of drift, means at one severity."""
    summary = summarise(folder)
    kinds = [["detector", "no drift", *FAMILIES]]
    for name in robustness.best_first(summary):
        found = summary["detectors"][name]
        parts = [found["no drift"], *found["kinds"].values()]
        kinds.append([name, *(_rates(part) for part in parts)])
    return _markdown(kinds)


def _rates(rates: Mapping[str, float | None]) -> str:
    values = (rates[rate] for rate in ("image_auroc", "false_positive_rate", "recall"))
    return " / ".join("–" if value is None else formats.rate(value, 2) for value in values)


def _markdown(lines: list[list[str]]) -> str:
    head, *rest = lines
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *rest])


TABLES: dict[str, Callable[[], str]] = {
    "photos": partial(leaderboard, PHOTOS),
    "leaderboard": partial(leaderboard, SUMMARY),
    "durations": durations,
    "drift": drift,
    "screws": partial(leaderboard, SCREWS),
    "drift of screws": partial(drift_kinds, SCREWS_DRIFT),
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
