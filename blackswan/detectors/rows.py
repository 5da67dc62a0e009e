"""Many rows of numbers, written once and read in any order: in memory, or on disk past a limit.

What is computed of them does not depend on where they lie, so the limit is one of memory alone.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from blackswan.errors import InputError

IN_MEMORY = 2_000_000_000  # bytes of rows; more lie on disk, on every machine alike
READ = 4096  # rows that are mapped at once: at most 64 kB of the file come along with each


class MemoryRows:
    """Rows (N, D), float32, in memory."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.shape, self._filled = rows, rows.shape, 0

    def append(self, block: Tensor) -> None:
        """Fill the next rows."""
        self.rows[self._filled : self._filled + len(block)] = block
        self._filled += len(block)

    def take(self, indices: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the rows of these indices, written to `out` where it is given."""
        return torch.index_select(self.rows, 0, indices, out=out)

    def blocks(self) -> Iterator[Tensor]:
        """Yield all rows in their order, some thousands at a time."""
        return iter(self.rows.split(READ))


class DiskRows:
    """Rows (N, D), float32, in a file without a name: it goes with the process, however that ends.

    The file is mapped anew for each block. Pages that were read stay in the system's cache but not
    in this process, whose memory is bounded by a block.
    """

    def __init__(
        self, count: int, columns: int, folder: Path, remedy: str, stores: int = 1
    ) -> None:
        """Make the file on the disk of `folder`; raises InputError where it has too little room."""
        self.shape = torch.Size((count, columns))
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = 4 * stores * count * columns, shutil.disk_usage(folder).free
        if needed > free:
            raise InputError(
                f"{stores * count} rows of {columns} numbers take {needed / 1e9:.1f} GB "
                f"of the disk of {folder}, which has {free / 1e9:.1f} GB left; "
                f"free some space, or {remedy}"
            )
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as this

    def append(self, block: Tensor) -> None:
        """Fill the next rows."""
        self._file.write(block.cpu().contiguous().numpy().data)

    def take(self, indices: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the rows of these indices, written to `out` where it is given."""
        out = torch.empty(len(indices), self.shape[1]) if out is None else out
        for part, target in zip(indices.split(READ), out.split(READ), strict=True):
            np.take(self._map(), part.numpy(), axis=0, out=target.numpy(), mode="clip")
        return out

    def blocks(self) -> Iterator[Tensor]:
        """Yield all rows in their order, some thousands at a time."""
        return map(self.take, torch.arange(self.shape[0]).split(READ))

    def _map(self) -> np.ndarray:
        self._file.flush()
        return np.memmap(self._file, np.float32, "r", shape=tuple(self.shape))


Rows = MemoryRows | DiskRows


def held(count: int, columns: int, stores: int = 1) -> int:
    """Return the bytes of rows (count, columns) that lie in memory: none of those on disk."""
    size = 4 * stores * count * columns
    return size if size <= IN_MEMORY else 0


def rows_for(count: int, columns: int, folder: Path, remedy: str, stores: int = 1) -> Rows:
    """Return empty rows (count, columns): in memory, or past IN_MEMORY on the disk of `folder`.

    It is one of as many `stores` as are filled together, which share the memory and the disk.
    Raises InputError where the disk has too little room; `remedy` ends its sentence.
    """
    if held(count, columns, stores):
        return MemoryRows(torch.empty(count, columns))
    return DiskRows(count, columns, folder, remedy, stores)
