"""One anomalous image of a frame, and its mask, as files; each engine calls the same function."""

from dataclasses import dataclass
from pathlib import Path

from blackswan.data import synthesis
from blackswan.data.images import read_image, write_png
from blackswan.data.records import Frame
from blackswan.seeds import generator


@dataclass(frozen=True)
class Job:
    """One anomalous image to make."""

    frame: Frame
    generator: synthesis.GeneratorName
    name: str  # of the new image, without suffix
    lender: Frame | None = None  # what poisson_blend takes patches of


def make(job: Job, seed: int, patch: synthesis.Params, frames: Path, folder: Path) -> Frame | None:
    """Write one anomalous image and its mask; None where the frame is too flat or too small.

    `frames` is what the paths of the frames begin at. Raises InputError where a frame is at fault.
    """
    lent = None
    if job.lender is not None:
        lent = synthesis.to_lend(read_image(frames / job.lender.image))
    made = synthesis.synthesize(
        read_image(frames / job.frame.image),  # not kept here: it may be large
        job.generator,
        patch,
        generator(seed, job.name),
        lent,
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
