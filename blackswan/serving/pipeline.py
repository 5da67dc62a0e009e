"""What the pipeline wrote beside a detector: its scores on the test images, and the report.

A server of an export has neither, nor the packages that read them: these are imported where needed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from blackswan.errors import InputError, cause
from blackswan.serving.detectors import Folder, Loaded, Source

if TYPE_CHECKING:
    import pandas as pd


class JudgedImage(BaseModel):
    """A test image, and what the detector says of it."""

    number: int
    path: str
    label: int
    defect: str
    table: str
    image_score: float
    p_value: float


class Evaluation(BaseModel):
    """The test images of a detector; none of them touched its threshold."""

    threshold: float
    alpha: float
    images: list[JudgedImage]


@dataclass(frozen=True)
class Pipeline:
    """The folders of the pipeline that wrote data/detectors/<name>."""

    scores: Path
    dataset: Path
    report: Path

    def evaluation(self, loaded: Loaded) -> Evaluation:
        """Return the scores of the test images; raises InputError where they are of another fit."""
        threshold = loaded.model.facts.threshold
        table = self._table()
        if (table.flagged != (table.image_score > threshold)).any():
            raise InputError(
                f"{self.scores} is not of the detector that is served; run `dvc repro`, or "
                "`dvc checkout`"
            )
        lines = table.assign(number=np.arange(len(table)))
        columns = list(JudgedImage.model_fields)
        return Evaluation(
            threshold=threshold,
            alpha=loaded.model.facts.alpha,
            images=[JudgedImage(**line) for line in lines[columns].to_dict("records")],
        )

    def test_image(self, loaded: Loaded, number: int) -> bytes | None:
        """Return the file of a test image, None where there is no such number."""
        table = self._table()
        if not 0 <= number < len(table):
            return None
        from blackswan.data.dataset import Split

        test = Split(self.dataset, "test")
        (found,) = np.flatnonzero(test.facts.path == table.path[number])
        return test[int(found)].image

    def _table(self) -> "pd.DataFrame":
        import pyarrow.parquet as pq

        try:
            return pq.read_table(self.scores / "scores.parquet").to_pandas()
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.scores / 'scores.parquet'} cannot be read ({cause(error)}); run `dvc repro`"
            ) from None


def pipeline_of(source: Source) -> Pipeline | None:
    """Return what lies beside a detector; None where no pipeline wrote it here."""
    if not isinstance(source, Folder):
        return None
    folder = Path(source.name).absolute()
    data = folder.parent.parent
    found = Pipeline(
        data / "scores" / folder.name, data / "dataset", data.parent / "metrics/report.html"
    )
    return found if found.scores.is_dir() else None
