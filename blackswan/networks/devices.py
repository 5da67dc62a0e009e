"""Where networks and large products run: on the GPU that accelerate finds, else on the CPU.

No param names a device. What a GPU computes agrees with the CPU to rounding; the bytes of a result
are those of the CPU alone.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from blackswan.errors import InputError, out_of_memory

SHARE = 4  # of the free memory of a GPU, what one block takes at most: 1 / SHARE
LARGER = 16  # times a block of the CPU, at most

Batch = TypeVar("Batch", bound=Sequence[Any] | torch.Tensor)
Result = TypeVar("Result")


@cache
def device() -> torch.device:
    """Return the GPU (CUDA, MPS) that accelerate chooses, once in one line, or the CPU."""
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    from accelerate import PartialState  # takes seconds to import, and without a GPU tells nothing

    found = PartialState().device
    # Else convolutions of CUDA keep 10 of float32's 23 bits, and scores differ by a thousandth.
    torch.backends.cudnn.allow_tf32 = False
    if found.type != "cpu":
        name = torch.cuda.get_device_name(found) if found.type == "cuda" else found.type
        tqdm.write(f"networks run on {found} ({name})", file=sys.stderr)
    return found


def in_halves(compute: Callable[[Batch], Result], batch: Batch, remedy: str) -> list[Result]:
    """Return what `compute` makes of a batch: whole, or of its halves where a GPU has no room.

    Raises InputError, which ends in `remedy`, where it has none for a single item.
    """
    try:
        return [compute(batch)]
    except RuntimeError as error:
        if device().type == "cpu" or not out_of_memory(error):
            raise
    # Out of the block above, which holds on to what was computed.
    if len(batch) == 1:
        raise InputError(
            f"a single image does not fit in the memory of the GPU; {remedy}, or leave it to the "
            "CPU by ACCELERATE_USE_CPU=true in the environment"
        )
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    half = len(batch) // 2
    halves: tuple[Any, Any] = batch[:half], batch[half:]
    return [result for part in halves for result in in_halves(compute, part, remedy)]


def in_parts(rows: torch.Tensor, size: int) -> Sequence[torch.Tensor]:
    """Return rows (N, ...) in parts of `size`; whole while they become a graph, of any N."""
    return [rows] if torch.compiler.is_exporting() else rows.split(size)


def rows_at_once(where: torch.device, row_bytes: int, rows: int) -> int:
    """Return how many rows to compute at once: `rows` on a CPU, on a GPU what its memory holds.

    `row_bytes` is what one of them takes while it is computed.
    """
    if where.type == "cpu":
        return rows
    return max(1, min(LARGER * rows, free_bytes(where) // SHARE // row_bytes))


def free_bytes(where: torch.device) -> int:
    """Return the bytes of the memory of a GPU that are free."""
    if where.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return torch.accelerator.get_memory_info(where)[0]
