"""`dvc exp show --json` -> a table over sources and seeds: mean, spread, and the paper's value.

Queue the sweep, run it, then tabulate:

    dvc exp run --queue -S 'fit_detector.seed=0,1,2' -S 'extract_frames.category=bottle,tile'
    dvc queue start
    dvc exp show --json | python tools/leaderboard.py

Experiments of other sweeps have lines of their own, which say what was set differently.
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


def settings(params: dict[str, Any]) -> dict[str, str]:
    """Return the params by dotted names, less those that a sweep over sources and seeds changes."""
    flat = pd.json_normalize(params).iloc[0].items()
    swept = ("seed", "path", "category")
    return {name: str(value) for name, value in flat if name.rpartition(".")[2] not in swept}


def name_settings(runs: list[dict[str, Any]]) -> list[str]:
    """Return of each run the settings that not all runs on its source share: "a.b=1, c.d=2"."""
    table = pd.DataFrame([run["settings"] for run in runs], dtype=object)
    sources = pd.Series([run["source"] for run in runs])
    differ = table.groupby(sources).transform("nunique", dropna=False) > 1
    return [
        ", ".join(f"{name}={row[name]}" for name in table.columns[marked])
        for (_, row), marked in zip(table.iterrows(), differ.to_numpy(), strict=True)
    ]


def tabulate(runs: pd.DataFrame, papers: pd.DataFrame) -> pd.DataFrame:
    """Return a line per source, settings and detector: mean, deviation over seeds, paper value.

    Runs that repeat a seed count once; what was not measured, or is in no paper, stays blank.
    """
    keys = ["source", "settings", "detector"]
    runs = runs.reindex(columns=[*keys, "seed", *METRICS])
    runs = runs.drop_duplicates([*keys, "seed"], keep="last")
    groups = runs.groupby(keys)
    table = groups.size().rename("seeds").to_frame()
    for metric in METRICS:
        table[metric] = groups[metric].mean()
        table[f"{metric}_spread"] = groups[metric].std()
    published = papers.rename(columns={"category": "source", "image_auroc": "paper_image_auroc"})
    table = table.reset_index().merge(published, how="left", on=["source", "detector"])
    table = table.sort_values(
        ["source", "settings", "image_auroc"], ascending=[True, True, False], ignore_index=True
    )
    return table if table.settings.any() else table.drop(columns="settings")


def main() -> None:
    """Read DVC's JSON, print the table as Markdown."""
    runs = list(iterate_runs(json.load(sys.stdin)))
    if not runs:
        sys.exit("error: no experiment has metrics yet; run some with `dvc exp run`")
    named = pd.DataFrame(runs).assign(settings=name_settings(runs))
    table = tabulate(named, pd.read_csv(PAPERS))
    print("| " + " | ".join(table.columns) + " |\n" + "| --- " * len(table.columns) + "|")
    for row in table.itertuples(index=False):
        print("| " + " | ".join(_cell(value) for value in row) + " |")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.4f}"
    return str(value)


if __name__ == "__main__":
    main()
