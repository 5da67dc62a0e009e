"""`dvc exp show --json` -> a table over sources and seeds: mean, spread, and the paper's value.

Queue the sweep, run it, then tabulate:

    dvc exp run --queue -S 'fit_detector.seed=0,1,2' -S 'extract_frames.category=bottle,tile'
    dvc queue start
    dvc exp show --json | python tools/leaderboard.py
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

PAPERS = Path(__file__).parent.parent / "benchmarks/paper_values.csv"
SEEDED_BY = {"vit": "train_vit", "median_residual": None}  # the others by fit_detector
METRICS = ("image_auroc", "pixel_auroc", "pixel_aupro")


def iterate_runs(shown: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield one row for each detector of each run that has ended well."""
    for commit in shown:
        runs = [run["revs"][0] for run in commit.get("experiments") or []]
        for run in [commit, *runs]:
            data = run.get("data") or {}
            if commit["rev"] == "workspace" or not data.get("metrics"):
                continue
            params = data["params"]["params.yaml"]["data"]
            source = params["extract_frames"]["category"] or Path(params["source"]["path"]).stem
            summary = data["metrics"]["metrics/summary.json"]["data"]
            for detector, metrics in summary.items():
                block = SEEDED_BY.get(detector, "fit_detector")
                seed = params[block]["seed"] if block else None
                found = {key: metrics[key] for key in METRICS if key in metrics}
                identity = {"source": source, "detector": detector, "seed": seed}
                yield {**identity, "settings": settings(params), **found}


def settings(params: dict[str, dict[str, Any]]) -> str:
    """Return the params less those that a sweep over sources and seeds changes."""
    swept = ("seed", "path", "category")
    kept = {
        block: {key: value for key, value in values.items() if key not in swept}
        for block, values in params.items()
    }
    return json.dumps(kept, sort_keys=True)


def tabulate(runs: pd.DataFrame, papers: pd.DataFrame) -> pd.DataFrame:
    """Return a line per source and detector: mean, standard deviation over seeds, paper value.

    Runs that repeat a seed count once; what was not measured, or is in no paper, stays blank.
    """
    runs = runs.reindex(columns=["source", "detector", "seed", *METRICS])
    runs = runs.drop_duplicates(["source", "detector", "seed"], keep="last")
    groups = runs.groupby(["source", "detector"])
    table = groups.size().rename("seeds").to_frame()
    for metric in METRICS:
        table[metric] = groups[metric].mean()
        table[f"{metric}_spread"] = groups[metric].std()
    published = papers.rename(columns={"category": "source", "image_auroc": "paper_image_auroc"})
    table = table.reset_index().merge(published, how="left", on=["source", "detector"])
    return table.sort_values(["source", "image_auroc"], ascending=[True, False])


def main() -> None:
    """Read DVC's JSON, print the table as Markdown."""
    runs = pd.DataFrame(iterate_runs(json.load(sys.stdin)))
    if runs.empty:
        sys.exit("error: no experiment has metrics yet; run some with `dvc exp run`")
    differ = runs.groupby("source").settings.nunique()
    if (differ > 1).any():
        sys.exit(
            f"error: the runs on {differ.idxmax()} differ in more than source and seed; remove "
            "those of other sweeps with `dvc exp remove`"
        )
    table = tabulate(runs, pd.read_csv(PAPERS))
    print("| " + " | ".join(table.columns) + " |\n" + "| --- " * len(table.columns) + "|")
    for row in table.itertuples(index=False):
        print("| " + " | ".join(_cell(value) for value in row) + " |")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.4f}"
    return str(value)


if __name__ == "__main__":
    main()
