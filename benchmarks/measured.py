"""Which code did a result under benchmarks/ measure, and is it still the code we have?

    python benchmarks/measured.py                   lists the stale results (make stale)
    python benchmarks/measured.py photos.json ...   says that these were measured just now

benchmarks/measured.json holds a hash of the code for every result that the README cites. It covers
what the entry points of the result define and import, not where it stands nor how it is commented:
moving a function or mending a docstring makes no result stale. A pipeline also has its params.
"""

import ast
import hashlib
import json
import sys
from functools import cache
from pathlib import Path

import yaml

from blackswan.errors import InputError, run
from blackswan.outputs import write_json

BENCHMARKS = Path("benchmarks")
HASHES = BENCHMARKS / "measured.json"
DETECTORS = ("median_residual", "padim", "patchcore", "dino_memory", "vit")
STAGES = (
    "extract_frames", "synthesize_anomalies", "label", "build_dataset", "fetch_weights",
    "train_vit", "fit_baseline", "fit_detector", "evaluate_detector", "compare",
)  # fmt: skip
PIPELINE = [
    *(f"stages/{name}.py" for name in STAGES),
    *(f"blackswan/detectors/{name}.py" for name in DETECTORS),
    "params.yaml",
]
WITH_TEACHER = [*PIPELINE, "stages/distill_teacher.py", "blackswan/detectors/efficient_ad.py"]
RESULTS = {  # result -> where the code that it measured begins
    "aliens.json": [
        "benchmarks/aliens.py",
        "benchmarks/screw/simplenet.py",
        "benchmarks/screw/gaussian_patches.py",
        "params.yaml",
    ],
    "anomalib/results.json": [
        *(f"benchmarks/anomalib/{name}.py" for name in ("compare", "run_blackswan", "coreset")),
    ],
    "backbones.json": ["benchmarks/backbones.py"],
    "bank.json": ["benchmarks/bank.py"],
    "blackswan_clip.json": PIPELINE,
    "calibration.json": ["benchmarks/calibration.py"],
    "clip_thresholds.json": [
        "benchmarks/clip_thresholds.py",
        *(f"blackswan/detectors/{name}.py" for name in ("patchcore", "padim", "dino_memory")),
        "params.yaml",
    ],
    "cloud.json": [
        "benchmarks/cloud.py",
        "stages/build_dataset.py",
        "blackswan/distributed/datasets.py",
        "blackswan/tracking/served.py",
    ],
    "cookies.json": PIPELINE,
    "deeppcb.json": PIPELINE,
    "defects.json": ["benchmarks/defects.py", "params.yaml"],
    "drift.json": [
        "benchmarks/drift.py",
        *(f"blackswan/detectors/{name}.py" for name in ("padim", "patchcore")),
        "params.yaml",
    ],
    "durations.json": PIPELINE,
    "export.json": [
        "benchmarks/export.py",
        *(f"blackswan/detectors/{name}.py" for name in DETECTORS),
    ],
    "folds.json": [
        "benchmarks/folds.py",
        *(f"blackswan/detectors/{name}.py" for name in ("patchcore", "padim")),
        "params.yaml",
    ],
    "frozen_blocks.json": ["benchmarks/frozen_blocks.py"],
    "generators.json": ["benchmarks/generators.py", "params.yaml"],
    "intervals.json": ["benchmarks/intervals.py"],
    "leaks.json": ["benchmarks/leaks.py"],
    "localisation.json": ["benchmarks/localisation.py", "stages/train_vit.py"],
    "memory.json": ["benchmarks/memory.py"],
    "photos.json": PIPELINE,
    "pipeline.json": ["benchmarks/pipeline.py", "benchmarks/training.py", *PIPELINE],
    "scale.json": ["benchmarks/scale.py", *PIPELINE],
    "serving.json": ["benchmarks/serving.py", "blackswan/serving/server.py"],
    "score.json": ["benchmarks/score.py", "blackswan/cli.py"],
    "screw/dino_memory.json": [
        "benchmarks/screw/dino_memory.py",
        "benchmarks/screw/gaussian_patches.py",
        "params.yaml",
    ],
    "screw/drift/patchcore.csv": [*PIPELINE, "stages/simulate_drift.py"],
    "screw/efficient_ad_steps.csv": WITH_TEACHER,
    "screw/gaussian_patches.json": ["benchmarks/screw/gaussian_patches.py"],
    "screw/leaderboard.csv": WITH_TEACHER,
    "screw/patchcore.json": ["benchmarks/screw/patchcore.py", "params.yaml"],
    "screw/pose.json": [
        "benchmarks/screw/pose.py",
        *(f"blackswan/detectors/{name}.py" for name in ("patchcore", "padim")),
        "params.yaml",
    ],
    "screw/seeds.md": PIPELINE,
    "screw/simplenet.json": [
        "benchmarks/screw/simplenet.py",
        "benchmarks/screw/gaussian_patches.py",
        "params.yaml",
    ],
}


def code_hash(entries: list[str], root: Path = Path()) -> str:
    """Return a hash of all that the files `entries`, and what they import, define below `root`."""
    found: set[str] = set()
    waiting, seen = list(entries), {*entries, "blackswan/errors.py"}  # how it ends is no figure
    while waiting:
        path = root / waiting.pop()
        if path.suffix == ".yaml":
            found.add(json.dumps(yaml.safe_load(path.read_text(encoding="utf-8")), sort_keys=True))
            continue
        defined, imported = parsed(path.read_text(encoding="utf-8"))
        found |= defined
        new = first_party(imported, root) - seen
        seen |= new
        waiting += new
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]


@cache
def parsed(source: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return what stands at the top of a module, less docstrings, as text, and what it imports."""
    tree = ast.parse(source)
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            node.body = body[1:]  # type: ignore[attr-defined]
    imports = ast.Import | ast.ImportFrom
    defined = {ast.dump(node) for node in tree.body if not isinstance(node, imports)}
    return frozenset(defined), frozenset(imported)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def first_party(names: frozenset[str], root: Path) -> set[str]:
    """Return the files of this repository among the modules `names` that one imports."""
    folders = ("", "stages/")  # benchmarks import stages as scripts do
    files = {f"{folder}{name.replace('.', '/')}.py" for name in names for folder in folders}
    return {file for file in files if (root / file).is_file()}


def stale() -> list[str]:
    """List the results whose code is no longer the one they measured."""
    measured = json.loads(HASHES.read_bytes())
    return [result for result in RESULTS if measured.get(result) != code_hash(RESULTS[result])]


def record(results: list[str]) -> None:
    """Enter the present code as the one that these results measured."""
    if unknown := [result for result in results if result not in RESULTS]:
        raise InputError(f"{unknown[0]} is no result; choose from {', '.join(RESULTS)}")
    measured = json.loads(HASHES.read_bytes()) if HASHES.exists() else {}
    write_json(HASHES, measured | {result: code_hash(RESULTS[result]) for result in results})


def main() -> None:
    """Record the results that are named, or list the stale ones."""
    if results := sys.argv[1:]:
        record(results)
        return
    for result in stale():
        print(f"benchmarks/{result}: its code has changed since")
    print(f"{len(RESULTS) - len(stale())} of {len(RESULTS)} results are of this code")


if __name__ == "__main__":
    run(main)
