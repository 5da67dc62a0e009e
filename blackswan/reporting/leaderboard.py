"""The one table of the report and of the README: order, operating point and unseen kinds.

Numbers have the digits that their images support (formats.py), the best of a column is marked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from blackswan.evaluation.ranking import best_first, group_count
from blackswan.evaluation.verdict import VOID
from blackswan.reporting import formats

OPERATING, UNSEEN, PIXELS = "at the threshold", "unseen kinds, image AUROC", "pixels"
ORDER, LOW, RECALL = "image_auroc", "false_positive_rate", "recall"
BOTH = ("n_normal", "n_anomalous")
COUNTED = {LOW: BOTH[:1], RECALL: BOTH[1:]}  # the others need images of both classes

Metrics = Mapping[str, Any]
Summary = Mapping[str, Metrics]


@dataclass(frozen=True)
class Cell:
    """A number as it is shown; `text` is empty where it is not defined."""

    text: str = ""
    bounds: str = ""
    note: str = ""  # whether the threshold holds
    best: bool = False  # of its column, with all that show the same digits


@dataclass(frozen=True)
class Column:
    """A metric of the table; `group` is what stands above the titles of several."""

    key: str  # of the metrics, or the name of an unseen kind
    title: str
    group: str = ""

    def value(self, metrics: Metrics) -> float | None:
        """Return what was measured of a detector, None where it is not defined."""
        found = (metrics["unseen"] if self.group == UNSEEN else metrics).get(self.key)
        return None if found is None else float(found)

    def merit(self, metrics: Metrics) -> float | None:
        """Return what is highest for the best; a void threshold earns no recall, nor few alarms."""
        value = self.value(metrics)
        if value is None or (self.group == OPERATING and metrics.get("verdict") == VOID):
            return None
        return -value if self.key == LOW else value

    def interval(self, metrics: Metrics) -> tuple[float, float] | None:
        """Return low and high where there are any."""
        if self.group == UNSEEN or f"{self.key}_low" not in metrics:
            return None
        return metrics[f"{self.key}_low"], metrics[f"{self.key}_high"]

    def uncertainty(self, metrics: Metrics) -> float:
        """Return half the width of the interval, else 1 / n of the images it was counted on."""
        if interval := self.interval(metrics):
            return (interval[1] - interval[0]) / 2
        images = min(metrics.get(count, 0) for count in COUNTED.get(self.key, BOTH))
        return 1 / max(1, images)

    def cell(self, metrics: Metrics, digits: int) -> Cell:
        """Return what is shown of a detector."""
        value, interval = self.value(metrics), self.interval(metrics)
        if value is None:
            return Cell()
        return Cell(
            formats.rate(value, digits),
            formats.bounds(*interval, digits) if interval else "",
            metrics.get("verdict", "") if self.key == LOW else "",
        )


COLUMNS = [
    Column(ORDER, "image AUROC"),
    Column(LOW, "false alarms", OPERATING),
    Column(RECALL, "recall", OPERATING),
]
PIXEL_COLUMNS = [
    Column("pixel_auroc", "pixel AUROC", PIXELS),
    Column("pixel_aupro", "AUPRO", PIXELS),
]


@dataclass(frozen=True)
class Line:
    """A detector, or a kind of anomaly, and its cells in the order of the columns."""

    name: str
    count: str  # of the groups that the intervals rest on; of the images of a kind
    cells: list[Cell]


@dataclass(frozen=True)
class Board:
    """A table."""

    columns: list[Column]
    lines: list[Line]

    @property
    def spans(self) -> list[tuple[str, int]]:
        """The groups of columns in their order, and how many columns each spans."""
        names = [column.group for column in self.columns]
        return [(name, len(list(same))) for name, same in groupby(names)]


def board(summary: Summary) -> Board:
    """Lay out the metrics of detectors, as in metrics/summary.json, best first.

    Columns that no detector has are left out. The best of a column is marked where there are two.
    """
    kinds = sorted({kind for metrics in summary.values() for kind in metrics["unseen"]})
    unseen = [Column(kind, kind, UNSEEN) for kind in kinds]
    rows = {name: summary[name] for name in best_first(summary)}
    counts = [group_count(metrics) for metrics in rows.values()]
    return _lay_out([*COLUMNS, *unseen, *PIXEL_COLUMNS], rows, counts, mark=True)


def by_kind(result: Metrics) -> Board:
    """Lay out what evaluate_detector measured of one detector: its defects, then unseen kinds.

    Only all defects together have pixel metrics and intervals.
    """
    counts = {"n_normal": result["n_normal"]}
    defects = {row["defect"]: row | counts | {"n_anomalous": row["n"]} for row in result["defects"]}
    unseen = {f"unseen: {kind}": metrics for kind, metrics in result["unseen"].items()}
    together = "all defects" if len(defects) > 1 else "".join(defects)
    rows = ({**defects, together: result} if defects else {}) | unseen
    columns = [column for column in [*COLUMNS, *PIXEL_COLUMNS] if column.key != LOW]
    return _lay_out(columns, rows, [str(row["n_anomalous"]) for row in rows.values()])


def _lay_out(
    columns: list[Column], metrics: Summary, counts: list[str], *, mark: bool = False
) -> Board:
    rows = list(metrics.values())
    measured = [column for column in columns if any(column.value(row) is not None for row in rows)]
    cells = [_cells(column, rows) for column in measured]
    if mark:
        cells = [_marked(column, rows, made) for column, made in zip(measured, cells, strict=True)]
    lines = [
        Line(name, count, [column[place] for column in cells])
        for place, (name, count) in enumerate(zip(metrics, counts, strict=True))
    ]
    return Board(measured, lines)


def _cells(column: Column, rows: list[Metrics]) -> list[Cell]:
    """Return the cells of one column; all have the digits of the surest of them."""
    measured = [row for row in rows if column.value(row) is not None]
    digits = formats.decimals(min(map(column.uncertainty, measured)))
    return [column.cell(row, digits) for row in rows]


def _marked(column: Column, rows: list[Metrics], cells: list[Cell]) -> list[Cell]:
    """Mark the cells that show what the best one shows."""
    merits = [column.merit(row) for row in rows]
    judged = [merit for merit in merits if merit is not None]
    if sum(bool(cell.text) for cell in cells) < 2 or not judged:
        return cells
    best = cells[merits.index(max(judged))].text
    return [
        replace(cell, best=merit is not None and cell.text == best)
        for cell, merit in zip(cells, merits, strict=True)
    ]
