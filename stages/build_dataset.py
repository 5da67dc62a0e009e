"""data/labels.csv and its images -> data/dataset: Parquet shards of images, masks and labels.

Crops, resizes and encodes every image, and adds augmented copies to the train split alone.
`dvc repro build_dataset`
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from blackswan.data import augmentation, preprocessing
from blackswan.data.augmentation import augment
from blackswan.data.dataset import LABELS, Row, write_shards
from blackswan.data.images import (
    Crop,
    ImageSize,
    ShorterSide,
    crop_and_resize,
    crop_box,
    encode_png,
    read_image,
    read_mask,
    scaled_size,
)
from blackswan.data.preprocessing import Step
from blackswan.data.records import Frame, read_index
from blackswan.data.splits import SPLITS
from blackswan.errors import InputError, run
from blackswan.outputs import replace_folder
from blackswan.parallel import parallel_map
from blackswan.params import Section, load_section
from blackswan.seeds import generator

DATA = Path("data")
FRAMES = Path("data/frames")
ANOMALIES = Path("data/anomalies")
LABEL_TABLE = Path("data/labels.csv")
DATASET = Path("data/dataset")


class Params(Section):
    """What a row of the dataset looks like."""

    seed: int = Field(ge=0)
    crop: Crop
    image_size: ImageSize | None  # null keeps the size of the frames
    rows_per_shard: int = Field(ge=1)
    augment: augmentation.Params


def check_sizes(records: list[Frame], params: Params) -> None:
    """Raise InputError where the images would not be of one size, and no canvas is named."""

    def size(record: Frame) -> tuple[int, int]:
        height, width = read_image(DATA / record.image).shape[:2]
        _, _, *sides = crop_box(width, height, params.crop)
        shape = sides[1], sides[0]
        wanted = params.image_size
        return shape if wanted is None else scaled_size(wanted, shape, record.image)

    sizes = parallel_map(size, records)
    images = {size: record.image for size, record in zip(sizes, records, strict=True)}
    if len(images) > 1:
        one, other, *_ = images.values()
        canvas = [max(sides) for sides in zip(*images, strict=True)]
        raise InputError(
            f"{one} and {other} differ in size; set build_dataset.image_size to a size, or to "
            f"{{within: {canvas}}} or smaller, which keeps every aspect"
        )


def build_rows(record: Frame, params: Params) -> list[Row]:
    """Return the row of one labelled image, and its augmented copies if it is a train image."""
    image = read_image(DATA / record.image)
    mask = read_mask(DATA / record.mask, image.shape[:2]) if record.mask else None
    image = crop_and_resize(image, params.crop, params.image_size, name=record.image)
    if mask is not None:
        mask = crop_and_resize(mask, params.crop, params.image_size, mask=True)
        if not mask.any():
            raise InputError(
                f"build_dataset.crop leaves nothing of the anomaly of {record.image}; "
                "crop in extract_frames instead"
            )

    copies = params.augment.copies if record.split == "train" else 0
    versions = [(record.image, image, mask)]
    for copy in range(1, copies + 1):
        name = f"{record.image.removesuffix('.png')}-augmented-{copy}.png"
        versions.append((name, *augment(image, mask, params.augment, generator(params.seed, name))))
    return [
        Row(
            path=name,
            image=encode_png(pixels),
            mask=None if region is None else encode_png(region),
            label=LABELS.index(record.label),
            defect=record.defect,
            synthetic=(DATA / record.image).is_relative_to(ANOMALIES),
            augmented=name != record.image,
            group=record.group,
            timestamp_s=record.timestamp_s,
        )
        for name, pixels, region in versions
    ]


def iterate_rows(records: list[Frame], params: Params) -> Iterator[Row]:
    """Build the rows on all cores, a bounded number at a time."""
    for rows in parallel_map(lambda record: build_rows(record, params), records):
        yield from rows


def main() -> None:
    """Write the shards of each split."""
    params = load_section(Params, "build_dataset")
    records = read_index(LABEL_TABLE)
    if params.image_size is None or isinstance(params.image_size, ShorterSide):
        check_sizes(records, params)
    counts = {}
    with replace_folder(DATASET) as folder:
        step = Step(crop=params.crop, size=params.image_size)
        earlier = preprocessing.read(FRAMES / "preprocessing.json")
        done = earlier.model_copy(update={"steps": [*earlier.steps, step]})
        for split in SPLITS:
            chosen = [record for record in records if record.split == split]
            counts[split] = len(chosen) * (1 + params.augment.copies if split == "train" else 1)
            write_shards(
                folder,
                split,
                iterate_rows(chosen, params),
                counts[split],
                params.rows_per_shard,
                done,
            )
    print(f"{DATASET}: " + ", ".join(f"{split} {count}" for split, count in counts.items()))


if __name__ == "__main__":
    run(main)
