"""What the README says exists, and its example of a detector works."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from dvc.utils.hydra import apply_overrides

from blackswan import detectors
from blackswan.detectors import gaussian_patches, simplenet
from blackswan.errors import InputError
from blackswan.params import InputPath, Section, load_section

README = (ROOT / "README.md").read_text()
PAGES = {path: path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
SAID = "\n".join(PAGES.values())


class Source(Section):
    path: InputPath


def block(language, containing):
    blocks = re.findall(rf"```{language}\n(.*?)```", SAID, re.DOTALL)
    return next(text for text in blocks if containing in text)


def anchors(text):
    titles = re.findall(r"^##+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-") for title in titles}


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


@pytest.mark.parametrize("module", [gaussian_patches, simplenet])
def test_the_block_of_a_further_detector_fits_its_params(module):
    name = module.__name__.rpartition(".")[2]
    settings = yaml.safe_load(block("yaml", f"{name}:"))["detectors"][name]
    assert module.Params(**settings).model_dump() == settings


def test_paths_that_the_readme_names_exist():
    links = [
        (page, *link)
        for page, text in PAGES.items()
        for link in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text)
    ]
    assert len(links) >= 50
    for page, path, anchor in links:
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), (page.name, path)
        if anchor:
            assert anchor in anchors(PAGES[target]), (page.name, path, anchor)
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
    for path in named:
        assert (ROOT / path).exists(), path


def test_a_source_path_quoted_as_the_readme_says_arrives_whole(tmp_path):
    given = re.findall(r"`(-S \"?source\.path=[^`]+)`", SAID)
    for number, option in enumerate(given):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(ROOT / "params.yaml", folder)
        shell = subprocess.run(
            ["/bin/sh", "-c", f"printf '%s\\n' {option}"],
            capture_output=True, text=True, check=True, env={"HOME": "/home/me"},
        )  # fmt: skip
        apply_overrides(folder / "params.yaml", [shell.stdout.splitlines()[1]])
        source = load_section(Source, "source", folder / "params.yaml")
        given[number] = str(source.path)
    assert given == ["/data/two words (1).mp4", "2024", "/home/me/Videos/swan.mp4"]


def test_make_targets_and_params_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = set(re.findall(r"`make ([a-z-]+)`|\$ make ([a-z-]+)", SAID))
    assert {"repro", "test"} <= {a or b for a, b in used} <= targets
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    keys = re.findall(r"-S '?([a-z_.]+)=", SAID)
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
    assert readme.leaderboard(readme.SUMMARY).splitlines() == [
        "| detector | image AUROC | false alarms | recall | unseen: blur | pixel AUROC | AUPRO"
        " | groups |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| padim | **1.00** [0.47, 1.00] | **0.50** (cannot say) | **1.00** | 0.62 | **0.90** | "
        " | 5, of pixels 4 |",
        "| vit | 0.75 | **0.50** | **1.00** |  | **0.90** | 0.80 | 2 |",
    ]


@pytest.fixture
def readme_tool(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "tools")
    import readme

    return readme


@pytest.mark.slow
@pytest.mark.parametrize("masks", [True, False])
def test_the_table_of_a_source_with_real_anomalies_has_no_unseen_kinds(
    tiny_project, mvtec_tree, readme_tool, monkeypatch, masks
):
    tree = tiny_project.root / "washer"
    shutil.copytree(mvtec_tree, tree)
    if not masks:
        shutil.rmtree(tree / "ground_truth")
    tiny_project.set(source__path=str(tree), evaluate__alpha=0.3)
    tiny_project.run_chain()
    tiny_project.run("fit_baseline")
    tiny_project.run("fit_detector", "padim")
    for name in ("padim", "median_residual"):
        tiny_project.run("evaluate_detector", name)
    tiny_project.run("compare")
    monkeypatch.chdir(tiny_project.root)
    shutil.copytree(ROOT / "benchmarks", "benchmarks")
    Path("README.md").write_text(README)
    readme_tool.main()
    table = Path("README.md").read_text().split("leaderboard -->\n")[1].splitlines()
    pixels = ["pixel AUROC", "AUPRO"] if masks else []
    head = ["detector", "image AUROC", "false alarms", "recall", *pixels, "groups"]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    assert cells[0] == head
    assert {row[0] for row in cells[2:4]} == {"padim", "median_residual"}
    assert all(len(row) == len(head) and all(row) for row in cells[2:4])
    verdict = r"(\*\*)?[0-9.]+(\*\*)? .*\((holds|cannot say|void.*)\)"
    assert all(re.fullmatch(verdict, row[2]) for row in cells[2:4])


def test_what_the_tables_of_the_readme_lack_is_said(tmp_path, readme_tool, monkeypatch):
    marks = "<!-- leaderboard --> with <!-- /leaderboard --> after; add both"
    with pytest.raises(InputError, match=f"README.md has no single {marks}"):
        readme_tool.with_tables(README.replace("<!-- leaderboard -->", ""))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="photos.json is missing; run `python benchmarks/dur"):
        readme_tool.with_tables(README)


def test_the_table_of_the_readme_is_that_of_the_metrics(monkeypatch):
    if not (ROOT / "metrics/summary.json").exists():
        pytest.skip("no metrics/summary.json")
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "tools")
    import readme

    assert readme.with_tables(README) == README
