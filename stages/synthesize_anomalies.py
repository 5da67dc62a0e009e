"""data/frames -> data/anomalies: normal frames with a patch that does not belong, and its mask.

Frames of train and validation get the anomaly the ViT learns from. Frames of the test split get it
too, and the unseen ones beside it, unless the source has real anomalies to be tested on. Each
image has its own seed, so neither the order nor the number of workers changes a byte. `dvc repro
synthesize_anomalies`
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from blackswan.data import splits, synthesis
from blackswan.data.images import read_image, write_png
from blackswan.data.records import Frame, read_index, write_index
from blackswan.data.sequences import with_times
from blackswan.data.splits import assign_splits
from blackswan.errors import InputError, run
from blackswan.outputs import replace_folder
from blackswan.parallel import parallel_map
from blackswan.params import Section, load_section
from blackswan.seeds import generator

FRAMES = Path("data/frames")
ANOMALIES = Path("data/anomalies")


class Params(Section):
    """Which anomalies are made, and how many."""

    seed: int = Field(ge=0)
    generator: synthesis.GeneratorName  # what train, validation and the main test table hold
    unseen: list[synthesis.GeneratorName]  # test only, in a table of their own
    anomalies_per_frame: int = Field(ge=1)  # images made from one frame, each with its own patches
    patch: synthesis.Params

    @model_validator(mode="after")
    def _unseen_is_unseen(self) -> "Params":
        if self.generator in self.unseen:
            raise ValueError(f"unseen lists {self.generator}, which training sees; take it out")
        if len(set(self.unseen)) < len(self.unseen):
            raise ValueError("unseen lists a generator twice; remove one")
        return self


@dataclass(frozen=True)
class Job:
    """One anomalous image to make."""

    frame: Frame
    generator: synthesis.GeneratorName
    name: str  # of the new image, without suffix


def plan(frames: list[Frame], params: Params) -> list[Job]:
    """List the images to make from frames that have their splits."""
    real_anomalies = any(frame.label == "anomalous" for frame in frames)
    jobs = []
    for frame in frames:
        if frame.label == "anomalous" or (frame.split == "test" and real_anomalies):
            continue
        kinds = [params.generator, *(params.unseen if frame.split == "test" else [])]
        stem = frame.image.removeprefix("images/").removesuffix(".png")
        jobs += [
            Job(frame, kind, f"{kind}/{stem}-{number}")
            for kind in kinds
            for number in range(params.anomalies_per_frame)
        ]
    return jobs


def make(job: Job, params: Params, folder: Path) -> Frame | None:
    """Write one anomalous image and its mask; None where the frame is too flat for it."""
    made = synthesis.synthesize(
        read_image(FRAMES / job.frame.image),  # not kept here: it may be large
        job.generator,
        params.patch,
        generator(params.seed, job.name),
    )
    if made is None:
        return None
    anomalous, mask = made
    record = Frame(
        f"images/{job.name}.png",
        job.frame.image,
        label="anomalous",
        defect=job.generator,
        mask=f"masks/{job.name}.png",
    )
    write_png(folder / record.image, anomalous)
    write_png(folder / record.mask, mask)
    return record


def main() -> None:
    """Make every planned image."""
    params = load_section(Params, "synthesize_anomalies")
    split = load_section(splits.Params, "split")
    frames = assign_splits(with_times(read_index(FRAMES / "index.csv"), FRAMES, split), split)
    jobs = plan(frames, params)
    with replace_folder(ANOMALIES) as folder:
        made = [
            record for record in parallel_map(lambda job: make(job, params, folder), jobs) if record
        ]
        if not made:
            raise InputError(
                f"no frame of {FRAMES} can show {params.generator}; are they all one colour?"
            )
        write_index(folder / "index.csv", made)
    print(
        f"{len(made)} anomalous images from {len(frames)} frames; "
        f"{len(jobs) - len(made)} left out as too flat"
    )


if __name__ == "__main__":
    run(main)
