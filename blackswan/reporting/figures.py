"""Pictures of images, heatmaps, scores and curves: arrays in, matplotlib figures out.

Colours are told apart by colour-blind eyes (Okabe and Ito), photos keep their pixels, and the same
input gives the same PNG bytes.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from PIL import Image

from blackswan.reporting.heatmaps import HeatmapScale, fit, fit_map, fit_mask, outline, overlay

DPI = 100
INK, MUTED, FAINT, NORMAL, ANOMALOUS = "#1f2933", "#66707c", "#c0c7cf", "#0072b2", "#d55e00"
PALETTE = [NORMAL, ANOMALOUS, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
DASHES = ["solid", (0, (4, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2))]
TICKS = [1e-12, 1e-9, 1e-6, 1e-4, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999, 0.999999]
NAMED = 12  # lines of a figure that have a name and a colour; what ranks lower is grey
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 12,
    "axes.grid": True,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e7eaee",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "figure.constrained_layout.h_pad": 0.14,
    "figure.constrained_layout.w_pad": 0.14,
    "lines.linewidth": 2.2,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
TILE, GAP, MARGIN, LINE = 168, 6, 20, 18  # of sheets, pixels


@dataclass(frozen=True)
class Example:
    """One image of a gallery; `mask` is None where nobody drew one."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    mask: np.ndarray | None  # (H, W) bool
    anomaly_map: np.ndarray  # (H, W) float32
    anomalous: bool
    flagged: bool
    caption: str

    @property
    def verdict(self) -> str:
        """What the detector made of it, in a word."""
        if self.flagged:
            return "found" if self.anomalous else "false alarm"
        return "miss" if self.anomalous else "normal"


def write_png(figure: Figure, path: Path) -> None:
    """Write the figure, with nothing in the file that tells when and by what it was made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def write_small_png(figure: Figure, path: Path) -> None:
    """Write the figure in 256 colours: at most a byte a pixel, small enough for git."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(256).save(path, format="PNG", optimize=True)


@rc_context(STYLE)
def gallery(title: str, examples: Iterable[Example], scale: HeatmapScale) -> Figure:
    """Lay out image with mask outline and heatmap, three pairs a line, above one colour bar.

    Examples are taken one at a time; only their small tiles are kept.
    """
    tiles = [
        (_outlined(example, TILE), _heatmap(example, scale, TILE), example) for example in examples
    ]
    pair, line = 2 * TILE + GAP, TILE + 2 * LINE + 16
    lines = -(-len(tiles) // 3)
    sheet = _Sheet(2 * MARGIN + 3 * pair + 2 * 24, 2 * MARGIN + 40 + lines * line + 60)
    sheet.write(title, MARGIN, MARGIN, size=14, weight="bold")
    for place, (photo, heat, example) in enumerate(tiles):
        left = MARGIN + place % 3 * (pair + 24)
        top = MARGIN + 40 + place // 3 * line
        colour = INK if example.anomalous == example.flagged else ANOMALOUS
        sheet.write(example.verdict, left, top, weight="bold", color=colour)
        sheet.write(example.caption, left + pair, top, size=8.5, color=MUTED, ha="right")
        sheet.paste(photo, left, top + LINE + 4, TILE)
        sheet.paste(heat, left + TILE + GAP, top + LINE + 4, TILE)
    _colour_bar(sheet, scale)
    return sheet.figure


@rc_context(STYLE)
def contact_sheet(
    title: str, rows: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray | None]]]
) -> Figure:
    """Show a line of images for each name, and beneath it their masks where there are any."""
    tile, names = 150, 150
    columns = max(map(len, rows.values()))
    masked = {name: any(mask is not None for _, mask in row) for name, row in rows.items()}
    heights = {name: (2 if masked[name] else 1) * (tile + GAP) + 14 for name in rows}
    width = 2 * MARGIN + names + columns * (tile + GAP)
    sheet = _Sheet(width, 2 * MARGIN + 40 + sum(heights.values()))
    sheet.write(title, MARGIN, MARGIN, size=14, weight="bold")
    top = MARGIN + 40
    for name, row in rows.items():
        sheet.write(shorten(name, 17), MARGIN, top + tile // 2 - 8, weight="bold")
        for column, (image, mask) in enumerate(row):
            left = MARGIN + names + column * (tile + GAP)
            sheet.paste(fit(image, tile), left, top, tile)
            if mask is not None:
                sheet.paste(_as_image(fit_mask(mask, tile)), left, top + tile + GAP, tile)
        top += heights[name]
    return sheet.figure


@rc_context(STYLE)
def strip(example: Example, scale: HeatmapScale) -> Figure:
    """Show one image, its mask where there is one, and its heatmap side by side."""
    tile = 300
    panels = {"image": fit(example.image, tile)}
    if example.mask is not None:
        panels["mask"] = _as_image(fit_mask(example.mask, tile))
    panels["heatmap"] = _heatmap(example, scale, tile)
    sheet = _Sheet(len(panels) * (tile + GAP) - GAP, tile + LINE + 8)
    for place, (name, picture) in enumerate(panels.items()):
        sheet.write(name, place * (tile + GAP), 2, size=11, color=MUTED)
        sheet.paste(picture, place * (tile + GAP), LINE + 8, tile)
    return sheet.figure


@rc_context(STYLE)
def curves(title: str, lines: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw curves of the columns threshold, x, y, best first; what ranks past NAMED is grey."""
    figure, axes = _axes(6.4, 5.2, title)
    x, y = next(iter(lines.values())).columns[1:]
    for rank, (name, points) in enumerate(lines.items()):
        named = rank < NAMED
        axes.plot(
            points[x],
            points[y],
            clip_on=False,
            zorder=2.5 if named else 2,
            color=PALETTE[rank % len(PALETTE)] if named else FAINT,
            linestyle=DASHES[rank % len(DASHES)] if named else "solid",
            linewidth=None if named else 1,
            label=shorten(name, 28) if named else "the rest" if rank == NAMED else None,
        )
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
    title: str, scores: Mapping[str, pd.Series], threshold: float, *, probabilities: bool
) -> Figure:
    """Draw one histogram a line for each named set of image scores, with the threshold through all.

    Probabilities have a log-odds axis: a linear one cannot show 0.0001 beside 0.01.
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
    panels[0].annotate(
        f"threshold {threshold:.4g}",
        (float(place(threshold)), 1),
        (0, 4),
        ha="center",
        fontsize=9,
        xycoords=panels[0].get_xaxis_transform(),
        textcoords="offset points",
    )
    if probabilities:
        ticks = [tick for tick in TICKS if edges[0] <= _log_odds(tick) <= edges[-1]]
        panels[-1].set_xticks(_log_odds(ticks), [f"{tick:g}" for tick in ticks])
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
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="dotted", label="calibrated")
    axes.plot(bins["probability"], bins["frequency"], color=NORMAL, linewidth=1.4, zorder=2.4)
    axes.scatter(
        "probability",
        "frequency",
        40 + 260 * bins["n"] / bins["n"].sum(),
        data=bins,
        color=NORMAL,
        clip_on=False,
        label="a bin, the larger the more images",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability given", ylabel="share that is anomalous")
    axes.legend(loc="best")
    return figure


def shorten(name: str, length: int) -> str:
    """Return the name, or its two ends around an ellipsis where it is longer than `length`."""
    if len(name) <= length:
        return name
    return f"{name[: (length - 1) // 2]}…{name[-(length // 2) :]}"


class _Sheet:
    """A white page of exact pixels; everything is placed from its upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)

    def paste(self, image: np.ndarray, left: int, top: int, box: int) -> None:
        height, width = image.shape[:2]
        left, top = left + (box - width) // 2, top + (box - height) // 2
        self.figure.figimage(image, left, self.height - top - height, origin="upper")

    def write(self, text: str, left: int, top: int, **style: Any) -> None:  # noqa: ANN401
        self.figure.text(left / self.width, 1 - top / self.height, text, va="top", **style)


def _heatmap(example: Example, scale: HeatmapScale, side: int) -> np.ndarray:
    return overlay(fit(example.image, side), fit_map(example.anomaly_map, side), scale)


def _outlined(example: Example, side: int) -> np.ndarray:
    mask = None if example.mask is None else fit_mask(example.mask, side)
    return outline(fit(example.image, side), mask)


def _as_image(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)


def _colour_bar(sheet: _Sheet, scale: HeatmapScale) -> None:
    width, height = sheet.width, sheet.height
    axes = sheet.figure.add_axes((MARGIN / width, 42 / height, 1 - 2 * MARGIN / width, 14 / height))
    values = np.interp(np.linspace(0, 1, 512), (0, 0.5, 1), scale.marks)[None]
    colours = overlay(np.full((1, 512, 3), 255, np.uint8), values, scale)
    axes.imshow(colours, extent=(0, 1, 0, 1), aspect="auto")
    axes.axvline(0.5, color=INK, linewidth=1.6)
    places = [0, 0.25, 0.5, 0.75, 1]
    words = [f"{value:.3g}" for value in np.interp(places, (0, 0.5, 1), scale.marks)]
    words[2] += " threshold"
    axes.set_xticks(places, [*words[:4], f"{words[4]} and above"])
    axes.get_xticklabels()[0].set_horizontalalignment("left")
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    axes.set_yticks([])
    axes.grid(visible=False)


def _axes(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes: Axes = figure.subplots()
    axes.set_title(title, weight="bold", pad=12)
    return figure, axes


def _log_odds(probability: npt.ArrayLike) -> np.ndarray:
    clipped = np.clip(np.asarray(probability, np.float64), 1e-12, 1 - 1e-7)
    odds: np.ndarray = np.log(clipped / (1 - clipped))
    return odds
