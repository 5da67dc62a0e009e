"""data/labels.csv and its images -> data/dataset: Parquet shards of images, masks and labels.

Crops, resizes and encodes every image, and adds augmented copies to the train split alone.
`dvc repro build_dataset`
"""

from collections.abc import Iterator
from pathlib import Path

from blackswan.data import preprocessing
from blackswan.data.dataset import Row, write_shards
from blackswan.data.images import crop_box, read_image, scaled_size
from blackswan.data.preprocessing import Preprocessing, Step
from blackswan.data.quarantine import Failure, Quarantine, attempt
from blackswan.data.records import Frame, read_index
from blackswan.data.rows import File, Params, build_rows, check_one_size
from blackswan.data.splits import SPLITS
from blackswan.distributed import datasets
from blackswan.errors import run
from blackswan.outputs import replace_folder
from blackswan.parallel import parallel_map
from blackswan.params import load_section

DATA = Path("data")
FRAMES = Path("data/frames")
ANOMALIES = Path("data/anomalies")
LABEL_TABLE = Path("data/labels.csv")
DATASET = Path("data/dataset")


def sizes(records: list[Frame], params: Params) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield the (height, width) that each image which can be read has in the dataset."""

    def size(record: Frame) -> tuple[int, int]:
        height, width = read_image(DATA / record.image).shape[:2]
        _, _, *sides = crop_box(width, height, params.crop)
        shape = sides[1], sides[0]
        wanted = params.image_size
        return shape if wanted is None else scaled_size(wanted, shape, record.image)

    found = parallel_map(lambda record: attempt(record.image, lambda: size(record)), records)
    for record, shape in zip(records, found, strict=True):
        if not isinstance(shape, Failure):
            yield shape, record.image


def iterate_rows(records: list[Frame], params: Params, quarantine: Quarantine) -> Iterator[Row]:
    """Build the rows on all cores, a bounded number at a time."""

    def build(record: Frame) -> list[Row]:
        mask = File(str(DATA / record.mask)) if record.mask else None
        return build_rows(record, File(str(DATA / record.image)), mask, params)

    found = parallel_map(lambda record: attempt(record.image, lambda: build(record)), records)
    for rows in found:
        if isinstance(rows, Failure):
            quarantine.add(rows)
        else:
            yield from rows


def write_here(
    folder: Path,
    records: list[Frame],
    params: Params,
    done: Preprocessing,
    quarantine: Quarantine,
) -> dict[str, int]:
    """Write the shards of each split with the cores of this machine; return their rows."""
    if params.keeps_sizes:
        check_one_size(sizes(records, params))
    counts = {}
    for split in SPLITS:
        chosen = [record for record in records if record.split == split]
        rows = iterate_rows(chosen, params, quarantine)
        counts[split] = write_shards(folder, split, rows, params.rows_per_shard, done)
    return counts


def main() -> None:
    """Write the shards of each split, and what failed."""
    params = load_section(Params, "build_dataset")
    records = read_index(LABEL_TABLE)
    quarantine = Quarantine(len(records), params.max_failed_share, "build_dataset.max_failed_share")
    write = write_here if params.engine == "local" else datasets.write_with_spark
    with replace_folder(DATASET) as folder:
        step = Step(crop=params.crop, size=params.image_size)
        earlier = preprocessing.read(FRAMES / "preprocessing.json")
        done = earlier.model_copy(update={"steps": [*earlier.steps, step]})
        counts = write(folder, records, params, done, quarantine)
        quarantine.write(folder)
    rows = ", ".join(f"{split} {count}" for split, count in counts.items())
    print(f"{DATASET}: {rows}{quarantine.told(DATASET)}")


if __name__ == "__main__":
    run(main)
