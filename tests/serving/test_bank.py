"""Confirmed normal images join the bank of the detector that is served, as a version of its own."""

import numpy as np
import pytest
from conftest import Pictures
from tiny_weights import write_weights

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from blackswan.data.preprocessing import Preprocessing, Step
from blackswan.detectors import dino_memory, patchcore
from blackswan.detectors.interface import Resources
from blackswan.evaluation import model
from blackswan.evaluation.model import Facts, Scale
from blackswan.serving import bank
from blackswan.serving.detectors import Folder, load_detector
from blackswan.serving.limits import Limits
from blackswan.serving.scorer import Scorer
from blackswan.tracking.runs import dvc_hash

TINY = {"backbone": "tiny", "layers": [1, 2], "image_size": 56, "tiles": 1, "smoothing": 0.018}
PATCHCORE = patchcore.Params(
    **TINY, neighborhood=3, features=None, projection="sparse", coreset_ratio=0.2,
    bank_patches=None, neighbors=1, top_fraction=0.01, reweighting=1,
)  # fmt: skip
DINO = dino_memory.Params(
    **TINY, final_norm=False, fusion="features", method="memory", references=None, rotations=1,
    coreset_ratio=1.0, bank_patches=None, mask="none", variance=0.99, top_fraction=0.01,
)  # fmt: skip


@pytest.fixture(params=["patchcore", "dino_memory"])
def folder(request, tmp_path):
    """A model on eight pictures of noise, as evaluate_detector writes it."""
    rng = np.random.default_rng(0)
    images = Pictures(rng.integers(90, 110, (56, 56, 3), np.uint8) for _ in range(8))
    write_weights(tmp_path / "tiny", "dinov2")
    resources = Resources(validation=[], weights=tmp_path, checkpoints=tmp_path, seed=0)
    module = {"patchcore": patchcore, "dino_memory": dino_memory}[request.param]
    params = {"patchcore": PATCHCORE, "dino_memory": DINO}[request.param]
    facts = Facts(
        detector=request.param, alpha=0.2, threshold=0.5, threshold_from="8 images",
        heatmap=Scale(threshold=1, top=2), data_sha256="0" * 64,
        preprocessing=Preprocessing(steps=[Step(crop="none", size=56)]),
    )  # fmt: skip
    for name in ("fitted", "model"):
        (tmp_path / name).mkdir()
    module.fit(images, params, resources).save(tmp_path / "fitted")
    model.save(tmp_path / "model", tmp_path / "fitted", facts, [np.arange(8.0)])
    return tmp_path / "model"


def test_an_image_is_known_at_once_and_after_a_restart(folder, tmp_path):
    original, loaded = dvc_hash(folder), load_detector(Folder(str(folder)))
    odd = np.zeros((56, 56, 3), np.uint8)
    odd[::4] = 255
    before = loaded.model.score_prepared([odd]).image_scores[0]
    scorer = Scorer(loaded, Limits(), lambda _: None)
    try:
        for _ in range(2):  # the second changes nothing
            assert bank.add(scorer, odd, scorer.current, "f" * 64, tmp_path / "kept")
        grown = scorer.current
    finally:
        scorer.close()
    after = grown.model.score_prepared([odd]).image_scores[0]
    assert after < 0.5 * before
    assert loaded.model.score_prepared([odd]).image_scores[0] == before
    assert (grown.added, grown.base, loaded.hash) == (("f" * 64,), original, original)
    assert dvc_hash(folder) == original != grown.hash
    (version,) = (tmp_path / "kept/models" / original).iterdir()
    again = bank.latest(loaded, tmp_path / "kept")
    assert (again.hash, again.added, again.base) == (grown.hash, grown.added, original)
    assert again.hash == dvc_hash(version)
    assert again.model.score_prepared([odd]).image_scores[0] == after
    assert list((tmp_path / "kept/models").iterdir()) == [version.parent]
