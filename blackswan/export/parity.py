"""How far a graph is from the detector that it was made of."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from blackswan.data.batches import of_one_size
from blackswan.errors import InputError
from blackswan.evaluation.model import Model, Verdicts
from blackswan.export.runtime import Graph, Parity

BATCH = 8  # images judged together
TOLERANCE = 1e-4


@dataclass
class Compared:
    """What both say of the same images, in their order."""

    parity: Parity
    scores: list[float] = field(default_factory=list)  # of the detector
    graph_scores: list[float] = field(default_factory=list)


def compare(
    model: Model, graph: Graph, images: Iterable[np.ndarray], *, photos: bool = False
) -> Compared:
    """Have both judge RGB images, uint8 (H, W, 3), prepared ones or photos.

    A difference is relative to the detector's number, or to the threshold, of the heatmap for maps,
    where that is larger: below it numbers may be as near to 0 as they like.
    """
    image_score = anomaly_map = 0.0
    found = Compared(Parity(images=0, image_score=0, anomaly_map=0, other_verdicts=0))
    other = 0
    least, least_of_map = (
        abs(value) for value in (model.facts.threshold, model.facts.heatmap.threshold)
    )
    exported = Model(graph, model.facts, model.normal_scores)
    for batch in of_one_size(images, BATCH, lambda image: image):
        expected: Verdicts = (model.score if photos else model.score_prepared)(batch)
        got = exported.score_prepared(batch)
        image_score = max(image_score, _difference(expected.image_scores, got.image_scores, least))
        for one, another in zip(expected.anomaly_maps, got.anomaly_maps, strict=True):
            anomaly_map = max(anomaly_map, _difference(one, another, least_of_map))
        other += int((expected.flagged != got.flagged).sum())
        found.scores += expected.image_scores.tolist()
        found.graph_scores += got.image_scores.tolist()
    found.parity = Parity(
        images=len(found.scores),
        image_score=image_score,
        anomaly_map=anomaly_map,
        other_verdicts=other,
    )
    return found


def refuse_difference(parity: Parity, what: str) -> None:
    """Raise InputError where a graph differs by more than TOLERANCE, or in one verdict."""
    if max(parity.image_score, parity.anomaly_map) > TOLERANCE or parity.other_verdicts:
        raise InputError(
            f"the graph is not the detector: on {parity.images} {what} scores differ by "
            f"{parity.image_score:.1e}, maps by {parity.anomaly_map:.1e} and "
            f"{parity.other_verdicts} verdicts; nothing is written, export --to the other runtime"
        )


def _difference(expected: np.ndarray, got: np.ndarray, least: float) -> float:
    """Return the largest difference relative to `expected`, or to `least` where that is larger."""
    scale = np.maximum(np.abs(expected), max(least, float(np.finfo(np.float32).tiny)))
    differences = np.abs(got - expected) / scale
    return float(np.nan_to_num(differences, nan=np.inf).max())
