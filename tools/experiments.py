"""`dvc exp show --json` -> a row each experiment: what was changed first, then what it moved.

    dvc exp show --json | python tools/experiments.py

`dvc exp show` itself lists every metric, parameter and dependency, metrics first. This table holds
the params in which the experiments differ and as many of the metrics that moved as fit 80 columns,
those of the images before those of the pixels.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

WIDTH = 80
METRICS = ("image_auroc", "unseen", "pixel_auroc", "pixel_aupro", "recall", "false_positive_rate")


def iterate_runs(shown: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield name, params and metrics, by dotted names, of each run that has ended well."""
    for commit in shown:
        if commit["rev"] == "workspace":
            continue
        runs = [run["revs"][0] for run in commit.get("experiments") or []]
        for run in [commit, *runs]:
            data = run.get("data") or {}
            if data.get("metrics"):
                yield {
                    "experiment": run.get("name") or run["rev"][:7],
                    "params": flat(data["params"]["params.yaml"]["data"]),
                    "metrics": flat(data["metrics"]["metrics/summary.json"]["data"]),
                }


def flat(nested: dict[str, Any]) -> dict[str, Any]:
    """Return the leaves by their dotted names."""
    return dict(pd.json_normalize(nested).iloc[0])


def that_differ(table: pd.DataFrame) -> list[str]:
    """Return the columns that hold more than one value; a blank is none."""
    texts = table.map(_cell).replace("", None)
    return [name for name in table.columns if texts[name].nunique() > 1]


def tabulate(runs: list[dict[str, Any]]) -> pd.DataFrame:
    """Return experiment, the params that differ and the metrics that moved, 80 columns wide."""
    params = pd.DataFrame([run["params"] for run in runs])
    metrics = pd.DataFrame([run["metrics"] for run in runs])
    changed = that_differ(params)
    moved = [
        name for metric in METRICS for name in that_differ(metrics) if metric in name.split(".")[1:]
    ]
    names = pd.DataFrame({"experiment": [run["experiment"] for run in runs]})
    table = pd.concat([names, params[changed], metrics[moved]], axis=1).map(_cell)
    widths = [1 + max(len(part) for part in [*_head(name), *table[name]]) for name in table]
    fits = [name for name, end in zip(table, pd.Series(widths).cumsum(), strict=True)
            if end <= WIDTH or name in changed]  # fmt: skip
    return table[fits]


def main() -> None:
    """Read DVC's JSON, print the table."""
    runs = list(iterate_runs(json.load(sys.stdin)))
    if not runs:
        sys.exit("error: no experiment has metrics yet; run some with `dvc exp run`")
    Console(width=WIDTH).print(lay_out(tabulate(runs)))


def lay_out(table: pd.DataFrame) -> Table:
    """Return the table for a terminal; a dotted name takes a line a part, for narrow columns."""
    laid_out = Table(box=None, pad_edge=False, header_style="bold")
    for name in table:
        laid_out.add_column("\n".join(_head(name)), no_wrap=True, vertical="bottom")
    for row in table.itertuples(index=False):
        laid_out.add_row(*row)
    return laid_out


def _head(name: str) -> list[str]:
    return name.replace(".", ".\n").split("\n")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.4g}"
    return str(value)


if __name__ == "__main__":
    main()
