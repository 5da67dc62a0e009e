"""The furniture: versions, ignored files, the Makefile and the remote say what is true."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(requirement.name): requirement
    for requirement in map(Requirement, (ROOT / "constraints.txt").read_text().splitlines())
}
DECLARED = [
    Requirement(text)
    for text in [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])]
    if not text.startswith("blackswan")
]


def pinned(requirement):
    return next(iter(PINS[canonicalize_name(requirement.name)].specifier))


@pytest.mark.parametrize("requirement", DECLARED, ids=lambda requirement: requirement.name)
def test_the_pin_lies_in_the_declared_range(requirement):
    pin = pinned(requirement)
    assert pin.operator == "=="
    assert Version(pin.version) in requirement.specifier
    assert Version(pin.version).local is None  # 2.13.0, not the 2.13.0+cpu of one index


def test_every_package_that_comes_along_is_pinned():
    missing, seen, queue = set(), set(), list(DECLARED)
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        wanted = (name, *sorted(requirement.extras))
        # What torch brings depends on its build: none for a CPU, gigabytes for a GPU.
        if wanted in seen or name in ("torch", "setuptools"):
            continue
        seen.add(wanted)
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue  # an extra that is not installed here
        if name not in PINS:
            missing.add(name)
        for child in map(Requirement, installed.requires or []):
            extras = requirement.extras or {""}
            if not child.marker or any(child.marker.evaluate({"extra": e}) for e in extras):
                queue.append(child)
    assert missing == set()


def test_constraints_name_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_the_azure_remote_is_the_default_and_holds_no_secret():
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc" / "config")
    assert "remote" not in config["core"]  # a default that does not answer stops `dvc exp run`
    assert config["core"]["analytics"] == "false"
    assert {key: sorted(config[key]) for key in config if "remote" in key} == {
        "'remote \"azure\"'": ["account_name", "url"]
    }
    assert config["'remote \"azure\"'"]["url"] == "azure://blackswan/dvc"


def ignored(path):
    command = ["git", "check-ignore", "--quiet", "--no-index", path]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    "path",
    [
        ".dvc/config.local", ".dvc/cache/files", ".dvc/tmp/lock", ".venv/bin/python",
        ".azurite/data/x", "data/frames/0.png", "data/labels.csv", "data/.frames.partial/0.png",
        "data/sample.mp4", "data/raw/clip.mp4", "data/raw/line/2/part.png",
        "dvclive/metrics.json", "blackswan/__pycache__/x.pyc",
    ],
)  # fmt: skip
def test_git_does_not_see(path):
    assert ignored(path)


@pytest.mark.parametrize(
    "path",
    [
        "data/raw/video.mp4.dvc", "data/raw/line/2/part.png.dvc", "data/raw/line/.gitignore",
        ".dvc/config", "metrics/summary.json", "dvc.lock", "data/corrections.csv",
        "data/ignore.json",
    ],
)  # fmt: skip
def test_git_sees(path):
    assert not ignored(path)


def test_git_changes_no_bytes_of_a_clone_on_windows(tmp_path):
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    (tmp_path / "dvc.yaml").write_bytes(b"stages:\n")
    (tmp_path / "notes.txt").write_bytes(b"a\r\nb\n")

    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    git("config", "core.autocrlf", "true")
    git("add", "-A")
    for name in ("dvc.yaml", "notes.txt"):
        (tmp_path / name).unlink()
    git("checkout", "--", ".")
    assert (tmp_path / "dvc.yaml").read_bytes() == b"stages:\n"
    assert (tmp_path / "notes.txt").read_bytes() == b"a\r\nb\n"


@pytest.mark.parametrize(
    "left",
    [
        "data/scores/.padim.partial/maps.parquet", "data/scores/.padim.old/maps.parquet",
        "data/dataset/.train.partial/train-00000.parquet", "data/models/.vit.old/detector.json",
        "metrics/curves/.vit.partial/roc.csv", "metrics/.summary.json.partial",
        "metrics/detectors/.vit.json.partial", "data/frames/.qB3-x_Zk.tmp",
    ],
)  # fmt: skip
def test_what_a_kill_leaves_is_no_data(tmp_path, monkeypatch, left):
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    assert ignored(left)
    root = tmp_path / "project"
    real = root / Path(left).parts[0] / "real.json"
    for path in (root / left, real):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    shutil.copy(ROOT / ".dvcignore", root)
    with Repo.init(str(root), no_scm=True) as repo:
        assert list(repo.dvcignore.find(repo.fs, str(real.parent))) == [str(real)]
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^clean:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
    (root / "Makefile").write_text(f"clean:\n{recipe}")
    subprocess.run(["make", "--silent", "clean"], cwd=root, check=True)
    assert [path for path in real.parent.rglob("*") if path.is_file()] == [real]


def test_make_mends_the_lock_before_it_calls_dvc():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("repro", "push", "pull"):
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
        assert recipe.startswith("\t@python tools/lock.py\n"), target


def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split()
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split()[1] for line in shown.stdout.splitlines()] == phony


def test_ci_runs_lint_and_both_kinds_of_tests():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.findall(r"^make .+$", script.read_text(), re.MULTILINE) == [
        "make lint", "make test", "make test-slow",
    ]  # fmt: skip


def test_hooks_need_no_network():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    assert [hook["id"] for hook in hooks[0]["hooks"]] == ["ruff", "mypy", "detect-secrets"]
    assert {hook["language"] for hook in hooks[0]["hooks"]} == {"system"}


def test_packages_are_empty_to_import():
    assert [str(path) for path in ROOT.glob("blackswan/*/**/__init__.py") if path.read_text()] == []


def test_the_library_is_light_to_import():
    listed = "import sys, blackswan; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", listed], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"


@pytest.mark.parametrize(
    "script",
    sorted({*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "benchmarks/anomalib").glob("*.py")}),
    ids=lambda path: path.name,
)
def test_a_benchmark_imports_what_exists(script):
    for node in ast.walk(ast.parse(script.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        stage = (ROOT / f"stages/{node.module}.py").exists()
        if stage or node.module.startswith("blackswan"):
            try:
                module = import_module(f"stages.{node.module}" if stage else node.module)
            except ModuleNotFoundError as error:
                missing = str(error.name)
                assert missing.split(".")[0] not in {"blackswan", "stages"}
                pytest.skip(f"{missing} of an extra is not installed")
            for alias in node.names:
                found = hasattr(module, alias.name) or find_spec(f"{node.module}.{alias.name}")
                assert found, f"{node.module}.{alias.name}"
