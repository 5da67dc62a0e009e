"""Labels that people corrected: a table beside the frames, which outranks what the source says."""

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from blackswan.data.records import Frame
from blackswan.errors import InputError, shown
from blackswan.outputs import replace_file

LABELS = ("normal", "anomalous")


@dataclass(frozen=True)
class Correction:
    """What a person decided of one frame."""

    image: str  # as in the index of the frames
    label: str  # normal, anomalous
    defect: str  # "" where nobody named it
    user: str
    time: str  # of the decision, UTC


COLUMNS = [field.name for field in fields(Correction)]


def write_corrections(path: Path, corrections: Iterable[Correction]) -> None:
    """Write the table, sorted by image."""
    with replace_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(map(astuple, sorted(corrections, key=lambda each: each.image)))


def read_corrections(path: Path) -> list[Correction]:
    """Read the table, where there is one; raises InputError where a row of it is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except FileNotFoundError:  # DVC asks for it, whoever runs a stage alone need not have it
        return []
    except (ValueError, csv.Error):
        raise InputError(f"{path} is no table in UTF-8; export it again") from None
    if not rows or rows[0] != COLUMNS:
        raise InputError(f"the first line of {path} must be {','.join(COLUMNS)}; export it again")
    found: dict[str, Correction] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(COLUMNS) or row[1] not in LABELS or (row[1] == "normal" and row[2]):
            raise InputError(
                f"line {number} of {path} needs {','.join(COLUMNS)}, the label normal (without a "
                "defect) or anomalous; mend it"
            )
        if row[0] in found:
            raise InputError(f"line {number} of {path} names {shown(row[0])} again; remove one")
        found[row[0]] = Correction(*row)
    return list(found.values())


def corrected(frames: Iterable[Frame], path: Path) -> list[Frame]:
    """Return the frames with the labels that the table `path` gives some of them.

    What was drawn on an image does not outlive a change of its label. Where a label is confirmed
    and no defect named, the frame keeps its own. Raises InputError where the table names another
    image.
    """
    by_image = {correction.image: correction for correction in read_corrections(path)}
    found = [_relabelled(frame, by_image.pop(frame.image, None)) for frame in frames]
    if by_image:
        raise InputError(
            f"{path} names {shown(min(by_image))}, which is no image of data/frames; export it "
            "again by `blackswan decisions export`, or remove its line"
        )
    return found


def _relabelled(frame: Frame, correction: Correction | None) -> Frame:
    if correction is None:
        return frame
    if correction.label == (frame.label or "normal"):
        return replace(frame, defect=correction.defect or frame.defect)
    defect = correction.defect or ("anomaly" if correction.label == "anomalous" else "")
    return replace(frame, label=correction.label, defect=defect, mask="")
