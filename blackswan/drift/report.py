"""The page of a drift report, and what the service tells Prometheus of it."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure

from blackswan.drift import log, reference
from blackswan.drift.monitor import Found, Params, examine
from blackswan.evaluation.model import Model
from blackswan.outputs import replace_file, write_json
from blackswan.reporting.charts import DASHES, PALETTE
from blackswan.reporting.drawing import ANOMALOUS, DPI, MUTED, NORMAL, STYLE, write_png
from blackswan.reporting.embedding import data_uris

TEMPLATE = Path(__file__).with_name("drift.html.jinja")


def state_file(folder: Path, camera: str) -> Path:
    """Return where the figures of a camera lie in the folder of a version."""
    return folder / f"drift-{camera}.json"


def report(
    folder: Path,
    model: Model,
    detector: Path,
    detector_hash: str,
    params: Params,
    camera: str | None,
    out: Path,
) -> Found:
    """Read a log, write the page `out` and the figures into the folder of the version.

    Raises InputError for a log that cannot be judged.
    """
    parts = log.parts_of(folder, detector_hash)
    version = folder / detector_hash
    usual = reference.load(version) or reference.build(detector, model)
    found = examine(log.read(parts, detector_hash, params.hours), camera, usual, params)
    content = found.content() | {
        "detector": model.facts.detector, "detector_hash": detector_hash,
        "monitor": params.model_dump(),
    }  # fmt: skip
    with replace_file(out) as partial:
        partial.write_text(render(found, content), encoding="utf-8")
    write_json(state_file(version, found.camera), content)
    return found


def states(folder: Path, detector_hash: str) -> list[dict[str, Any]]:
    """Return the figures of the last report on each camera; what is no JSON is left out."""
    found = []
    for path in sorted((folder / detector_hash).glob("drift-*.json")):
        try:
            content = json.loads(path.read_bytes())
            found.append({key: content[key] for key in ("camera", "page", "end")})
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def render(found: Found, content: dict[str, Any]) -> str:
    """Return the page: one HTML file that needs neither network nor other files."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), undefined=StrictUndefined, autoescape=True,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        picture = Path(place, "windows.png")
        write_png(window_panels(found, content["monitor"]), picture)
        image = data_uris([picture])[picture]
    return environment.get_template(TEMPLATE.name).render(**content, picture=image)


@rc_context(STYLE)
def window_panels(found: Found, monitor: dict[str, Any]) -> Figure:
    """Draw scores, p-values and the capital of the CUSUM over the windows."""
    figure = Figure(figsize=(9.6, 7.2), dpi=DPI, layout="constrained")
    scores, tests, capital = figure.subplots(3, 1, sharex=True)
    number = np.arange(1, len(found.windows) + 1)
    quartiles = np.array([np.quantile(each.rows[:, 0], [0.25, 0.5, 0.75])
                          for each in found.windows]).T  # fmt: skip
    scores.fill_between(number, quartiles[0], quartiles[2], color=NORMAL, alpha=0.2,
                        label="half of the images")  # fmt: skip
    scores.plot(number, quartiles[1], "o", color=NORMAL, linestyle="solid", markersize=4,
                label="median")  # fmt: skip
    scores.set_ylabel("image score")
    level = monitor["level"] / len(monitor["tests"])
    for test, colour, dash, marker in zip(
        monitor["tests"], PALETTE[2:], DASHES, ["o", "s", "^"], strict=False
    ):
        values = [max(each.p_values[test], 1e-9) for each in found.windows]
        tests.plot(number, values, marker, color=colour, linestyle=dash, markersize=4,
                   linewidth=1.4, label=test.replace("_", " "))  # fmt: skip
    tests.axhline(level, color=ANOMALOUS, linewidth=1.4, linestyle=DASHES[1], label="level")
    tests.set(ylabel="p-value", yscale="log")
    if found.limit is not None:
        capital.plot(number, [each.log_capital for each in found.windows], "o", color=NORMAL,
                     linestyle="solid", markersize=4, label="log capital")  # fmt: skip
        capital.axhline(found.limit, color=ANOMALOUS, linewidth=1.4, linestyle=DASHES[1],
                        label="a report, back to 0")  # fmt: skip
        reported = [n for n, each in zip(number, found.windows, strict=True) if each.reports]
        for place in reported:
            capital.axvline(place, color=MUTED, linewidth=1, linestyle="dotted")
    capital.set(ylabel="CUSUM", xlabel=f"window of {monitor['window']} images, the newest last")
    for axes in (scores, tests, capital):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left")
    scores.set_title("The log, window by window", weight="bold", pad=12)
    return figure
