"""Write the table of metrics/ into README.md, between its two marks (`make readme`)."""

import json
from pathlib import Path
from typing import Any

from blackswan.evaluation.ranking import MERITS

README = Path("README.md")
SUMMARY = Path("metrics/summary.json")
BEGIN, END = "<!-- leaderboard -->\n", "<!-- /leaderboard -->"
COLUMNS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "pixel_aupro": "AUPRO",
    "recall": "recall",
    "false_positive_rate": "false alarms",
}


def table() -> str:
    """Return the main table as Markdown, with the image AUROC on each unseen generator."""
    summary = json.loads(SUMMARY.read_bytes())
    best_first = sorted(
        summary, key=lambda name: (*(-summary[name].get(key, -1) for key in MERITS), name)
    )
    unseen = sorted({kind for metrics in summary.values() for kind in metrics["unseen"]})
    head = ["detector", *COLUMNS.values(), *(f"unseen: {kind}" for kind in unseen)]
    lines = [head, ["---"] * len(head)]
    for name in best_first:
        metrics = summary[name]
        cells = [name, *(_cell(metrics, key) for key in COLUMNS)]
        lines.append(cells + [_cell(metrics["unseen"], kind) for kind in unseen])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(metrics: dict[str, Any], key: str) -> str:
    if key not in metrics:
        return ""
    low, high = (metrics.get(f"{key}_{end}") for end in ("low", "high"))
    interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
    return f"{metrics[key]:.3f}{interval}"


def with_table(readme: str) -> str:
    """Return the README with the table as metrics/ has it."""
    head, rest = readme.split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
