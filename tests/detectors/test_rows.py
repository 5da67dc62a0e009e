import pytest
import torch

from blackswan.detectors import rows
from blackswan.detectors.rows import DiskRows, MemoryRows, held, rows_for
from blackswan.errors import InputError


@pytest.mark.parametrize("on_disk", [False, True])
def test_rows_come_back_as_they_were_written(on_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "READ", 7)
    monkeypatch.setattr(rows, "IN_MEMORY", 1199 if on_disk else 1200)
    values = torch.randn(60, 5)
    store = rows_for(60, 5, tmp_path, "lower it")
    assert type(store) is (DiskRows if on_disk else MemoryRows)
    assert held(60, 5) == (0 if on_disk else 1200)
    for block in values.split(13):
        store.append(block)
    assert [len(block) for block in store.blocks()] == [7] * 8 + [4]
    assert torch.equal(torch.cat(list(store.blocks())), values)
    assert type(rows_for(60, 5, tmp_path, "lower it", stores=2)) is DiskRows  # 2400 together
    indices = torch.randint(60, (40,))
    target = torch.empty(40, 5)
    assert store.take(indices, target) is target
    assert torch.equal(target, values[indices])
    assert torch.equal(store.take(indices), target)
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_a_disk_with_too_little_room_is_refused(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 5_000_000_000})()
    monkeypatch.setattr(rows.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match="600000000 rows of 3 numbers take 7.2 GB of the disk"):
        rows_for(300_000_000, 3, tmp_path, "lower image_size", stores=2)
    with pytest.raises(InputError) as caught:
        DiskRows(200_000_000, 152, tmp_path, "lower image_size")
    assert str(caught.value) == (
        f"200000000 rows of 152 numbers take 121.6 GB of the disk of {tmp_path}, which has 5.0 GB "
        "left; free some space, or lower image_size"
    )
