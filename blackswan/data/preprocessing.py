"""What happens to an image between its file and a detector: the same for training and for use."""

from pathlib import Path

import numpy as np
from pydantic import Field

from blackswan.data.images import Crop, ImageSize, crop_and_resize
from blackswan.outputs import write_json
from blackswan.params import Section, load_section


class Step(Section):
    """One crop and one change of size."""

    crop: Crop
    size: ImageSize | None  # null keeps the pixels


class Preprocessing(Section):
    """The steps of extract_frames and build_dataset, in their order."""

    steps: list[Step]
    bit_depth: int = Field(default=16, ge=8, le=16)  # of files of 16 bits, which are read as 8

    def __call__(self, image: np.ndarray, *, mask: bool = False) -> np.ndarray:
        """Return the RGB image, uint8 (H, W, 3), or the mask, bool (H, W), a detector sees."""
        for step in self.steps:
            image = crop_and_resize(image, step.crop, step.size, mask=mask)
        return image


def write(path: Path, preprocessing: Preprocessing) -> None:
    """Write the steps as JSON."""
    write_json(path, preprocessing.model_dump())


def read(path: Path) -> Preprocessing:
    """Read what `write` wrote; raises InputError where it is missing or something else."""
    return load_section(Preprocessing, "", path)
