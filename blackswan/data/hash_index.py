"""Find 64-bit hashes that are near one another without comparing each with each."""

import numpy as np

BITS = 64
INDEXED = 8  # bits: beyond this limit the parts are so short that most images share one
SLOWER = 8  # times: what picking out hashes costs against going through all of them


class HashIndex:
    """Hashes by their parts (multi-index hashing, Norouzi et al. 2012).

    Two hashes that differ in at most `limit` bits agree in one of `limit` + 1 parts at least, so
    only those that share a part are compared. Where most images share one, as the frames of a
    camera that stands still do, a row is compared with all that follow, which is quicker then.
    """

    def __init__(self, hashes: np.ndarray, limit: int) -> None:
        """Index `hashes` (N,) uint64 for distances up to `limit`; 12 bytes a part and image."""
        self._hashes, self._limit = hashes, limit
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        parts = limit + 1 if limit <= INDEXED else 0
        borders = np.linspace(0, BITS, parts + 1).astype(int)
        for begin, end in zip(borders, borders[1:], strict=False):
            mask = np.uint64((1 << int(end - begin)) - 1)
            values = (hashes >> np.uint64(begin)) & mask
            order = np.argsort(values, kind="stable").astype(np.int32)
            turn = np.empty_like(order)  # where each image stands in the order
            turn[order] = np.arange(len(order), dtype=np.int32)
            ends = np.searchsorted(values[order], values, "right").astype(np.int32)
            self._parts.append((order, turn, ends))

    def near(self, row: int) -> np.ndarray:
        """Return the positions after `row`, rising, of the hashes within the limit of its own."""
        sharing = [order[turn[row] + 1 : ends[row]] for order, turn, ends in self._parts]
        following = len(self._hashes) - row - 1
        if not sharing or sum(map(len, sharing)) > following // SLOWER:
            distances = np.bitwise_count(self._hashes[row + 1 :] ^ self._hashes[row])
            return np.flatnonzero(distances <= self._limit) + row + 1
        others = np.concatenate(sharing)
        distances = np.bitwise_count(self._hashes[others] ^ self._hashes[row])
        return np.unique(others[distances <= self._limit])
