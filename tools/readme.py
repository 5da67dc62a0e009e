"""Write the table of metrics/ into README.md, between its two marks (`make readme`)."""

import json
from pathlib import Path

from blackswan.evaluation.ranking import MERITS, group_count, interval

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
    kinds = sorted({kind for metrics in summary.values() for kind in metrics["unseen"]})
    head = ["detector", "groups", *COLUMNS.values(), *(f"unseen: {kind}" for kind in kinds)]
    lines = [head, ["---"] * len(head)]
    for name in best_first:
        metrics = summary[name]
        numbers = [interval(metrics, key, 3) if key in metrics else "" for key in COLUMNS]
        unseen = [f"{metrics['unseen'][kind]:.3f}" if kind in metrics["unseen"] else ""
                  for kind in kinds]  # fmt: skip
        lines.append([name, group_count(metrics), *numbers, *unseen])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def with_table(readme: str) -> str:
    """Return the README with the table as metrics/ has it."""
    head, rest = readme.split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
