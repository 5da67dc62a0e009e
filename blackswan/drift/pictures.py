"""The table of a detector under drift, as one picture."""

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from blackswan.drift.corruptions import HIGHEST, SEVERITIES
from blackswan.drift.simulation import RAMP, STEP
from blackswan.reporting.charts import DASHES
from blackswan.reporting.drawing import ANOMALOUS, DPI, MUTED, NORMAL, STYLE

LINES = {  # column -> name, colour, dash, marker
    "image_auroc": ("image AUROC", NORMAL, DASHES[0], "o"),
    "pixel_auroc": ("pixel AUROC", "#009e73", DASHES[1], "s"),
    "recall": ("recall", "#cc79a7", DASHES[2], "^"),
    "false_positive_rate": ("false alarms", ANOMALOUS, DASHES[0], "x"),
}
COLUMNS = 6


@rc_context(STYLE)
def drift_panels(title: str, table: pd.DataFrame) -> Figure:
    """Draw a panel for each drift, over severity; a bar marks where the promise breaks."""
    names = table.drift.unique()
    rows = -(-(len(names) + 1) // COLUMNS)
    figure = Figure(figsize=(2.3 * COLUMNS, 2.1 * rows + 0.4), dpi=DPI, layout="constrained")
    figure.suptitle(title, weight="bold", x=0.01, ha="left")
    panels: np.ndarray = figure.subplots(rows, COLUMNS, sharex=True, sharey=True).ravel()
    for axes, name in zip(panels, names, strict=False):
        steps = table[(table.drift == name) & (table.kind == STEP)]
        for key, (label, colour, dash, marker) in LINES.items():
            axes.plot(
                steps.severity, steps[key], marker, color=colour, linestyle=dash, label=label,
                linewidth=1.5, markersize=4, clip_on=False,
            )  # fmt: skip
        for kind, dash in ((STEP, "solid"), (RAMP, "dotted")):
            broken = table.breaks_at[(table.drift == name) & (table.kind == kind)].iloc[0]
            if pd.notna(broken):
                axes.axvline(
                    broken, color=MUTED, linestyle=dash, linewidth=1.4,
                    label=f"promise void, {kind}",
                )  # fmt: skip
        axes.set_title(name.replace("_", " "), size=10)
        axes.set(xlim=(0, HIGHEST), ylim=(0, 1.02), xticks=SEVERITIES)
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    panels[len(names)].legend(handles.values(), handles.keys(), loc="center left")
    return figure
