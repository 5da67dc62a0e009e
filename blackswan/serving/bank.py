"""Confirmed normal images join the memory bank of the detector that is served, at once.

The detector grows on the scorer's own thread, as a copy; a new version of its folder is written
below the folder of the decisions, and served from then on. The folder that DVC tracks stays as it
is. What a version knows beside what it was fitted on stands in its added.json.
"""

import copy
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from blackswan.detectors.patches import BACKBONE
from blackswan.errors import InputError
from blackswan.evaluation import model
from blackswan.evaluation.model import FITTED, Model
from blackswan.outputs import replace_folder, write_json
from blackswan.serving.detectors import Loaded
from blackswan.serving.scorer import Scorer
from blackswan.tracking.runs import dvc_hash

MODELS, ADDED = "models", "added.json"


def check(loaded: Loaded) -> None:
    """Raise InputError where a detector cannot take another image."""
    if not hasattr(loaded.model.detector, "add"):
        raise InputError(
            f"{loaded.name} has no memory bank, so it cannot take an image; leave add_to_bank "
            "out, and export the decisions for the next `dvc repro`"
        )


def add(scorer: Scorer, image: np.ndarray, by: Loaded, sha256: str, folder: Path) -> bool:
    """Let the detector served know a normal image, prepared for `by`; say that it does.

    Images that were sent before are judged by the version of then. Raises InputError where the
    detector cannot.
    """

    def grow() -> None:
        before = scorer.current
        check(before)
        if before.model.facts.preprocessing != by.model.facts.preprocessing:
            raise InputError(
                "another detector is served now, which sees images otherwise; send it again"
            )
        if sha256 not in before.added:
            after = _grown(before, image, sha256, folder / MODELS)
            if not scorer.swap(after, instead_of=before):
                grow()  # another version of the detector came meanwhile

    scorer.between(grow).result()
    return True


def _grown(before: Loaded, image: np.ndarray, sha256: str, models: Path) -> Loaded:
    facts, ignored = before.model.facts, before.model.ignored
    grown: Any = copy.copy(before.model.detector)
    grown.tensors = dict(grown.tensors)  # the bank is replaced in it, not changed
    grown.add([image])
    added = (*before.added, sha256)
    base = before.base or before.hash
    target = models / base / f"{len(added):06d}"
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models) as place, replace_folder(target) as partial:
        grown.save(Path(place))
        model.save(partial, Path(place), facts, before.model.normal_scores, ignored)
        write_json(partial / ADDED, {"base": base, "added": list(added)})
    grown.weights = target / FITTED / BACKBONE
    for other in target.parent.iterdir():
        if other != target:
            shutil.rmtree(other)
    known = Model(grown, facts, before.model.normal_scores, ignored)
    return replace(before, model=known, hash=dvc_hash(target), added=added, base=base)


def latest(loaded: Loaded, folder: Path) -> Loaded:
    """Return the version of a detector that knows what was added to it before; else itself."""
    versions = sorted((folder / MODELS / loaded.hash).glob("[0-9]*"))
    if not versions:
        return loaded
    content = json.loads((versions[-1] / ADDED).read_text(encoding="utf-8"))
    return replace(
        loaded,
        model=model.load(versions[-1]),
        hash=dvc_hash(versions[-1]),
        added=tuple(content["added"]),
        base=loaded.hash,
    )
