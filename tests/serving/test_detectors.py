"""A detector comes from a folder or a revision, is known by DVC's hash, and is swapped."""

import shutil
import subprocess

import pytest
import yaml
from conftest import make_model
from dvc.cli import main

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from blackswan.errors import InputError
from blackswan.evaluation.model import save
from blackswan.serving import score as by_python
from blackswan.serving.detectors import Folder, load_detector, open_source
from blackswan.serving.limits import Limits
from blackswan.serving.reload import Reload
from blackswan.serving.scorer import Scorer
from blackswan.tracking.runs import dvc_hash


def write(folder, threshold=5.0):
    """Write the model of the tests as `dvc repro` writes one."""
    model = make_model()
    fitted = folder.parent / "fitted"
    shutil.rmtree(folder, ignore_errors=True)
    for each in (folder, fitted):
        each.mkdir(parents=True, exist_ok=True)
    model.detector.save(fitted)
    facts = model.facts.model_copy(update={"threshold": threshold})
    save(folder, fitted, facts, model.normal_scores)
    shutil.rmtree(fitted)
    return folder


def lock(root, folder, md5):
    out = {"path": folder.relative_to(root).as_posix(), "md5": md5}
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"evaluate": {"outs": [out]}}}))


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "data/detectors/tiny")


def test_a_folder_is_known_by_the_hash_of_dvc(tmp_path, folder):
    found = load_detector(Folder(str(folder)))
    assert (found.hash, found.version, found.name) == (dvc_hash(folder), None, "median_residual")
    assert found.hash.endswith(".dir")
    lock(tmp_path, folder, found.hash)
    assert load_detector(Folder(str(folder))).hash == found.hash
    lock(tmp_path, folder, "0" * 32 + ".dir")
    with pytest.raises(InputError, match=r"has the hash .*, .*dvc\.lock lists 0000"):
        load_detector(Folder(str(folder)))
    (tmp_path / "dvc.lock").write_text("[")
    with pytest.raises(InputError, match=r"dvc\.lock cannot be read"):
        load_detector(Folder(str(folder)))


def test_what_is_no_detector_is_named(tmp_path, folder):
    with pytest.raises(InputError, match="none is no folder; name one such as"):
        load_detector(Folder(str(tmp_path / "none")))
    (folder / "model.json").unlink()
    with pytest.raises(InputError, match=r"it has no model\.json"):
        load_detector(Folder(str(folder)))
    with pytest.raises(InputError, match="is a URI of MLflow, which has no revision"):
        open_source("models:/a@b", "main")
    with pytest.raises(InputError, match="--rev none is no revision here"):
        load_detector(open_source("data/detectors/tiny", "none"))


def test_a_revision_comes_from_the_remote(tmp_path, folder, monkeypatch):
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.chdir(tmp_path)

    def git(*arguments):
        subprocess.run(["git", *arguments], check=True, capture_output=True)

    def dvc(*arguments):
        assert main([*arguments, "-q"]) == 0

    first = dvc_hash(folder)
    git("init", "-q")
    git("config", "user.email", "a@b")
    git("config", "user.name", "a")
    dvc("init")
    dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    dvc("add", str(folder))
    dvc("push")
    git("add", "-A")
    git("commit", "-qm", "first")
    git("tag", "v1")
    write(folder, threshold=6.0)
    dvc("add", str(folder))
    git("commit", "-qam", "second")
    shutil.rmtree(tmp_path / ".dvc/cache")
    found = load_detector(open_source("data/detectors/tiny", "v1"))
    assert (found.hash, found.model.facts.threshold) == (first, 5.0)
    assert len(found.version) == 40
    with pytest.raises(InputError, match="revision v1 has no data/detectors/none"):
        load_detector(open_source("data/detectors/none", "v1"))
    with pytest.raises(InputError, match="HEAD"):  # which was never pushed
        load_detector(open_source("data/detectors/tiny", "HEAD"))


def test_a_new_version_takes_the_place_of_the_old(folder, caplog):
    source = Folder(str(folder))
    scorer = Scorer(load_detector(source), Limits(), lambda _: None)
    try:
        watch = Reload(source, scorer, source.stamp(), 60)
        old = scorer.current
        assert not watch.look()
        write(folder, threshold=6.5)
        assert watch.look()
        assert scorer.current.model.facts.threshold == 6.5
        assert scorer.current.hash == dvc_hash(folder) != old.hash
        assert not watch.look()
        new = scorer.current
        (folder / "model.json").write_text("{}")
        assert not watch.look()
        assert scorer.current is new
        assert "the detector is not replaced: " in caplog.text
        write(folder, threshold=7.5)
        assert watch.look()
        shutil.rmtree(folder)
        assert not watch.look()
        assert scorer.current.model.facts.threshold == 7.5
    finally:
        scorer.close()


def test_the_same_in_python(folder, photos, monkeypatch):
    by_python._loaded.cache_clear()
    monkeypatch.delenv(by_python.DETECTOR, raising=False)
    with pytest.raises(InputError, match="BLACKSWAN_DETECTOR names no detector"):
        by_python.score(photos / "1/3.png")
    monkeypatch.setenv(by_python.DETECTOR, str(folder))
    is_anomalous, confidence = by_python.score(str(photos / "1/3.png"))
    assert is_anomalous is True
    assert confidence > 0.5
    assert by_python.score(photos / "0/0.png")[0] is False
    with pytest.raises(InputError, match=r"none\.png does not exist"):
        by_python.score(photos / "none.png")
