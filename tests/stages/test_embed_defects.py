"""Regions of known defects with their embeddings, the same bytes twice, without Qdrant."""

from pathlib import Path

import numpy as np
import pytest

from blackswan.data.dataset import Split
from blackswan.data.images import decode_image, decode_mask
from blackswan.memory import embedder as embedders
from blackswan.memory.defects import identity, read_defects, read_origin
from blackswan.tracking.runs import dvc_hash

DEFECTS = Path("data/defects/defects.parquet")


@pytest.fixture
def sensitive(tiny_project):
    """A project whose detector finds regions on most images."""
    path = tiny_project.root / "data/detectors/padim/model.json"
    lines = path.read_text().splitlines()
    place = next(n for n, line in enumerate(lines) if '"heatmap"' in line) + 1
    assert '"threshold"' in lines[place]
    value = float(lines[place].split(":")[1].strip(" ,"))
    lines[place] = f'    "threshold": {0.3 * value},'
    path.write_text("\n".join(lines))
    return tiny_project


def read(project):
    return [defect for part in read_defects(project.root / DEFECTS) for defect in part]


def test_what_is_written(sensitive):
    root = sensitive.root
    said = sensitive.run("embed_defects")
    found = read(sensitive)
    assert said.startswith(f"{len(found)} defects of ")
    assert len(found) > 5
    rows = {row.path: row for row in Split(root / "data/dataset", "test")}
    embedder = embedders.load(root / "data/defects/embedder")
    for defect in found:
        row = rows[defect.image]
        assert (defect.type, defect.group, defect.synthetic) == (row.defect, row.group, True)
        assert defect.source == "clip.avi"
        box = defect.left, defect.top, defect.width, defect.height
        assert defect.id == identity(decode_image(row.image), box)
        mask = decode_mask(row.mask)
        rows_, columns = (slice(a, a + b) for a, b in
                          ((defect.top, defect.height), (defect.left, defect.width)))  # fmt: skip
        assert mask[rows_, columns].any()
        assert defect.embedding.shape == (embedder.dimensions,)
        assert np.linalg.norm(defect.embedding) == pytest.approx(1, abs=1e-5)
    origin = read_origin(root / DEFECTS)
    assert (origin.embedder, origin.detector) == (embedder.hash, "padim")
    assert origin.detector_hash == dvc_hash(root / "data/detectors/padim")


def test_the_same_bytes_twice(sensitive):
    sensitive.run("embed_defects")
    before = sensitive.outputs("data/defects")
    sensitive.run("embed_defects")
    assert sensitive.outputs("data/defects") == before


def test_one_region_of_each_image_and_real_ones_alone(sensitive):
    sensitive.set(embed_defects__regions=1)
    sensitive.run("embed_defects")
    found = read(sensitive)
    assert len(found) == len({defect.image for defect in found}) > 5
    sensitive.set(embed_defects__synthetic=False)
    assert sensitive.run("embed_defects") == "0 defects of 0 anomalous test images\n"
    assert read(sensitive) == []


def test_what_is_wrong_is_named(sensitive):
    sensitive.set(embed_defects__detector="patchcore")
    said = sensitive.refuse("embed_defects")
    assert "embed_defects.detector = patchcore was not evaluated; choose one of" in said
    assert "median_residual, padim" in said
    sensitive.set(embed_defects__detector="padim", embed_defects__backbone="none")
    assert "data/weights/none is missing" in sensitive.refuse("embed_defects")
    sensitive.set(embed_defects__backbone="tiny", embed_defects__pooling="max")
    assert "embed_defects.pooling = 'max'" in sensitive.refuse("embed_defects")
