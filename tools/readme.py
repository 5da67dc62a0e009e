"""Write what was measured into the tables of README.md, each between its marks (`make readme`)."""

import json
from pathlib import Path

from blackswan.errors import InputError, explained
from blackswan.evaluation.ranking import MERITS, group_count, interval

README = Path("README.md")
SUMMARY = Path("metrics/summary.json")
DURATIONS = Path("benchmarks/durations.json")
COLUMNS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "pixel_aupro": "AUPRO",
    "recall": "recall",
    "false_positive_rate": "false alarms",
}


def leaderboard() -> str:
    """Return the main table as Markdown, with the image AUROC on each unseen generator."""
    if not SUMMARY.exists():
        raise InputError(f"{SUMMARY} is missing; run `dvc repro compare`, which writes it")
    summary = json.loads(SUMMARY.read_bytes())
    best_first = sorted(
        summary, key=lambda name: (*(-summary[name].get(key, -1) for key in MERITS), name)
    )
    kinds = sorted({kind for metrics in summary.values() for kind in metrics["unseen"]})
    head = ["detector", "groups", *COLUMNS.values(), *(f"unseen: {kind}" for kind in kinds)]
    lines = [head, ["---"] * len(head)]
    for name in best_first:
        metrics = summary[name]
        numbers = [interval(metrics, key, 3) if key in metrics else "" for key in COLUMNS]
        if "verdict" in metrics:
            numbers[-1] += f" ({metrics['verdict']})"
        unseen = [f"{metrics['unseen'][kind]:.3f}" if kind in metrics["unseen"] else ""
                  for kind in kinds]  # fmt: skip
        lines.append([name, group_count(metrics), *numbers, *unseen])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def durations() -> str:
    """Return how long each section took, and how many stages of the pipeline it computed."""
    measured = json.loads(DURATIONS.read_bytes())["sections"]
    cells = [["", "minutes", "stages computed", "taken from the cache"], ["---"] * 4]
    for name, found in sorted(measured.items(), key=lambda item: item[1]["order"]):
        counts = (found["stages_computed"], found["stages_from_cache"])
        shown = [str(count) if any(counts) else "" for count in counts]
        cells.append([name, f"{found['minutes']:g}", *shown])
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


TABLES = {"leaderboard": leaderboard, "durations": durations}


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
