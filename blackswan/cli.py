"""The command line: `blackswan score MODEL SOURCE` puts a fitted detector to use."""

from pathlib import Path
from typing import Annotated

import typer

from blackswan.data.sources.video import Sampling
from blackswan.errors import explained
from blackswan.evaluation.model import load
from blackswan.reporting.verdicts import open_images, write_verdicts

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def blackswan() -> None:
    """Blackswan finds the frame that does not belong."""


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="folder of a model, such as data/detectors/padim")],
    source: Annotated[Path, typer.Argument(help="a video, or a folder of videos or photos")],
    out: Annotated[Path, typer.Option(help="folder of the verdicts")] = Path("verdicts"),
    every_n_seconds: Annotated[float, typer.Option(min=0, help="of a video; 0: all frames")] = 0,
    gallery: Annotated[bool, typer.Option(help="overlays of what is flagged, and a page")] = False,
) -> None:
    """Judge new images: verdicts.parquet and verdicts.csv with score, p-value and verdict.

    The same command again goes on where a run was killed.
    """
    judge = load(model)
    sampling = Sampling(every_n_seconds=every_n_seconds, start_s=0, end_s=None, max_frames=None)
    found = write_verdicts(
        judge,
        open_images(source, sampling),
        out,
        {
            "detector": judge.facts.detector,
            "alpha": f"{judge.facts.alpha:g}",
            "threshold": repr(judge.facts.threshold),
            "data_sha256": judge.facts.data_sha256,
            "source": source.name,
            "every_n_seconds": f"{every_n_seconds:g}",
        },
        page=gallery,
    )
    print(f"{found.anomalous} of {found.images} images flagged; see {out}")


def main() -> None:
    """Run the command line; bad input ends in one sentence."""
    explained(app)
