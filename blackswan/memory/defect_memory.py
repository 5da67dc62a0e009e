"""The folder of a memory: what embeds, what votes are worth, and, without a server, the defects.

`memory.json` says where the regions come from, `embedder/` is complete, `defects/` holds Parquet,
of which a later file corrects the earlier ones.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from blackswan.errors import InputError
from blackswan.evaluation.regions import Region
from blackswan.memory import embedder as embedders
from blackswan.memory.defects import (
    Defect,
    Origin,
    checked_date,
    count_defects,
    read_defects,
    read_origin,
    write_defects,
)
from blackswan.memory.store import SECONDS, Filters, Neighbor, Store
from blackswan.memory.vote import Calibration, Params, Vote, calibrate, judge
from blackswan.outputs import replace_file, replace_folder
from blackswan.params import Section, load_section

FACTS, EMBEDDER, DEFECTS = "memory.json", "embedder", "defects"
FILE = "defects.parquet"  # of the stage, beside an embedder of its own


class Facts(Section):
    """What a memory rests on; the numbers are exact, not rounded."""

    origin: Origin
    vote: Params
    calibration: Calibration


@dataclass(frozen=True)
class Likeness:
    """What is remembered that looks like a region."""

    region: Region
    neighbors: list[Neighbor]
    vote: Vote


@dataclass(frozen=True)
class Indexed:
    """What came of indexing."""

    new: int
    changed: int
    total: int


class DefectMemory:
    """Defects of the past, asked from any thread; `blackswan index` writes its folder."""

    def __init__(self, folder: Path, seconds: float = SECONDS) -> None:
        """Open a folder, and fill the embedded engine from it; no server is asked yet.

        Raises InputError where it is no memory.
        """
        if not (folder / FACTS).exists():
            raise InputError(f"{folder} is no memory; write one by `blackswan index`")
        self.folder, self.facts = folder, load_section(Facts, "", folder / FACTS)
        self.embedder = embedders.load(folder / EMBEDDER)
        if self.embedder.hash != self.facts.origin.embedder:
            raise InputError(
                f"{folder / EMBEDDER} is not the embedder that the defects of {folder} were "
                "embedded by; write the memory anew by `blackswan index`, into another folder"
            )
        self.store = Store(self.embedder.dimensions, self.facts.origin.detector_hash, seconds)
        if not self.store.is_server:
            self.prepare()
            for path in sorted((folder / DEFECTS).glob("*.parquet")):
                for defects in read_defects(path):
                    self.store.put(defects, self.embedder.hash)

    def prepare(self) -> None:
        """Make or check the collection; raises InputError, UnavailableError without a server."""
        self.store.prepare(self.embedder.hash)

    def similar(
        self,
        image: np.ndarray,
        regions: Sequence[Region],
        filters: Filters | None = None,
        most: int = 5,
    ) -> list[Likeness]:
        """Return, for each region of an image as the detector saw it, what looks like it.

        Raises UnavailableError where the server does not answer, InputError where it is another's.
        """
        found = []
        for region in regions:
            embedding = self.embedder.embed(image, region)
            neighbors = self.store.nearest(embedding, most, filters or Filters())
            # All vote, as all did when it was learnt what votes are worth.
            voters = self.store.nearest(embedding, self.facts.vote.neighbors, Filters())
            vote = judge(
                [voter.similarity for voter in voters],
                [voter.facts["type"] for voter in voters],
                self.facts.vote,
                self.facts.calibration,
            )
            found.append(Likeness(region, neighbors, vote))
        return found

    def add(self, defects: Sequence[Defect]) -> tuple[int, int]:
        """Remember defects from now on; return how many are new, and how many known otherwise.

        What votes are worth stays as the last `blackswan index` found it.
        """
        changed, new = self.store.changed(defects)
        if changed:
            if not self.store.is_server:
                self._keep(changed)  # first: what could not be kept must not be known
            self.store.put(changed, self.embedder.hash)
        return new, len(changed) - new

    def calibrate(self, params: Params) -> None:
        """Learn from all that is remembered what votes are worth, and write it down."""
        calibration = calibrate(self.store.pages, self.store.count(), params)
        self.facts = self.facts.model_copy(update={"vote": params, "calibration": calibration})
        _write(self.folder / FACTS, self.facts)

    def close(self) -> None:
        """Let go of the server."""
        self.store.close()

    def _keep(self, defects: Sequence[Defect]) -> None:
        numbers = [int(path.stem) for path in (self.folder / DEFECTS).glob("*.parquet")]
        path = self.folder / DEFECTS / f"{max(numbers, default=0) + 1:06d}.parquet"
        with replace_file(path) as partial:
            write_defects(partial, defects, self.facts.origin)


def index(found: Path, folder: Path, vote: Params, *, camera: str = "", date: str = "") -> Indexed:
    """Put what the stage embed_defects found into a memory, which is made where there is none.

    `camera` and `date` (2026-11-30) are noted of all. The same again changes nothing. Raises
    InputError where `found` was embedded otherwise, or by another version of the detector.
    """
    origin, date = read_origin(found / FILE), checked_date(date, "--date")
    if not (folder / FACTS).exists():
        _begin(folder, found, origin, vote)
    memory = DefectMemory(folder, seconds=60)
    _check_origin(folder, memory.facts.origin, found, origin)
    memory.prepare()
    new = changed = 0
    with tqdm(desc="index", unit="defect", total=count_defects(found / FILE), disable=None) as bar:
        for defects in read_defects(found / FILE):
            known = memory.store.known(defects)
            noted = [_noted(defect, camera, date, known.get(defect.id)) for defect in defects]
            counts = memory.add(noted)
            new, changed = new + counts[0], changed + counts[1]
            bar.update(len(defects))
    memory.calibrate(vote)  # the same defects teach the same
    total = memory.store.count()
    memory.close()
    return Indexed(new, changed, total)


def _begin(folder: Path, found: Path, origin: Origin, vote: Params) -> None:
    """Make a memory without defects; raises InputError where the folder holds something else."""
    folder = folder.absolute()
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"{folder} holds other files and no {FACTS}; name an empty folder with --memory"
        )
    with replace_folder(folder) as partial:
        (partial / DEFECTS).mkdir()
        shutil.copytree(found / EMBEDDER, partial / EMBEDDER, copy_function=shutil.copyfile)
        nothing = Calibration(asked=0, least_similarity=-1, shares=[], accuracies=[])
        _write(partial / FACTS, Facts(origin=origin, vote=vote, calibration=nothing))


def _check_origin(folder: Path, known: Origin, found: Path, origin: Origin) -> None:
    if known.embedder != origin.embedder:
        raise InputError(
            f"the defects of {found} were embedded otherwise than those of {folder}; index them "
            "into another folder"
        )
    if known != origin:
        raise InputError(
            f"the defects of {found} were found by {origin.detector} ({origin.detector_hash}) and "
            f"those of {folder} by {known.detector} ({known.detector_hash}), which cuts regions "
            "otherwise; index them into another folder"
        )


def _noted(defect: Defect, camera: str, date: str, known: dict[str, Any] | None) -> Defect:
    """Note camera and date; type and date of what is known stay, for a person may have set them."""
    if known:
        defect = replace(defect, type=known["type"], camera=known["camera"], date=known["date"])
        date = known["date"] or date
    return replace(defect, camera=camera or defect.camera, date=date or defect.date)


def _write(path: Path, facts: Facts) -> None:
    with replace_file(path) as partial:  # write_json would round
        partial.write_text(json.dumps(facts.model_dump(), indent=2) + "\n", encoding="utf-8")
