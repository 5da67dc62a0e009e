"""The report page: one HTML file that needs neither network nor other files."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from blackswan.evaluation.ranking import AGAINST, BASELINE, group_count

TEMPLATE = Path(__file__).with_name("report.html.jinja")


def render(
    results: Mapping[str, Mapping[str, Any]],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    pictures: Path,
) -> str:
    """Return the page.

    `results` holds what evaluate_detector wrote of each detector; `tables` the rows of the
    leaderboard, best first, the main table first; `pictures` the folder of the PNG files, each of
    which is put into the page where the template asks for it and left out where it is missing.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"rate": rate, "score": score}
    environment.globals |= {"BASELINE": BASELINE, "AGAINST": AGAINST, "group_count": group_count}
    environment.globals["picture"] = lambda name: _data_uri(pictures / name)
    main, *unseen = tables.items()
    return environment.get_template(TEMPLATE.name).render(
        results=results, rows=main[1], unseen=dict(unseen)
    )


def rate(value: float) -> str:
    """Format a number of 0 to 1; what is not quite perfect is never rounded to perfect."""
    if 0.99995 <= value < 1:
        return ">0.9999"
    if 0 < value < 0.00005:
        return "<0.0001"
    return f"{value:.4f}"


def score(value: float) -> str:
    """Format an image score, of whatever range."""
    return f"{value:.4g}"


def _data_uri(path: Path) -> str | None:
    if not path.exists():
        return None
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
