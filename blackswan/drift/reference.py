"""What a detector says of held-out normal images: that which the drift tests compare a log with.

Scores are those that set its threshold, of images that the fit had not seen. Of near copies one
counts, as for the verdict (evaluation/verdict.py). Every other image fits the principal components
of the embeddings and the rest is the reference, for components describe what they were fitted on
better than anything new.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from blackswan.data.batches import of_one_size
from blackswan.data.dataset import Pictures, Split
from blackswan.drift.detection import FEWEST
from blackswan.drift.embedding import BATCH, Components, embed
from blackswan.errors import InputError, cause
from blackswan.evaluation import calibration
from blackswan.evaluation.model import Model
from blackswan.evaluation.verdict import correlation_frames, units
from blackswan.outputs import replace_folder

FOLDER, TABLE, COMPONENTS = "reference", "reference.parquet", "components.safetensors"
MOST = 400  # images that components and reference are made of
SECONDS = b"seconds"  # metadata of the table
SCHEMA = pa.schema([("image_score", pa.float64()), ("embedding", pa.list_(pa.float32()))])


@dataclass(frozen=True)
class Reference:
    """Held-out normal images: (N, 1 + K), the score first, then the components."""

    rows: np.ndarray
    seconds: float  # within which frames are near copies; 0 of photos
    components: Components | None = None  # None: the log has no embeddings


def build(folder: Path, model: Model) -> Reference:
    """Return the reference of the detector in a folder such as data/detectors/padim.

    Where the pipeline that made it does not lie beside it, these are its scores of held-out images
    as they are, without embeddings.
    """
    images = _held_out(folder.absolute().parent.parent, model)
    if images is None:
        return Reference(model.normal_scores[0].astype(float)[:, None], 0.0)
    table, pictures = images
    every = correlation_frames(table)
    first = np.flatnonzero(~units(table, every).duplicated())
    chosen = first[np.linspace(0, len(first) - 1, min(len(first), MOST)).astype(int)]
    steps = table.dropna(subset="timestamp_s").sort_values("timestamp_s")
    gaps = steps.groupby("source").timestamp_s.diff().median()
    seconds = float(every * gaps) if pd.notna(gaps) else 0.0
    scores = table.image_score.to_numpy(float)[chosen]
    if len(chosen) < 2 * FEWEST:
        return Reference(scores[:, None], seconds)
    embedded = np.concatenate(
        [
            embed(model.detector, batch)
            for batch in of_one_size(pictures.take(chosen), BATCH, lambda image: image)
        ]
    )
    components = Components.fit(embedded[::2])
    rows = np.column_stack([scores[1::2], components(embedded[1::2])])
    return Reference(rows, seconds, components)


def _held_out(data: Path, model: Model) -> tuple[pd.DataFrame, Pictures] | None:
    """Return the images that set the threshold, in one order; None where they are not there."""
    fitted, dataset = data / "models" / model.facts.detector, data / "dataset"
    if not (fitted.is_dir() and (dataset / "validation").is_dir()):
        return None
    pictures = Split(dataset, "validation").normal_images
    table = calibration.read_scores(fitted)
    if table is None:
        table = calibration.with_source(pictures.facts)
        if len(table) != len(model.normal_scores[0]):
            return None
        return table.assign(image_score=model.normal_scores[0]), pictures
    table = table[table["set"] == calibration.LEFT_OUT].reset_index(drop=True)
    if not np.array_equal(table.image_score, model.normal_scores[0]):  # recalibrated, or of a fit
        return None  # before
    pictures += Split(dataset, "train").normal_images
    place = {path: number for number, path in enumerate(pictures.paths)}
    if not {*table.path} <= place.keys():
        return None
    return table, pictures.take([place[path] for path in table.path])


def save(folder: Path, reference: Reference) -> None:
    """Write a reference into the folder of a version in a log."""
    embeddings = (
        list(reference.rows[:, 1:]) if reference.components else [None] * len(reference.rows)
    )
    table = pa.table([reference.rows[:, 0], pa.array(embeddings, SCHEMA.field(1).type)], SCHEMA)
    metadata = {SECONDS: repr(reference.seconds).encode()}
    with replace_folder(folder / FOLDER) as partial:
        pq.write_table(table.replace_schema_metadata(metadata), partial / TABLE)
        if reference.components:
            reference.components.save(partial / COMPONENTS)


def load(folder: Path) -> Reference | None:
    """Read what `save` wrote; None where there is none.

    Raises InputError where it cannot be read.
    """
    path = folder / FOLDER / TABLE
    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
        rows = table["image_score"].to_numpy()[:, None]
        seconds = float(table.schema.metadata[SECONDS])
        if not (folder / FOLDER / COMPONENTS).exists():
            return Reference(rows, seconds)
        components = Components.load(folder / FOLDER / COMPONENTS)
        return Reference(np.column_stack([rows, np.stack(table["embedding"].to_pylist())]), seconds,
                         components)  # fmt: skip
    except Exception as error:  # of two file formats
        raise InputError(
            f"{path.parent} cannot be read ({cause(error)}); delete it, `blackswan serve --log` "
            "writes it again"
        ) from None
