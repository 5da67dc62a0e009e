"""A person reviews proposals in a table; what has a reviewer becomes a correction, nothing else."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from blackswan.data.corrections import LABELS, Correction
from blackswan.data.known import keep_corrections, kept_corrections, known_frames, known_photos
from blackswan.errors import InputError, shown
from blackswan.outputs import replace_file
from blackswan.proposals.questions import NEW, NONE
from blackswan.proposals.table import Proposal, read_proposals

COLUMNS = ["image", "label", "defect", "reviewer", "proposal"]
NEEDED = COLUMNS[:4]


@dataclass(frozen=True)
class Reviewed:
    """What a person decided of an image."""

    image: str
    label: str
    defect: str
    reviewer: str


@dataclass(frozen=True)
class Confirmed:
    """What became of a review."""

    corrections: int  # of frames
    others: int  # that the table had of other images
    unknown: int  # of images that are no frames
    open: int  # rows without a reviewer


def write_review(path: Path, proposals: Path) -> tuple[int, int]:
    """Add a row of each image that was proposed to the review; return how many, and how many new.

    What stands there stays. The row has the proposed label, none where it is disputed or the model
    abstained, and no reviewer.
    """
    rows = _read(path, COLUMNS) if path.exists() else []
    there = {row["image"] for row in rows}
    latest = {proposal.image: proposal for proposal in _some(proposals)}
    new = [_row(proposal) for image, proposal in latest.items() if image not in there]
    with replace_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        columns = [*rows[0]] if rows else COLUMNS  # and those that a person added
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, *new])
    return len(rows) + len(new), len(new)


def read_labels(path: Path) -> dict[str, str]:
    """Return the labels of a table with columns image and label, by image.

    Where it has a column reviewer, rows without one do not count.
    """
    found: dict[str, str] = {}
    for number, row in enumerate(_read(path, ["image", "label"]), 2):
        if "reviewer" in row and not row["reviewer"]:
            continue
        _check_label(path, number, row["label"])
        if row["image"] in found:
            raise InputError(
                f"line {number} of {path} names {shown(row['image'])} again; remove one"
            )
        found[row["image"]] = row["label"]
    return found


def confirm(review: Path, proposals: Path, out: Path, frames: Path, source: Path) -> Confirmed:
    """Write what has a reviewer to `out`, beside what stands there.

    An image is known by its bytes, as in `blackswan decisions export`. Raises InputError where the
    review is broken, or names an image that has no proposal.
    """
    rows = _read(review, NEEDED)
    decided = list(_decided(review, rows))
    sha256_of_image = _images(proposals)
    made = known_frames(frames)
    held = {image for image, _ in made}
    frames_of: dict[str, set[str]] = {}
    for image, sha256 in [*made, *(pair for pair in known_photos(source) if pair[0] in held)]:
        frames_of.setdefault(sha256, set()).add(image)
    before = {correction.image: correction for correction in kept_corrections(out)}
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    corrections, unknown = dict[str, Correction](), 0
    for number, one in decided:
        if one.image not in sha256_of_image:
            raise InputError(
                f"line {number} of {review} names {shown(one.image)}, of which {proposals} has no "
                "proposal; remove the line, or ask about the image"
            )
        images = frames_of.get(sha256_of_image[one.image], set())
        unknown += not images
        for image in images:
            new = Correction(image, one.label, one.defect, shown(one.reviewer), now)
            old = before.get(image)
            is_same = old and (old.label, old.defect, old.user) == (new.label, new.defect, new.user)
            corrections[image] = old if old and is_same else new
    others = keep_corrections(out, corrections.values(), held)
    return Confirmed(len(corrections), others, unknown, len(rows) - len(decided))


def _decided(path: Path, rows: Iterable[dict[str, str]]) -> Iterable[tuple[int, Reviewed]]:
    seen = set()
    for number, row in enumerate(rows, 2):
        if not row["reviewer"]:
            continue
        _check_label(path, number, row["label"])
        if row["label"] == "normal" and row["defect"]:
            raise InputError(f"line {number} of {path} is normal with a defect; clear one of both")
        if row["image"] in seen:
            raise InputError(
                f"line {number} of {path} names {shown(row['image'])} again; remove one"
            )
        seen.add(row["image"])
        yield number, Reviewed(*(row[name] for name in NEEDED))


def _check_label(path: Path, number: int, label: str) -> None:
    if label not in LABELS:
        raise InputError(
            f"line {number} of {path} has the label {shown(repr(label))}; write normal or anomalous"
        )


def _some(proposals: Path) -> list[Proposal]:
    rows = read_proposals(proposals)
    if not rows:
        raise InputError(f"{proposals} has no proposals; run `blackswan propose-labels ask` first")
    return rows


def _images(proposals: Path) -> dict[str, str]:
    """Return the sha256 of each image; raises InputError where two have one name."""
    found: dict[str, str] = {}
    for row in _some(proposals):
        if found.setdefault(row.image, row.sha256) != row.sha256:
            raise InputError(
                f"{proposals} has two different images of the name {shown(row.image)}; remove the "
                "lines of one"
            )
    return found


def _row(proposal: Proposal) -> dict[str, str]:
    is_open = proposal.status != "proposed"
    defect = "" if proposal.defect in (NONE, NEW) else proposal.defect
    said = " ".join(filter(None, [proposal.status, proposal.label, proposal.defect]))
    return {
        "image": proposal.image,
        "label": "" if is_open else proposal.label,
        "defect": "" if is_open else defect,
        "reviewer": "",
        "proposal": f"{said}: {proposal.reason} (detector: {proposal.verdict})",
    }


def _read(path: Path, columns: list[str]) -> list[dict[str, str]]:
    """Read a table that a person may have edited, with at least these columns."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; name a table with {','.join(columns)}") from None
    except (ValueError, csv.Error):
        raise InputError(f"{path} is no table in UTF-8; save it as CSV in UTF-8") from None
    head, rows = (rows[0], rows[1:]) if rows else ([], [])
    if not {*columns} <= {*head}:
        raise InputError(
            f"the first line of {path} must name {','.join(columns)}, with commas between; add it"
        )
    for number, row in enumerate(rows, 2):
        if len(row) != len(head):
            raise InputError(f"line {number} of {path} needs {len(head)} cells; mend it")
    return [{name: cell.strip() for name, cell in zip(head, row, strict=True)} for row in rows]
