"""Charts of scores and curves: tables in, matplotlib figures out.

Lines differ in dash and marker as well as in colour; probabilities lie on a log-odds axis, for a
linear one cannot show 0.0001 beside 0.01.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from blackswan.reporting import formats
from blackswan.reporting.drawing import ANOMALOUS, DPI, FAINT, INK, MUTED, NORMAL, STYLE, shorten

PALETTE = [NORMAL, ANOMALOUS, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
DASHES = ["solid", (0, (4, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2))]
MARKERS = ["", "o", "s"]  # with each all dashes
NAMED = len(DASHES) * len(MARKERS)  # lines with a name and a look; what ranks lower is grey
WIDTHS = (4.0, 1.4)  # the first lies lowest, and shows on both sides of those that cover it
TICKS = [1e-12, 1e-9, 1e-6, 1e-4, 0.01, 0.1, 0.5, 0.9, 0.99, 1 - 1e-4, 1 - 1e-6]


@rc_context(STYLE)
def curves(title: str, lines: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw curves of the columns threshold, x, y, best first; what ranks past NAMED is grey."""
    figure, axes = _axes(6.4, 5.2, title)
    x, y = next(iter(lines.values())).columns[1:]
    for rank, (name, points) in enumerate(lines.items()):
        axes.plot(points[x], points[y], clip_on=False, **_look(name, rank))
    axes.set(xlabel=x.replace("_", " "), ylabel=y.replace("_", " "), ylim=(0, 1.005))
    axes.set_xlim(0, max(points[x].max() for points in lines.values()))
    axes.legend(loc="best")
    return figure


@rc_context(STYLE)
def losses(title: str, table: pd.DataFrame) -> Figure:
    """Draw each column over the first one; a logarithmic axis shows the last epochs too."""
    figure, axes = _axes(6.4, 5.2, title)
    step, *names = table.columns
    marker = "o" if len(table) < 30 else ""
    for colour, dash, name in zip(PALETTE, DASHES, names, strict=False):
        axes.plot(table[step], table[name], marker, color=colour, linestyle=dash, label=name)
    if (table[names] > 0).all(axis=None):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=step, ylabel="loss")
    axes.legend()
    return figure


@rc_context(STYLE)
def score_histogram(
    title: str, scores: Mapping[str, pd.Series], threshold: float, probabilities: bool
) -> Figure:
    """Draw one histogram a line for each named set of image scores, with the threshold through all.

    Probabilities have a log-odds axis.
    """
    place = _log_odds if probabilities else np.asarray
    every = place(np.append(np.concatenate(list(scores.values())), threshold))
    edges = np.linspace(every.min(), every.max() if np.ptp(every) else every.min() + 1, 49)
    figure = Figure(figsize=(7.4, 1.5 + 0.8 * len(scores)), dpi=DPI, layout="constrained")
    panels: np.ndarray = figure.subplots(len(scores), 1, sharex=True, squeeze=False)[:, 0]
    for row, (axes, (name, values)) in enumerate(zip(panels, scores.items(), strict=True)):
        axes.hist(place(values), edges, color=NORMAL if row == 0 else ANOMALOUS)
        axes.axvline(place(threshold), color=INK, linewidth=1.4, linestyle=DASHES[1])
        axes.set_ylabel(
            f"{shorten(name, 26)}\n{len(values)} images", rotation=0, ha="right", va="center"
        )
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    panels[0].set_title(title, weight="bold", pad=24)
    show = formats.probability if probabilities else formats.score
    panels[0].annotate(
        f"image threshold {show(threshold)}",
        (float(place(threshold)), 1),
        (0, 4),
        ha="center",
        fontsize=9,
        xycoords=panels[0].get_xaxis_transform(),
        textcoords="offset points",
    )
    if probabilities:
        _mark_probabilities(panels[-1], edges[0], edges[-1])
    panels[-1].set_xlabel("image score" + (", on a log-odds axis" if probabilities else ""))
    return figure


@rc_context(STYLE)
def confusion_matrix(title: str, labels: pd.Series, flagged: pd.Series) -> Figure:
    """Count images by label and verdict, (N,) each; a colour is the share of its line."""
    figure, axes = _axes(4.6, 4.2, title)
    counts = np.zeros((2, 2), int)
    np.add.at(counts, (labels.to_numpy(int), flagged.to_numpy(int)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.25)
    for (row, column), count in np.ndenumerate(counts):
        share = f"\n{shares[row, column]:.1%}" if counts[row].any() else ""
        axes.text(
            column,
            row,
            f"{count}{share}",
            ha="center",
            va="center",
            fontsize=14,
            color="white" if shares[row, column] > 0.6 else INK,
        )
    axes.grid(visible=False)
    axes.set(xlabel="judged", ylabel="is")
    axes.set_xticks([0, 1], ["normal", "anomalous"])
    axes.set_yticks([0, 1], ["normal", "anomalous"], rotation=90, va="center")
    return figure


@rc_context(STYLE)
def reliability_diagram(title: str, bins: pd.DataFrame) -> Figure:
    """Draw how often images of a bin are anomalous over the mean probability they were given."""
    figure, axes = _axes(4.6, 4.2, title)
    given = _log_odds(bins["probability"])
    low, high = min(-5.0, given.min(initial=0) - 1), max(5.0, given.max(initial=0) + 1)
    line = np.linspace(low, high, 200)
    axes.plot(line, 1 / (1 + np.exp(-line)), color=MUTED, linestyle="dotted", label="calibrated")
    axes.plot(given, bins["frequency"], color=NORMAL, linewidth=1.4, zorder=2.4)
    axes.scatter(
        given,
        bins["frequency"],
        40 + 260 * bins["n"] / bins["n"].sum(),
        color=NORMAL,
        clip_on=False,
        label="a bin, the larger the more images",
    )
    _mark_probabilities(axes, low, high, every=2)
    axes.set(xlim=(low, high), ylim=(0, 1))
    axes.set(xlabel="probability given, on a log-odds axis", ylabel="share that is anomalous")
    axes.legend(loc="lower right")  # where no detector that is of use has points
    return figure


def _look(name: str, rank: int) -> dict[str, Any]:
    """Return how the line of a rank is drawn, so that no two named ones look alike in grey."""
    if rank >= NAMED:
        label = "the rest" if rank == NAMED else None
        return {"color": FAINT, "linewidth": 1, "zorder": 2, "label": label}
    return {
        "color": PALETTE[rank % len(PALETTE)],
        "linestyle": DASHES[rank % len(DASHES)],
        "linewidth": max(WIDTHS[1], WIDTHS[0] - 0.65 * rank),
        "marker": MARKERS[rank // len(DASHES)],
        "markevery": 0.15,
        "zorder": 2.5,
        "label": shorten(name, 28),
    }


def _axes(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes: Axes = figure.subplots()
    axes.set_title(title, weight="bold", pad=12)
    return figure, axes


def _log_odds(probability: npt.ArrayLike) -> np.ndarray:
    clipped = np.clip(np.asarray(probability, np.float64), 1e-12, 1 - 1e-7)
    odds: np.ndarray = np.log(clipped / (1 - clipped))
    return odds


def _mark_probabilities(axes: Axes, low: float, high: float, every: int = 1) -> None:
    """Write probabilities on a log-odds axis, `every` so many of those that lie on it."""
    ticks = [tick for tick in TICKS if low <= _log_odds(tick) <= high][::every]
    axes.set_xticks(_log_odds(ticks), [formats.probability(tick) for tick in ticks])
