"""How far proposals agree with labels that people gave: Cohen's kappa, abstentions, cost."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import cohen_kappa_score

from blackswan.data.corrections import LABELS
from blackswan.errors import InputError
from blackswan.proposals.table import Proposal, read_proposals
from blackswan.seeds import generator

DRAWS, LEVEL = 1000, 0.95


def report(proposals: Path, labels: Mapping[str, str], seed: int) -> dict[str, Any]:
    """Compare the proposals of each model and prompt with the labels of their images.

    Raises InputError where no image has both.
    """
    rows = read_proposals(proposals)
    if not {row.image for row in rows} & labels.keys():
        raise InputError(
            f"no image of {proposals} has a label there; name a table whose column image has the "
            "same names"
        )
    asked = sorted({(row.model, row.prompt) for row in rows})
    return {
        "seed": seed,
        "draws": DRAWS,
        "by": [
            {"model": model, "prompt": prompt}
            | _agreement(
                [row for row in rows if (row.model, row.prompt) == (model, prompt)], labels, seed
            )
            for model, prompt in asked
        ],
    }


def _agreement(rows: Sequence[Proposal], labels: Mapping[str, str], seed: int) -> dict[str, Any]:
    reviewed = [row for row in rows if row.image in labels]
    answered = [row for row in reviewed if row.status != "abstained"]
    truth = [labels[row.image] for row in answered]
    disputed = [row for row in answered if row.status == "disputed"]
    return {
        "asked": len(rows),
        "reviewed": len(reviewed),
        "answered": len(answered),
        "kappa": kappa(truth, [row.label for row in answered], seed),
        # of the very same images, so that the two can be compared
        "kappa_of_detector": kappa(truth, [row.verdict for row in answered], seed),
        "right": sum(row.label == labels[row.image] for row in answered),
        "disputed": len(disputed),
        "disputed_right": sum(row.label == labels[row.image] for row in disputed),
        "abstained": dict(
            sorted(Counter(row.reason for row in rows if row.status == "abstained").items())
        ),
        "tokens_in": sum(row.tokens_in or 0 for row in rows),
        "tokens_out": sum(row.tokens_out or 0 for row in rows),
        "cost": math.fsum(row.cost for row in rows),
    }


def kappa(truth: Sequence[str], said: Sequence[str], seed: int) -> dict[str, Any]:
    """Return Cohen's kappa and the percentile interval of a bootstrap of images.

    Kappa is not defined where all is of one label on both sides: it is None then, and a draw that
    comes out so is left out and counted.
    """
    if not truth:
        return {"kappa": None, "low": None, "high": None, "undefined_draws": 0}
    random = generator(seed, "kappa")
    weights = random.multinomial(len(truth), np.full(len(truth), 1 / len(truth)), DRAWS)
    drawn = [value for counts in weights if (value := _kappa(truth, said, counts)) is not None]
    edges = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    low, high = np.quantile(drawn, edges) if drawn else (None, None)
    return {
        "kappa": _kappa(truth, said, np.ones(len(truth))),
        "low": None if low is None else float(low),
        "high": None if high is None else float(high),
        "undefined_draws": DRAWS - len(drawn),
    }


def _kappa(truth: Sequence[str], said: Sequence[str], weights: np.ndarray) -> float | None:
    counted = weights > 0
    seen = {*np.array(truth)[counted], *np.array(said)[counted]}
    if len(seen) < 2:
        return None
    return float(cohen_kappa_score(truth, said, labels=LABELS, sample_weight=weights))
