import numpy as np
import pytest
import torch
from pretend_gpu import GPU, pretend_gpu
from tiny_weights import write_weights

from blackswan.detectors.neighbors import BANK, QUERIES, nearest
from blackswan.errors import InputError
from blackswan.networks import devices
from blackswan.networks.backbones import load_backbone


def test_without_a_gpu_all_is_the_cpu_and_nothing_is_said(monkeypatch, capsys):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    devices.device.cache_clear()
    assert devices.device() == torch.device("cpu")
    assert devices.rows_at_once(torch.device("cpu"), 10**12, 7) == 7
    assert capsys.readouterr() == ("", "")
    devices.device.cache_clear()


def test_a_gpu_is_named_once(capsys):
    with pretend_gpu():
        assert [devices.device(), devices.device()] == [GPU, GPU]
    assert capsys.readouterr() == ("", "networks run on meta (meta)\n")


@pytest.fixture
def backbone(tmp_path):
    return load_backbone(write_weights(tmp_path, "dinov2"), [1], 56)


@pytest.mark.parametrize("tiles", [1, 2])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("MPS backend out of memory (allocated: 1 GB)"),
    ],
)
def test_a_full_gpu_gets_half_as_many_until_they_fit(backbone, monkeypatch, tiles, error):
    images = np.random.default_rng(0).integers(0, 256, (5, 120, 120, 3), dtype=np.uint8)
    backbone.tiles = tiles
    expected = backbone.embed(images)
    features, seen, room = backbone.features, [], [1]

    def crowded(pixels):
        seen.append(len(pixels))
        if len(pixels) > room[0]:
            raise error
        return features(pixels)

    monkeypatch.setattr(backbone, "features", crowded)
    with pytest.raises(RuntimeError, match="out of memory"):  # of a CPU, that is
        backbone.embed(images)
    seen.clear()
    monkeypatch.setattr(devices, "device", lambda: GPU)
    for found, layer in zip(backbone.embed(images), expected, strict=True):
        torch.testing.assert_close(found, layer, rtol=0, atol=1e-6)
    assert seen[:4] == ([5, 2, 1, 1] if tiles == 1 else [2, 1, 1, 2])
    room[0] = 0
    with pytest.raises(InputError, match=r"^a single image does not fit .* lower image_size .*CPU"):
        backbone.embed(images)


def test_what_is_no_lack_of_memory_stays_what_it_is():
    def fail(_):
        raise RuntimeError("shapes do not agree")

    with pytest.raises(RuntimeError, match="shapes do not agree"):
        devices.in_halves(fail, [1, 2], "")


@pytest.mark.parametrize(("free", "rows"), [(10**12, 16 * QUERIES), (4 * 4 * (BANK + 6) * 5, 5)])
def test_distances_are_cut_to_what_the_gpu_has_free(monkeypatch, free, rows):
    rng = torch.Generator().manual_seed(0)
    queries, bank = torch.randn(40, 3, generator=rng), torch.randn(90, 3, generator=rng)
    expected = nearest(queries, bank, 2)
    cuts = []
    split = torch.Tensor.split
    with pretend_gpu(free):
        there = queries.to(GPU)
        monkeypatch.setattr(
            torch.Tensor, "split", lambda self, size: cuts.append(size) or split(self, size)
        )
        distances, found = (part.cpu() for part in nearest(there, bank, 2))
    assert cuts == [rows]
    assert torch.equal(distances, expected[0])
    assert torch.equal(found, expected[1])
