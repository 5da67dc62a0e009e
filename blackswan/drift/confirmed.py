"""Images that a person found to be normal, scored by a model one batch at a time."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from blackswan.data.batches import of_one_size
from blackswan.data.sources.table import preprocessing_of
from blackswan.data.sources.video import Sampling
from blackswan.drift.recalibration import Confirmed, check_normals, needed
from blackswan.errors import InputError
from blackswan.evaluation.model import Model, Seen
from blackswan.reporting.verdicts import list_source, open_images

BATCH = 16


def score_normals(model: Model, source: Path, every_n_seconds: float = 1) -> Confirmed:
    """Score the images of a folder or a table, or frames of a video: neighbours are copies.

    Raises InputError where they are too few for alpha, or not of one size.
    """
    if source.is_dir() and not any(source.iterdir()):
        raise InputError(
            f"{source} holds no normal image; alpha = {model.facts.alpha:g} needs "
            f"{needed(model.facts.alpha)}, add them"
        )
    files = list_source(source)
    if (done := preprocessing_of(files)) is not None:
        model = model.for_prepared(done)
    sampling = Sampling(every_n_seconds=every_n_seconds, start_s=0, end_s=None, max_frames=None)
    images = open_images(source, files, sampling, model.facts.preprocessing.bit_depth)
    scores, peaks, sizes = [np.empty(0)], [np.empty(0)], []
    digest = hashlib.sha256()

    def seen() -> Iterator[Seen]:
        for item in images:
            image = item.read()[0]
            sizes.append(image.shape[:2])
            digest.update(image.tobytes())
            yield model.see(image)

    for batch in of_one_size(seen(), BATCH, lambda one: one.image):
        found = model.score_seen(batch)
        scores.append(found.image_scores)
        peaks.append(np.array([each.max() for each in found.anomaly_maps]))
    check_normals(sizes, model.facts.alpha, str(source))
    return Confirmed(np.concatenate(scores), np.concatenate(peaks), digest.hexdigest())
