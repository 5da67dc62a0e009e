import numpy as np

from blackswan.data.batches import of_one_size


def test_batches_keep_the_order_and_end_where_the_size_changes():
    widths = [4, 4, 4, 5, 4, 4]
    items = [(name, np.zeros((2, width, 3))) for name, width in zip("abcdef", widths, strict=True)]
    batches = of_one_size(iter(items), 2, lambda item: item[1])
    assert ["".join(name for name, _ in batch) for batch in batches] == ["ab", "c", "d", "ef"]


def test_of_nothing_there_is_no_batch():
    assert list(of_one_size([], 2, lambda image: image)) == []
