"""What a backbone says is heard while a detector scores, and summed up in a few numbers."""

import numpy as np
import pytest
from conftest import make_model

from blackswan.drift import reference
from blackswan.drift.embedding import Components, colours, embed, overhearing
from blackswan.drift.reference import Reference
from blackswan.errors import InputError
from blackswan.evaluation import model
from blackswan.seeds import generator


@pytest.fixture(scope="module")
def padim(finished):
    """The folder and the model of a tiny PaDiM."""
    folder = finished.root / "data/detectors/padim"
    return folder, model.load(folder)


def pictures(count):
    return list(generator(0, "pictures").integers(0, 256, (count, 32, 32, 3)).astype(np.uint8))


def test_what_is_overheard_is_what_would_be_embedded(padim):
    detector, images = padim[1].detector, pictures(10)
    with overhearing(detector) as heard:
        detector.score(images)
    found = heard.embeddings(detector, images)
    assert found.shape == (10, sum(detector.backbone.channels))
    assert found == pytest.approx(embed(detector, images), rel=1e-4, abs=1e-5)
    assert "embed" not in vars(detector.backbone)
    assert heard.embeddings(detector, images[:9]) is None  # of other images, so not known


def test_a_detector_without_a_backbone_has_colours():
    detector, images = make_model().detector, pictures(2)
    with overhearing(detector) as heard:
        detector.score(images)
    found = heard.embeddings(detector, images)
    assert found[0] == pytest.approx(
        np.concatenate([images[0].mean((0, 1)), images[0].std((0, 1))]), rel=1e-5
    )
    assert (found == colours(images)).all()


def test_components_have_deviation_1_where_they_were_fitted(tmp_path):
    rng = generator(0, "components")
    values = rng.standard_normal((50, 2)) @ rng.standard_normal((2, 8)) + 3
    components = Components.fit(values)
    found = components(values)
    assert found.shape == (50, 2)  # there are no more
    assert np.cov(found.T, bias=True) == pytest.approx(np.eye(2), abs=1e-9)
    components.save(tmp_path / "components.safetensors")
    assert (Components.load(tmp_path / "components.safetensors")(values) == found).all()
    assert Components.fit(rng.standard_normal((50, 8)))(values).shape == (50, 5)
    assert Components.fit(np.ones((50, 8)))(values).shape == (50, 0)


def test_the_reference_is_what_set_the_threshold(padim, monkeypatch, tmp_path):
    folder, loaded = padim
    found = reference.build(folder, loaded)
    assert {*found.rows[:, 0]} <= {*loaded.normal_scores[0]}
    assert found.seconds >= 0.05  # a frame of the clip
    monkeypatch.setattr(reference, "FEWEST", 2)
    held_out = reference.build(folder, loaded)
    assert 2 * len(held_out.rows) in (len(found.rows), len(found.rows) - 1)
    assert held_out.rows.shape[1] == 1 + len(held_out.components.axes)
    reference.save(tmp_path, held_out)
    again = reference.load(tmp_path)
    assert again.rows == pytest.approx(held_out.rows, rel=1e-6)
    assert again.seconds == held_out.seconds
    assert (again.components.axes == held_out.components.axes).all()


def test_without_its_pipeline_a_detector_brings_its_scores_alone(padim, tmp_path):
    loaded = padim[1]
    found = reference.build(tmp_path / "data/detectors/padim", loaded)
    assert (found.rows[:, 0] == loaded.normal_scores[0]).all()
    assert (found.rows.shape[1], found.seconds, found.components) == (1, 0, None)
    moved = model.Model(loaded.detector, loaded.facts, [loaded.normal_scores[0] + 1])
    assert (reference.build(padim[0], moved).rows[:, 0] == moved.normal_scores[0]).all()
    reference.save(tmp_path, found)
    assert reference.load(tmp_path).components is None


def test_a_broken_reference_is_named(tmp_path):
    assert reference.load(tmp_path) is None
    reference.save(tmp_path, Reference(np.zeros((3, 1)), 0.0))
    (tmp_path / "reference/reference.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        InputError, match="reference cannot be read .*; delete it, `blackswan serve"
    ):
        reference.load(tmp_path)
