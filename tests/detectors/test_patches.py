import numpy as np
import pytest

from blackswan.detectors import patches
from blackswan.detectors.patches import check_memory, normal_batches
from blackswan.errors import InputError


def test_images_come_in_batches():
    images = [np.full((2, 2, 3), value, np.uint8) for value in range(19)]
    batches = list(normal_batches(images, "padim"))
    assert [len(batch) for batch in batches] == [8, 8, 3]
    assert [image[0, 0, 0] for batch in batches for image in batch] == list(range(19))


def test_too_few_or_equal_images_are_refused():
    image = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(
        InputError, match="padim needs at least 2 normal images to learn from, there is 1"
    ):
        list(normal_batches([image], "padim"))
    with pytest.raises(InputError, match="all 12 normal images are equal"):
        list(normal_batches([image] * 12, "padim"))


def test_memory_is_checked_before_it_is_used(monkeypatch):
    available = type("Memory", (), {"available": 2_000_000_000})()
    monkeypatch.setattr(patches.psutil, "virtual_memory", lambda: available)
    check_memory(1_900_000_000, "padim", "lower features")
    with pytest.raises(
        InputError, match="padim needs 2.1 GB of memory and 2.0 GB are available; lower features"
    ):
        check_memory(2_100_000_000, "padim", "lower features")
    monkeypatch.setattr(patches, "container_memory", lambda: 1_000_000_000)
    with pytest.raises(InputError, match=r"needs 1.9 GB of memory and 1.0 GB are available"):
        check_memory(1_900_000_000, "padim", "lower features")


def test_a_container_has_what_its_limit_leaves(tmp_path):
    assert patches.container_memory(tmp_path) == float("inf")
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert patches.container_memory(tmp_path) == float("inf")
    (tmp_path / "memory.max").write_text("1000\n")
    assert patches.container_memory(tmp_path) == 700
