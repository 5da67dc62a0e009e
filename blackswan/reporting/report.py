"""The report page: one HTML file that needs neither network nor other files."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from blackswan.evaluation.ranking import BASELINE, summarise
from blackswan.evaluation.verdict import VOID
from blackswan.reporting import formats, robustness
from blackswan.reporting.embedding import data_uris
from blackswan.reporting.leaderboard import ORDER, Summary, board, by_kind

TEMPLATE = Path(__file__).with_name("report.html.jinja")


def render(
    results: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    fingerprint: str,
    pictures: Path,
    drifts: Mapping[str, Any],
) -> str:
    """Return the page.

    `results` holds what evaluate_detector wrote of each detector; `settings` the blocks of
    params.yaml that shaped them; `fingerprint` tells which test images they are of; `pictures` is
    the folder of the PNG files, each of which is put into the page where the template asks for it
    and left out where it is missing; `drifts` is what `make drift` measured of some detectors.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    images = data_uris(sorted(pictures.rglob("*.png")))
    environment.globals |= {
        "BASELINE": BASELINE,
        "VOID": VOID,
        "shows": formats.of_scores,
        "rate": formats.rate,
        "by_kind": by_kind,
        "picture": lambda name: images.get(pictures / name),
    }
    summary = summarise(results)
    table = board(summary)
    return environment.get_template(TEMPLATE.name).render(
        results={line.name: results[line.name] for line in table.lines},
        board=table,
        warning=warning(summary),
        settings=dict(flattened(settings)),
        fingerprint=fingerprint,
        robustness=robustness.table(drifts),
    )


def warning(summary: Summary) -> str:
    """Return what a reader must know before the table, in one line, or nothing."""
    said = []
    if baseline := summary.get(BASELINE, {}).get(ORDER):
        others = [each.get(ORDER, 0) for name, each in summary.items() if name != BASELINE]
        if behind := sum(value <= baseline for value in others):
            said.append(
                f"No better in image AUROC than {BASELINE}, which learns nothing: "
                f"{behind} of {len(others)} detectors."
            )
    if void := sum(each.get("verdict") == VOID for each in summary.values()):
        said.append(f"Void thresholds: {void} of {len(summary)}.")
    return " ".join(said)


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names and values of nested blocks, in their order; null stays empty."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flattened(value, f"{name}.")
        else:
            listed = value if isinstance(value, list) else [value]
            yield name, ", ".join("" if each is None else str(each) for each in listed)
