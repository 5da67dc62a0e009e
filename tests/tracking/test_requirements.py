"""What a registered model says it needs is what the code that scores by it imports."""

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from conftest import ROOT

from blackswan.tracking import registry

ENTRIES = ["tracking/served.py", *(f"detectors/{path.name}" for path in
           (ROOT / "blackswan/detectors").glob("*.py"))]  # fmt: skip


def imported(path: Path) -> set[str]:
    """Return the modules that stand at the top of a file, where loading it needs them."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def closure(entries: list[str]) -> set[str]:
    """Return the packages, not of the library, that the entries need to be loaded."""
    waiting, seen, packages = [ROOT / "blackswan" / entry for entry in entries], set(), set()
    while waiting:
        path = waiting.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        for name in imported(path):
            first, *_ = name.split(".")
            if first == "blackswan":
                waiting.append(ROOT / f"{name.replace('.', '/')}.py")
            elif first not in sys.stdlib_module_names:
                packages.add(first)
    return packages


def test_what_scoring_imports_is_required_and_nothing_else():
    named = packages_distributions()
    needed = {named[package][0].lower() for package in closure(ENTRIES) - {"mlflow"}}
    assert needed | {"mlflow"} == set(registry.REQUIREMENTS)


def test_each_is_pinned_to_what_is_installed(monkeypatch):
    monkeypatch.setattr(registry, "version", lambda name: "1.2+cpu" if name == "torch" else "3")
    pinned = registry.requirements()
    assert {"torch==1.2", "numpy==3"} <= {*pinned}
    assert len(pinned) == len(registry.REQUIREMENTS)
