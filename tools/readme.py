"""Write the table of metrics/ into README.md, between its two marks (`make readme`)."""

import sys
from pathlib import Path

import pandas as pd

README = Path("README.md")
LEADERBOARD = Path("metrics/leaderboard.csv")
BEGIN, END = "<!-- leaderboard -->\n", "<!-- /leaderboard -->"
COLUMNS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "pixel_aupro": "AUPRO",
    "false_positive_rate": "false alarms",
    "recall": "recall",
}


def table() -> str:
    """Return the leaderboard as Markdown: value and 95 % interval."""
    rows = pd.read_csv(LEADERBOARD)
    lines = [
        "| test anomalies | detector | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (2 + len(COLUMNS)) + "|",
    ]
    for row in rows.to_dict("records"):
        cells = [_cell(row, key) for key in COLUMNS]
        lines.append(f"| {row['table']} | {row['detector']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, float], key: str) -> str:
    if pd.isna(row[key]):
        return ""
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    interval = "" if low is None or pd.isna(low) else f" [{low:.3f}, {high:.3f}]"
    return f"{row[key]:.3f}{interval}"


def with_table(readme: str) -> str:
    """Return the README with the table as metrics/ has it."""
    head, rest = readme.split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{README}: the table of {LEADERBOARD}", file=sys.stderr)
