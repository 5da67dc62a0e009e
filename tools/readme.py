"""Write the table of metrics/ into README.md, between its two marks (`make readme`)."""

from pathlib import Path

import pandas as pd

README = Path("README.md")
LEADERBOARD = Path("metrics/leaderboard.csv")
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
    rows = pd.read_csv(LEADERBOARD)
    main = rows[rows.table == "main"]
    unseen = rows[rows.table != "main"].pivot(
        index="detector", columns="table", values="image_auroc"
    )
    head = ["detector", *COLUMNS.values(), *(f"unseen: {name}" for name in unseen.columns)]
    lines = [head, ["---"] * len(head)]
    for _, row in main.iterrows():
        cells = [row.detector, *(_cell(row, key) for key in COLUMNS)]
        lines.append(cells + [f"{value:.3f}" for value in unseen.loc[row.detector]])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(row: pd.Series, key: str) -> str:
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
