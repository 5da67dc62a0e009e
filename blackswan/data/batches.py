"""Images a few at a time: all of one size, as they go through a network together."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def of_one_size(
    items: Iterable[Item], most: int, image: Callable[[Item], np.ndarray]
) -> Iterator[list[Item]]:
    """Yield up to `most` items, in their order, whose images (H, W, ...) have one height and width.

    `image` returns that of an item.
    """
    batch: list[Item] = []
    for item in items:
        if batch and (len(batch) == most or image(item).shape[:2] != image(batch[0]).shape[:2]):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
