"""What happens to an image between its file and a detector: the same for training and for use."""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from blackswan.data.images import Crop, ImageSize, crop_and_resize
from blackswan.data.pose import find_pose, lay
from blackswan.errors import InputError
from blackswan.outputs import write_json
from blackswan.params import Section, load_section

PoseChoice = Literal["none", "upright"]  # upright: pose.py lays a long part alike in all images


class Step(Section):
    """One crop and one change of size."""

    crop: Crop
    size: ImageSize | None  # null keeps the pixels


class Preprocessing(Section):
    """The pose, and the steps of extract_frames and build_dataset in their order."""

    steps: list[Step]
    bit_depth: int = Field(default=16, ge=8, le=16)  # of files of 16 bits, which are read as 8
    pose: PoseChoice = "none"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the RGB image, uint8 (H, W, 3), that a detector sees.

        Where no pose can be told the part stays as it lies, which is not as the others do.
        """
        return self.apply(image, self.find_pose(image))

    def find_pose(self, image: np.ndarray, needed_by: str = "") -> np.ndarray | None:
        """Return how the RGB image is to be moved before all steps, if it is.

        Raises InputError where the image `needed_by`, which is to be learnt from, has no pose.
        """
        pose = find_pose(image) if self.pose == "upright" else None
        if self.pose == "upright" and pose is None and needed_by:
            raise InputError(
                f"on {needed_by} no part stands out from a plain background, or none that is "
                "longer than wide; remove the image, or set extract_frames.pose: none"
            )
        return pose

    def apply(
        self,
        image: np.ndarray,
        pose: np.ndarray | None,
        *,
        mask: bool = False,
        name: str = "the image",
    ) -> np.ndarray:
        """Move, crop and scale an image, uint8 (H, W, 3), or its mask, bool (H, W), alike."""
        if pose is not None:
            image = lay(image, pose, mask=mask)
        for step in self.steps:
            image = crop_and_resize(image, step.crop, step.size, mask=mask, name=name)
        return image


def write(path: Path, preprocessing: Preprocessing) -> None:
    """Write the steps as JSON."""
    write_json(path, preprocessing.model_dump())


def read(path: Path) -> Preprocessing:
    """Read what `write` wrote; raises InputError where it is missing or something else."""
    return load_section(Preprocessing, "", path)
