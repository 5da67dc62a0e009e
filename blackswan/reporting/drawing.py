"""What all pictures share: colours, type, and how they are written.

Colours are told apart by colour-blind eyes (Okabe and Ito), photos keep their pixels, and the same
input gives the same PNG bytes.
"""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

DPI = 100
INK, MUTED, FAINT, NORMAL, ANOMALOUS = "#1f2933", "#66707c", "#c0c7cf", "#0072b2", "#d55e00"
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


def write_png(figure: Figure, path: Path) -> None:
    """Write the figure, with nothing in the file that tells when and by what it was made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def shorten(name: str, length: int) -> str:
    """Return the name, or its two ends around an ellipsis where it is longer than `length`."""
    if len(name) <= length:
        return name
    return f"{name[: (length - 1) // 2]}…{name[-(length // 2) :]}"
