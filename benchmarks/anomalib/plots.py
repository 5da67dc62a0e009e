"""Pictures of what compare.py measured."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator

HERE = Path(__file__).parent
SIDES = {"anomalib": "o--", "blackswan": "o-"}
COSTS = {"fit_seconds": "fit, s", "score_ms": "score, ms an image", "peak_gb": "peak memory, GB"}


def _ticks(axis: Axes, values: list[int]) -> None:
    axis.minorticks_off()
    axis.set_xticks(values, [f"{value:,}" for value in values])
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")


def draw_image_size(results: dict[str, Any]) -> None:
    """Draw what fitting and scoring cost against the image size: {model: {size: measured}}."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
    for axis, (cost, label) in zip(axes, COSTS.items(), strict=True):
        for color, (model, tables) in enumerate(results.items()):
            for side, style in SIDES.items():
                means = [table[side][cost]["mean"] for table in tables.values()]
                sizes = [int(size) for size in tables]
                axis.loglog(sizes, means, style, color=f"C{color}", label=f"{model}, {side}")
                _ticks(axis, sizes)
        axis.set(xlabel="pixels a side", ylabel=label)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, handlelength=4)
    figure.savefig(HERE / "image_size.png", dpi=110, metadata={"Software": None})


def draw_coreset(rows: dict[str, Any]) -> None:
    """Draw the seconds of a coreset against its points and its picks."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), sharey=True, layout="constrained")
    labels = {
        "naive_seconds_extrapolated": "loop of anomalib's shape (extrapolated)",
        "ours_seconds": "ours, same picks",
        "product_seconds": "one matrix product",
    }
    for axis, key, kind in zip(
        axes, ("points", "picks"), ("against_points", "against_picks"), strict=True
    ):
        table = sorted([*rows[kind], rows["at_one_percent"]], key=lambda row: row[key])
        for name, label in labels.items():
            axis.loglog(
                [row[key] for row in table], [row[name] for row in table], "o-", label=label
            )
        fixed = "1 % picked" if key == "points" else f"{rows['at_one_percent']['points']:,} points"
        axis.set(xlabel=f"{key}, {fixed}", ylabel="seconds" if key == "points" else "")
        _ticks(axis, [row[key] for row in table])
    axes[1].legend(fontsize=7, loc="center", bbox_to_anchor=(0.5, 0.6))
    figure.savefig(HERE / "coreset.png", dpi=110, metadata={"Software": None})
