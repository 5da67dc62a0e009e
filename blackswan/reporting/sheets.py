"""Sheets of images, masks and heatmaps, placed to the pixel."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from blackswan.reporting import formats
from blackswan.reporting.drawing import ANOMALOUS, DPI, INK, MUTED, STYLE, shorten
from blackswan.reporting.heatmaps import HeatmapScale, fit, fit_map, fit_mask, outline, overlay

MISTAKES = ("false alarm", "miss")
TILE, GAP, MARGIN, LINE = 168, 6, 20, 18  # of sheets, pixels


@dataclass(frozen=True)
class Example:
    """One image of a gallery; `mask` is None where nobody drew one."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    mask: np.ndarray | None  # (H, W) bool
    anomaly_map: np.ndarray  # (H, W) float32
    outcome: str  # of evaluation/ranking.py
    caption: str


@rc_context(STYLE)
def gallery(
    title: str,
    examples: Iterable[Example],
    scale: HeatmapScale,
    show: Callable[[float], str] = formats.score,
) -> Figure:
    """Lay out image with mask outline and heatmap, three pairs a line, above one colour bar.

    Examples are taken one at a time; only their small tiles are kept. `show` formats the values of
    the colour bar.
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
        colour = ANOMALOUS if example.outcome in MISTAKES else INK
        sheet.write(example.outcome, left, top, weight="bold", color=colour)
        sheet.write(example.caption, left + pair, top, size=8.5, color=MUTED, ha="right")
        sheet.paste(photo, left, top + LINE + 4, TILE)
        sheet.paste(heat, left + TILE + GAP, top + LINE + 4, TILE)
    _colour_bar(sheet, scale, show)
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
def strip(example: Example, scale: HeatmapScale, side: int) -> Figure:
    """Show one image, its heatmap, and what of it lies above the pixel threshold, side by side.

    `side` is how many pixels the longer side of each has.
    """
    image, peaks = fit(example.image, side), fit_map(example.anomaly_map, side)
    panels = {
        "image": image,
        "heatmap": overlay(image, peaks, scale),
        "above the pixel threshold": outline(image, peaks > scale.threshold),
    }
    height, width = image.shape[:2]
    sheet = _Sheet(len(panels) * (width + GAP) - GAP, height + LINE + 8)
    for place, (name, picture) in enumerate(panels.items()):
        sheet.write(name, place * (width + GAP), 2, size=11, color=MUTED)
        sheet.paste(picture, place * (width + GAP), LINE + 8, width, height)
    return sheet.figure


class _Sheet:
    """A white page of exact pixels; everything is placed from its upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)

    def paste(
        self, image: np.ndarray, left: int, top: int, wide: int, high: int | None = None
    ) -> None:
        height, width = image.shape[:2]
        left, top = left + (wide - width) // 2, top + ((high or wide) - height) // 2
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


def _colour_bar(sheet: _Sheet, scale: HeatmapScale, show: Callable[[float], str]) -> None:
    width, height = sheet.width, sheet.height
    axes = sheet.figure.add_axes((MARGIN / width, 42 / height, 1 - 2 * MARGIN / width, 14 / height))
    values = np.interp(np.linspace(0, 1, 512), (0, 0.5, 1), scale.marks)[None]
    colours = overlay(np.full((1, 512, 3), 255, np.uint8), values, scale)
    axes.imshow(colours, extent=(0, 1, 0, 1), aspect="auto")
    axes.axvline(0.5, color=INK, linewidth=1.6)
    places = [0, 0.25, 0.5, 0.75, 1]
    words = [show(value) for value in np.interp(places, (0, 0.5, 1), scale.marks)]
    words[2] += " pixel threshold"
    axes.set_xticks(places, [*words[:4], f"{words[4]} and above"])
    axes.get_xticklabels()[0].set_horizontalalignment("left")
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    axes.set_yticks([])
    axes.grid(visible=False)
