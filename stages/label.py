"""data/frames, data/anomalies -> data/labels.csv: what each image is and which split it belongs to.

What people decided of a frame, data/corrections.csv, outranks what the source says. An anomalous
copy lies in the split of its source frame. Nothing is written when the params ask more of the
normal images than there are, or when the leak check finds images that are nearly the same on both
sides of a split. `dvc repro label`
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from blackswan.data import leaks, splits
from blackswan.data.corrections import corrected
from blackswan.data.files import tell
from blackswan.data.records import Frame, read_index, write_index
from blackswan.data.sequences import series, with_times
from blackswan.data.splits import assign_splits
from blackswan.errors import run
from blackswan.evaluation import support
from blackswan.params import Section, load_section

DATA = Path("data")
FRAMES = Path("data/frames")
ANOMALIES = Path("data/anomalies")
CORRECTIONS = Path("data/corrections.csv")
LABELS = Path("data/labels.csv")


class Params(Section):
    """What may lie in two splits at once: nothing that is nearly the same."""

    leak_check: leaks.Params


def label_anomalies(anomalies: list[Frame], frames: dict[str, Frame]) -> list[Frame]:
    """Give each anomalous copy the group, the time and the split of its source frame."""
    return [
        replace(anomaly, timestamp_s=origin.timestamp_s, group=origin.group, split=origin.split)
        for anomaly in anomalies
        if (origin := frames.get(anomaly.source))
    ]


def relative_to_data(frame: Frame, folder: Path) -> Frame:
    """Return the record with its paths relative to data/ instead of to its own folder."""
    inside = folder.relative_to(DATA)
    return replace(
        frame, image=f"{inside}/{frame.image}", mask=f"{inside}/{frame.mask}" if frame.mask else ""
    )


def to_check(record: Frame, origin: Frame) -> leaks.Item:
    """Return what the leak check needs to know of an image made of `origin`, as it was read."""
    timed = origin.timestamp_s is not None
    photo = not timed and not origin.split
    return leaks.Item(
        DATA / record.image,
        record.split,
        clip=origin.source if timed else "",
        given=origin.split,
        photo=origin.image.removeprefix("images/").removesuffix(".png") if photo else "",
        series=series(origin),
        defective=origin.label == "anomalous",
    )


def main() -> None:
    """Label every image, check for leaks, write one table."""
    params = load_section(Params, "label")
    split = load_section(splits.Params, "split")
    index = corrected(read_index(FRAMES / "index.csv"), CORRECTIONS)
    index = with_times(index, FRAMES, split)
    frames = assign_splits(index, split)
    if lost := splits.defects_left_out(index, frames):
        tell(lost)
    anomalies = label_anomalies(
        read_index(ANOMALIES / "index.csv"), {frame.image: frame for frame in frames}
    )
    records = [relative_to_data(frame, FRAMES) for frame in frames]
    records += [relative_to_data(frame, ANOMALIES) for frame in anomalies]
    support.check(records, split.guard_seconds)
    origins = {frame.image: frame for frame in index}
    sources = [frame.image for frame in frames] + [anomaly.source for anomaly in anomalies]
    leaks.check(
        [
            to_check(record, origins[source])
            for record, source in zip(records, sources, strict=True)
        ],
        params.leak_check,
    )
    write_index(LABELS, records)
    counts = Counter(f"{record.split} {record.label}" for record in records)
    print("; ".join(f"{name} {count}" for name, count in sorted(counts.items())))


if __name__ == "__main__":
    run(main)
