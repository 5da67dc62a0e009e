"""The library reads from top to bottom: a folder imports only from those above it, and from below
the ground floor nothing is imported up there; `upward` is the check, the tests try it both ways.
"""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

# In the order in which an image goes through them.
FOLDERS = [
    "data", "networks", "detectors", "evaluation", "reporting", "distributed", "tracking", "export",
    "memory", "drift", "proposals", "serving",
]  # fmt: skip
GROUND, COMMAND_LINE = 0, len(FOLDERS) + 1
# What an extra brings is imported in its own folder alone.
EXTRAS = {
    "pyspark": "distributed", "mlflow": "tracking", "openvino": "export", "onnxruntime": "export",
    "nncf": "export", "openai": "proposals",
    "qdrant_client": "memory", "fastapi": "serving", "prometheus_client": "serving",
}  # fmt: skip
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "blackswan").rglob("*.py"))


def floor(parts: tuple[str, ...]) -> int:
    """Return the floor of a module of the library, given what follows `blackswan`."""
    if parts[0] in ("cli", "__init__"):  # what users of the library call
        return COMMAND_LINE
    return FOLDERS.index(parts[0]) + 1 if len(parts) > 1 else GROUND


def modules(source: str) -> list[str]:
    """List all modules that `source` may import, wherever the import stands."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def upward(file: Path, source: str) -> list[str]:
    """List what `file` of the library imports from a floor that comes after its own."""
    own = file.with_suffix("").parts[1:]
    wrong = []
    for module in modules(source):
        package, *parts = module.split(".")
        if package == "blackswan":
            in_folder = parts[0] in FOLDERS or parts[0] == "cli"
            other = floor(tuple(parts)) if in_folder else GROUND
            if other > floor(own):
                wrong.append(f"{file} imports {module}")
        elif package in EXTRAS and own[0] != EXTRAS[package]:
            wrong.append(f"{file} imports {module}, which belongs in blackswan/{EXTRAS[package]}")
        elif package in ("stages", "tests", "tools", "benchmarks"):
            wrong.append(f"{file} imports {module}")
    return wrong


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_folder_imports_only_from_those_above_it(file):
    assert upward(file, (ROOT / file).read_text()) == []


def test_every_module_has_its_place():
    folders = {path.parts[1] for path in FILES if len(path.parts) > 2}
    assert folders <= set(FOLDERS)
    flat = {path.name for path in FILES if len(path.parts) == 2} - {"cli.py", "__init__.py"}
    assert flat == {"errors.py", "outputs.py", "parallel.py", "params.py", "seeds.py"}


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("blackswan/networks/distillation.py", "from blackswan.detectors.patches import slices"),
        ("blackswan/data/images.py", "from blackswan.detectors import maps"),
        ("blackswan/errors.py", "import blackswan.data.images"),
        ("blackswan/evaluation/scoring.py", "from blackswan.cli import main"),
        ("blackswan/detectors/padim.py", "def late():\n    from blackswan.reporting import report"),
        ("blackswan/data/dataset.py", "from pyspark.sql import functions"),
        ("blackswan/data/dataset.py", "from tools import azurite"),
    ],
)
def test_one_import_turned_round_is_found(file, line):
    source = (ROOT / file).read_text()
    assert len(upward(Path(file), f"{source}\n{line}\n")) == 1


def test_tests_mirror_the_library():
    mirrored = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert {path.parts[1] for path in FILES if len(path.parts) > 2} <= mirrored
