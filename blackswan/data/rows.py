"""A labelled image becomes rows of the dataset: cropped, resized, encoded, with augmented copies.

The local engine and Spark call the same function for each image.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from blackswan.data import augmentation
from blackswan.data.augmentation import augment
from blackswan.data.dataset import LABELS, Row
from blackswan.data.images import (
    Crop,
    ImageSize,
    ShorterSide,
    crop_and_resize,
    encode_png,
    read_image,
    read_mask,
)
from blackswan.data.records import Frame
from blackswan.errors import InputError
from blackswan.params import Engine, Section
from blackswan.seeds import generator

SYNTHETIC = "anomalies/"  # of the label table: where images lie that a generator made


class Params(Section):
    """What a row of the dataset looks like, and what makes it."""

    seed: int = Field(ge=0)
    engine: Engine
    images: str | None  # with Spark: a URL of what lies in data/; null: data/
    max_failed_share: float = Field(ge=0, lt=1)  # of the images, which go to quarantine.csv
    crop: Crop
    image_size: ImageSize | None  # null keeps the size of the frames
    rows_per_shard: int = Field(ge=1)
    augment: augmentation.Params

    @model_validator(mode="after")
    def _url_is_read(self) -> "Params":
        if self.images is not None and self.engine != "spark":
            raise ValueError("images is read by engine: spark alone; set it to null")
        return self

    @property
    def keeps_sizes(self) -> bool:
        """Whether images that differ in size would stay so, where all have to have one."""
        return self.image_size is None or isinstance(self.image_size, ShorterSide)

    def versions(self, split: str) -> int:
        """Return how many rows an image of a split becomes."""
        return 1 + (self.augment.copies if split == "train" else 0)


@dataclass(frozen=True)
class File:
    """A file that a row is made of; `data` are its bytes where they were read already."""

    name: str  # path or URL
    data: bytes | None = None

    @property
    def content(self) -> Path | io.BytesIO:
        """What decoders read."""
        return Path(self.name) if self.data is None else io.BytesIO(self.data)


def build_rows(record: Frame, image: File, mask: File | None, params: Params) -> list[Row]:
    """Return the row of one labelled image, and its augmented copies if it is a train image.

    Raises InputError where the image or its mask is at fault.
    """
    pixels = read_image(image.content, image.name)
    region = read_mask(mask.content, pixels.shape[:2], name=mask.name) if mask else None
    pixels = crop_and_resize(pixels, params.crop, params.image_size, name=record.image)
    if region is not None:
        region = crop_and_resize(region, params.crop, params.image_size, mask=True)
        if not region.any():
            raise InputError(
                f"build_dataset.crop leaves nothing of the anomaly of {record.image}; "
                "crop in extract_frames instead"
            )

    versions = [(record.image, pixels, region)]
    for copy in range(1, params.versions(record.split)):
        name = f"{record.image.removesuffix('.png')}-augmented-{copy}.png"
        changed = augment(pixels, region, params.augment, generator(params.seed, name))
        versions.append((name, *changed))
    return [
        Row(
            path=name,
            image=encode_png(pixels),
            mask=None if region is None else encode_png(region),
            label=LABELS.index(record.label),
            defect=record.defect,
            synthetic=record.image.startswith(SYNTHETIC),
            augmented=name != record.image,
            group=record.group,
            timestamp_s=record.timestamp_s,
        )
        for name, pixels, region in versions
    ]


def check_one_size(sizes: Iterable[tuple[tuple[int, int], str]]) -> None:
    """Raise InputError unless all (height, width) of named images are equal."""
    images = dict(sizes)
    if len(images) > 1:
        one, other, *_ = images.values()
        canvas = [max(sides) for sides in zip(*images, strict=True)]
        raise InputError(
            f"{one} and {other} differ in size; set build_dataset.image_size to a size, or to "
            f"{{within: {canvas}}} or smaller, which keeps every aspect"
        )
