"""What the README says exists, and its example of a detector works."""

import json
import re
import sys

import pytest
import yaml
from conftest import ROOT

from blackswan import detectors

README = (ROOT / "README.md").read_text()


def block(language, containing):
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(text for text in blocks if containing in text)


def test_the_detector_of_the_readme_is_one_file_and_one_block(tiny_project, tmp_path, monkeypatch):
    package = tmp_path / "detectors"
    package.mkdir()
    (package / "mean_embedding.py").write_text(block("python", "class Detector"))
    monkeypatch.setattr(detectors, "__path__", [*detectors.__path__, str(package)])
    monkeypatch.delitem(sys.modules, "blackswan.detectors.mean_embedding", raising=False)
    settings = yaml.safe_load(block("yaml", "mean_embedding:"))["detectors"]["mean_embedding"]
    tiny = {"backbone": "tiny", "layer": 1, "image_size": 56}
    assert settings.keys() == tiny.keys()
    tiny_project.set(detectors={"mean_embedding": tiny})
    before = tiny_project.outputs()

    assert "fitted on 19 normal images" in tiny_project.run("fit_detector", "mean_embedding")
    assert "image_auroc" in tiny_project.run("evaluate_detector", "mean_embedding")
    after = tiny_project.outputs()
    assert before.items() <= after.items()
    assert all("mean_embedding" in name for name in after.keys() - before.keys())
    assert "2 compared" in tiny_project.run("compare")
    leaderboard = (tiny_project.root / "metrics/leaderboard.csv").read_text()
    assert re.search(r"^main,\d,mean_embedding,", leaderboard, re.MULTILINE)


def test_paths_that_the_readme_names_exist():
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(linked) >= 3
    tree = re.search(r"## Annotated tree\n\n(.*?)\n\n##", README, re.DOTALL)[1]
    folders, named = [], []
    for line in tree.splitlines():
        indent, word = re.match(r"( +)(\S+)", line).groups()
        folders = folders[: len(indent) // 2 - 2]
        if "/" in word or "." in word:
            named.append("".join(folders) + word.rstrip(","))
        if word.endswith("/"):
            folders.append(word)
    assert len(named) >= 15
    for path in [*linked, *named]:
        assert (ROOT / path).exists(), path


def test_make_targets_and_params_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = set(re.findall(r"`make ([a-z-]+)`|\$ make ([a-z-]+)", README))
    assert {"repro", "test"} <= {a or b for a, b in used} <= targets
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    keys = re.findall(r"-S '?([a-z_.]+)=", README)
    assert len(keys) >= 5
    for key in keys:
        value = params
        for part in key.split("."):
            assert part in value, key
            value = value[part]


def test_the_table_of_the_readme_shows_the_groups_that_an_interval_rests_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "tools")
    import readme

    shared = {"recall": 1.0, "false_positive_rate": 0.5, "pixel_auroc": 0.9}
    padim = {"image_auroc": 1.0, "image_auroc_low": 0.47818, "image_auroc_high": 1.0}
    summary = {
        "vit": {"image_auroc": 0.75, "pixel_aupro": 0.8, "n_groups": 2, "n_pixel_groups": 2},
        "padim": {**padim, "n_groups": 5, "n_pixel_groups": 4, "verdict": "cannot say"},
    }
    unseen = {"vit": {}, "padim": {"blur": 0.625}}
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/summary.json").write_text(
        json.dumps({name: summary[name] | shared | {"unseen": unseen[name]} for name in summary})
    )
    assert readme.leaderboard().splitlines() == [
        "| detector | image AUROC | false alarms | recall | unseen: blur | pixel AUROC | AUPRO"
        " | groups |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| padim | **1.00** [0.47, 1.00] | **0.50** (cannot say) | **1.00** | 0.62 | **0.90** | "
        " | 5, of pixels 4 |",
        "| vit | 0.75 | **0.50** | **1.00** |  | **0.90** | 0.80 | 2 |",
    ]


def test_the_table_of_the_readme_is_that_of_the_metrics(monkeypatch):
    if not (ROOT / "metrics/summary.json").exists():
        pytest.skip("no metrics/summary.json")
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "tools")
    import readme

    assert readme.with_tables(README) == README
