"""Blackswan finds the frame that does not belong.

`blackswan.load(folder).score(images)` judges images with a model that `dvc repro` has made.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blackswan.evaluation.model import Model


def load(folder: str | Path) -> "Model":
    """Read a complete model, such as data/detectors/patchcore."""
    from blackswan.evaluation import model  # torch takes seconds; only this needs it

    return model.load(Path(folder))
