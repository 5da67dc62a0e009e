"""How many bits the camera of a source used, whose files have 16, by the values of all of them.

A few hot pixels lie above what all the others need. They decide nothing: at their scale the rest
would be dark.
"""

from dataclasses import dataclass
from pathlib import Path

from blackswan.data.decoding import HOT_OF_FILE, count_values
from blackswan.data.files import tell
from blackswan.errors import InputError
from blackswan.parallel import parallel_map

BIT_DEPTHS = (8, 10, 12, 14, 16)
HOT = 1e-4  # share of the values of a source, at most, that are clipped


@dataclass(frozen=True)
class _Values:
    """What one file holds."""

    count: int
    largest: int
    beyond: dict[int, int]  # how many values have more bits, by bit depth


def settle(source: Path, deep: list[Path], chosen: int | None) -> int:
    """Return the `chosen` bit depth of the files of 16 bits, or the least that holds nearly all.

    Says on stderr what was found and what is clipped. Files that cannot be read are left to who
    reads them.
    """
    if chosen == 16:
        return chosen
    found = [values for values in parallel_map(_values, deep) if values is not None]
    largest = max((values.largest for values in found), default=0)
    if not largest:
        return chosen or 16
    count, whole = sum(values.count for values in found), _needed(largest)
    depth = chosen or next(depth for depth in BIT_DEPTHS if _is_little_beyond(found, depth))
    hot = sum(values.beyond[depth] for values in found)
    files = sum(values.beyond[depth] > 0 for values in found)
    beyond = f"{hot} of their {count} values, in {files} files, lie above {(1 << depth) - 1}"
    if chosen and _are_hot(found, depth) and hot:
        tell(f"{source}: {beyond} and are clipped (extract_frames.bit_depth is {depth})")
    elif not chosen:
        said = f"{source}: {len(found)} files of 16 bits hold values up to {largest}"
        tell(
            f"{said}, but only {beyond}: taken for hot pixels, these are clipped, and the files "
            f"are read as {depth} bits; extract_frames.bit_depth={whole} keeps them"
            if hot
            else f"{said} and are read as {depth} bits; extract_frames.bit_depth sets another"
        )
    return depth


def _values(path: Path) -> _Values | None:
    try:
        counts, largest = count_values(path)
    except InputError:
        return None
    # A bin holds 256 values.
    beyond = {depth: int(counts[1 << (depth - 8) :].sum()) for depth in BIT_DEPTHS}
    return _Values(int(counts.sum()), largest, beyond)


def _needed(largest: int) -> int:
    return next(depth for depth in BIT_DEPTHS if largest < 1 << depth)


def _is_little_beyond(found: list[_Values], depth: int) -> bool:
    """Say whether what lies above may be hot pixels: little of the source, and of each file."""
    count = sum(values.count for values in found)
    hot = sum(values.beyond[depth] for values in found)
    return hot <= HOT * count and _are_hot(found, depth)


def _are_hot(found: list[_Values], depth: int) -> bool:
    return all(values.beyond[depth] <= HOT_OF_FILE * values.count for values in found)
