"""data/frames -> data/anomalies: normal frames with a patch that does not belong, and its mask.

Frames of train and validation get the anomalies the ViT learns from; several generators take turns.
Frames of the test split get one of each, and the unseen ones beside them, unless the source has
real anomalies to be tested on. Each image has its own seed, so neither the order nor the number of
workers changes a byte. `dvc repro synthesize_anomalies`
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import product
from operator import attrgetter
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from blackswan.data import splits, synthesis
from blackswan.data.anomalies import Job, make
from blackswan.data.corrections import corrected
from blackswan.data.quarantine import Failure, Quarantine, attempt
from blackswan.data.records import Frame, read_index, write_index
from blackswan.data.sequences import with_times
from blackswan.data.splits import SPLITS, assign_splits
from blackswan.distributed.anomalies import make_with_spark
from blackswan.errors import InputError, run
from blackswan.outputs import replace_folder
from blackswan.parallel import parallel_map
from blackswan.params import Engine, Section, load_section
from blackswan.seeds import generator

FRAMES = Path("data/frames")
ANOMALIES = Path("data/anomalies")
CORRECTIONS = Path("data/corrections.csv")  # no copies of what is anomalous itself


class Params(Section):
    """Which anomalies are made, and how many."""

    seed: int = Field(ge=0)
    engine: Engine
    max_failed_share: float = Field(ge=0, lt=1)  # of the frames, which go to quarantine.csv
    # What train, validation and the main test table hold.
    generators: list[synthesis.GeneratorName] = Field(min_length=1)
    unseen: list[synthesis.GeneratorName]  # test only, in a table of their own
    anomalies_per_frame: int = Field(ge=1)  # images made from one frame, each with its own patches
    patch: synthesis.Params

    @model_validator(mode="after")
    def _unseen_is_unseen(self) -> "Params":
        for key in ("generators", "unseen"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key} lists a generator twice; remove one")
        for kind in self.generators:
            if kind in self.unseen:
                raise ValueError(f"unseen lists {kind}, which training sees; take it out")
        return self


def plan(frames: list[Frame], params: Params) -> list[Job]:
    """List the images to make from frames that have their splits."""
    real_anomalies = any(frame.label == "anomalous" for frame in frames)
    jobs = []
    for split in SPLITS:
        if split == "test" and real_anomalies:
            continue
        members = [f for f in frames if f.split == split and f.label != "anomalous"]
        by_group = sorted(members, key=attrgetter("group"))
        for position, frame in enumerate(members):
            stem = frame.image.removeprefix("images/").removesuffix(".png")
            for kind, number in _kinds(split, position, params):
                name = f"{kind}/{stem}-{number}"
                lender = None
                if kind == "poisson_blend":
                    lender = _lender(frame, by_group, generator(params.seed, name, "lender"))
                jobs.append(Job(frame, kind, name, lender))
    return jobs


def _kinds(
    split: str, position: int, params: Params
) -> Iterator[tuple[synthesis.GeneratorName, int]]:
    """Yield generator and number of each image to make from the frame at a position of a split."""
    numbers = range(params.anomalies_per_frame)
    if split == "test":
        yield from product([*params.generators, *params.unseen], numbers)
    else:
        for number in numbers:
            yield params.generators[(position + number) % len(params.generators)], number


def _lender(frame: Frame, by_group: list[Frame], rng: np.random.Generator) -> Frame:
    """Draw a frame of another group; where there is none another frame, else the frame itself."""
    first = bisect_left(by_group, frame.group, key=attrgetter("group"))
    last = bisect_right(by_group, frame.group, key=attrgetter("group"))
    if last - first == len(by_group):
        first = by_group.index(frame)
        last = first + 1
    others = len(by_group) - (last - first)
    if not others:
        return frame
    chosen = int(rng.integers(others))
    return by_group[chosen if chosen < first else chosen + last - first]


def make_here(
    jobs: list[Job], seed: int, patch: synthesis.Params, frames: Path, folder: Path
) -> Iterator[Frame | Failure | None]:
    """Make each image on the cores of this machine; yield it, or why its frame failed."""
    return parallel_map(
        lambda job: attempt(job.frame.image, lambda: make(job, seed, patch, frames, folder)), jobs
    )


def main() -> None:
    """Make every planned image."""
    params = load_section(Params, "synthesize_anomalies")
    split = load_section(splits.Params, "split")
    index = corrected(read_index(FRAMES / "index.csv"), CORRECTIONS)
    frames = assign_splits(with_times(index, FRAMES, split), split)
    jobs = plan(frames, params)
    key = "synthesize_anomalies.max_failed_share"
    quarantine = Quarantine(len(frames), params.max_failed_share, key)
    engine = make_here if params.engine == "local" else make_with_spark
    made, shows_nothing = [], Counter[str]()
    with replace_folder(ANOMALIES) as folder:
        found = engine(jobs, params.seed, params.patch, FRAMES, folder)
        for job, record in zip(jobs, found, strict=True):
            if isinstance(record, Failure):
                quarantine.add(record)
            elif record:
                made.append(record)
            else:
                shows_nothing[job.generator] += 1
        if not made:
            raise InputError(
                f"no frame of {FRAMES} can show {' or '.join(params.generators)}; "
                "are they all one colour?"
            )
        write_index(folder / "index.csv", made)
        quarantine.write(folder)
    left_out = ", ".join(f"{count} {kind}" for kind, count in sorted(shows_nothing.items()))
    print(
        f"{len(made)} anomalous images from {len(frames)} frames; "
        f"left out, for the frame is too flat or too small: {left_out or 'none'}"
        f"{quarantine.told(ANOMALIES)}"
    )


if __name__ == "__main__":
    run(main)
