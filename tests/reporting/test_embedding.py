"""Pictures inside a page: what becomes of them, and of their sizes."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from blackswan.reporting.embedding import data_uris, level
from blackswan.seeds import generator


def decoded(uri):
    head, data = uri.split(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def write_noise(path, side):
    noise = generator(0, path.name).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.mark.parametrize(
    ("sizes", "budget", "most"),
    [
        ([10, 20, 30], 60, 30),
        ([10, 20, 30], 50, 20),
        ([10, 20, 30], 30, 10),
        ([10, 90, 90], 110, 50),
        ([], 10, 0),
    ],
)
def test_the_largest_are_cut_until_all_fit(sizes, budget, most):
    assert level(sizes, budget) == most
    assert sum(min(size, most) for size in sizes) <= budget


def test_a_chart_is_kept_exactly(tmp_path):
    chart = np.full((200, 300, 3), 255, np.uint8)
    chart[50:60, 20:280] = (0, 114, 178)
    Image.fromarray(chart).save(tmp_path / "chart.png")
    [uri] = data_uris([tmp_path / "chart.png"]).values()
    assert (np.asarray(decoded(uri)) == chart).all()


def test_photos_share_what_the_charts_leave(tmp_path):
    photos = [write_noise(tmp_path / f"{number}.png", 400) for number in range(3)]
    flat = tmp_path / "flat.png"
    Image.new("RGB", (400, 400)).save(flat)
    uris = data_uris([*photos, flat], budget=60_000)
    sizes = {path: len(base64.b64decode(uri.split(",")[1])) for path, uri in uris.items()}
    assert sum(sizes.values()) <= 60_000
    assert decoded(uris[flat]).size == (400, 400)
    assert all(side >= 80 for path in photos for side in decoded(uris[path]).size)
    assert uris == data_uris([*photos, flat], budget=60_000)
