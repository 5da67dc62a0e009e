"""Which code did a result under benchmarks/ measure, and is it still the code we have?

    python benchmarks/measured.py                   lists the stale results (make stale)
    python benchmarks/measured.py photos.json ...   says that these were measured just now

benchmarks/measured.json holds a hash of the code for every result that the README cites. It covers
what the entry points of the result define, and what these use of other modules: functions, classes
and constants, not where they stand nor how they are commented. Moving a function, mending a
docstring or adding what the result does not use makes none stale. A pipeline also has its params,
and the script that sets others.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
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
    "train_vit", "fit_baseline", "fit_detector", "evaluate_detector",
)  # fmt: skip
PIPELINE = [
    *(f"stages/{name}.py" for name in STAGES),
    *(f"blackswan/detectors/{name}.py" for name in DETECTORS),
    "blackswan/evaluation/ranking.py",
    "params.yaml",
]
SPEED = ["blackswan/parallel.py"]  # named by each result of speed
WHOLE = [*PIPELINE, "stages/compare.py", *SPEED]
WITH_TEACHER = [*PIPELINE, "stages/distill_teacher.py", "blackswan/detectors/efficient_ad.py"]
FOLDERS = ("", "stages/", "benchmarks/", "benchmarks/screw/")  # that scripts import from
# How work is ended, written and recorded, by which tests let no number change; and what changes a
# speed alone: how work is divided and drawn.
NO_FIGURE = (
    *(f"blackswan/{name}.py" for name in ("errors", "outputs", "params")),
    "blackswan/tracking/runs.py",
    "benchmarks/measured.py",
)
SPEED_ALONE = ("blackswan/parallel.py", "blackswan/reporting/")
RESULTS = {  # result -> where the code that it measured begins
    "aliens.json": [
        "benchmarks/aliens.py",
        "benchmarks/screw/simplenet.py",
        "benchmarks/screw/gaussian_patches.py",
        "params.yaml",
    ],
    "anomalib/results.json": [
        *SPEED,
        *(f"benchmarks/anomalib/{name}.py" for name in ("compare", "run_blackswan", "coreset")),
        *(f"blackswan/detectors/{name}.py" for name in ("padim", "patchcore")),
        "params.yaml",
    ],
    "backbones.json": ["benchmarks/backbones.py"],
    "bank.json": ["benchmarks/bank.py", *SPEED],
    "blackswan_clip.json": PIPELINE,
    "calibration.json": ["benchmarks/calibration.py"],
    "clip_thresholds.json": [
        "benchmarks/clip_thresholds.py",
        *(f"blackswan/detectors/{name}.py" for name in ("patchcore", "padim", "dino_memory")),
        "params.yaml",
    ],
    "cloud.json": [
        *SPEED,
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
    "durations.json": WHOLE,
    "export.json": [
        *SPEED,
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
    "leaks.json": ["benchmarks/leaks.py", *SPEED],
    "localisation.json": ["benchmarks/localisation.py", "stages/train_vit.py"],
    "memory.json": ["benchmarks/memory.py", *SPEED],
    "photos.json": PIPELINE,
    "pipeline.json": ["benchmarks/pipeline.py", "benchmarks/training.py", *WHOLE],
    "scale.json": ["benchmarks/scale.py", *WHOLE],
    "serving.json": ["benchmarks/serving.py", "blackswan/serving/server.py", *SPEED],
    "score.json": [
        *SPEED,
        "benchmarks/score.py",
        "blackswan/cli.py",
        "blackswan/detectors/median_residual.py",
    ],
    "screw/dino_memory.json": [
        "benchmarks/screw/dino_memory.py",
        "benchmarks/screw/gaussian_patches.py",
        "params.yaml",
    ],
    "screw/drift/patchcore.csv": [
        *PIPELINE,
        "stages/simulate_drift.py",
        *(f"benchmarks/screw/{name}.sh" for name in ("drift", "settings")),
    ],
    "screw/efficient_ad_steps.csv": [
        *WITH_TEACHER,
        *(f"benchmarks/screw/{name}.sh" for name in ("efficient_ad", "settings")),
    ],
    "screw/gaussian_patches.json": ["benchmarks/screw/gaussian_patches.py"],
    "screw/leaderboard.csv": [
        *PIPELINE,
        *(f"blackswan/detectors/{name}.py" for name in ("gaussian_patches", "simplenet")),
        "benchmarks/screw/run.sh",
    ],
    "screw/patchcore.json": [
        "benchmarks/screw/patchcore.py",
        "blackswan/detectors/patchcore.py",
        "params.yaml",
    ],
    "screw/pose.json": [
        "benchmarks/screw/pose.py",
        *(f"blackswan/detectors/{name}.py" for name in ("patchcore", "padim")),
        "params.yaml",
    ],
    "screw/simplenet.json": [
        "benchmarks/screw/simplenet.py",
        "benchmarks/screw/gaussian_patches.py",
        "params.yaml",
    ],
}


class Module:
    """What stands at the top of a module, less its docstrings, and what it imports."""

    def __init__(self, source: str) -> None:
        tree = ast.parse(source)
        self.imports: dict[str, tuple[str, str]] = {}  # as it is called here -> module, name
        self.defined: dict[str, list[ast.stmt]] = {}
        self.runs: list[ast.stmt] = []  # whatever is used of the module
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self.imports |= {name.asname or name.name: (name.name, "") for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                self.imports |= {
                    name.asname or name.name: (node.module, name.name) for name in node.names
                }
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and _is_text(body[0]):
                node.body = body[1:]  # type: ignore[attr-defined]
        for statement in tree.body:
            for name in (names := _named_by(statement)):
                self.defined.setdefault(name, []).append(statement)
            imports = isinstance(statement, ast.Import | ast.ImportFrom)
            if not (names or imports or _is_main(statement)):
                self.runs.append(statement)

    def statements(self, name: str) -> list[ast.stmt]:
        """Return those that count where `name` is used, or for "" the whole module."""
        names = [name] if name else list(self.defined)
        return [*self.runs, *(node for each in names for node in self.defined.get(each, []))]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_main(statement: ast.stmt) -> bool:
    """Say whether nobody but who calls the file as a script runs it."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test).startswith("__name__ ==")


def _named_by(statement: ast.stmt) -> list[str]:
    """Return what a statement at the top of a module defines."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [statement.name]
        case ast.Assign(targets=targets):
            return [
                each.id for to in targets for each in ast.walk(to) if isinstance(each, ast.Name)
            ]
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _settings(text: str, file: str) -> str:
    """Return what params or a shell script set, without comments."""
    if file.endswith(".yaml"):
        return json.dumps(yaml.safe_load(text), sort_keys=True)
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


class Code:
    """The files below a root, each of which is read once."""

    def __init__(self, root: Path = Path()) -> None:
        self.root = root
        self.module = cache(lambda file: Module((root / file).read_text(encoding="utf-8")))
        self.step = cache(self._step)
        self.file_of = cache(self._file_of)

    def hash(self, entries: list[str]) -> str:
        """Return a hash of the files `entries` and of what they use of the others."""
        texts: set[str] = set()
        left_out = NO_FIGURE if {*SPEED} <= {*entries} else NO_FIGURE + SPEED_ALONE
        waiting = [(entry, "") for entry in entries]
        seen = set(waiting)
        while waiting:
            found, used = self.step(*waiting.pop())
            texts |= found
            waiting += [use for use in used - seen if not use[0].startswith(left_out)]
            seen |= used
        return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()[:16]

    def _step(self, file: str, name: str) -> tuple[set[str], set[tuple[str, str]]]:
        """Return what `name` of a file is, or the whole file, and the names it uses."""
        if not file.endswith(".py"):
            return {_settings((self.root / file).read_text(encoding="utf-8"), file)}, set()
        module = self.module(file)
        if name and name not in module.defined and name in module.imports:  # handed on
            return set(), {*self._imported(module, name)}
        statements = module.statements(name)
        used = {use for statement in statements for use in self._uses(statement, file)}
        return {ast.dump(statement) for statement in statements}, used

    def _uses(self, statement: ast.stmt, file: str) -> Iterator[tuple[str, str]]:
        """Yield file and name of what a statement of `file` uses of this repository."""
        module, nodes = self.module(file), [*ast.walk(statement)]
        inside = {id(node.value): node.attr for node in nodes if isinstance(node, ast.Attribute)}
        for node in nodes:
            if not isinstance(node, ast.Name):
                continue
            if node.id in module.defined:
                yield file, node.id
            elif node.id in module.imports:
                yield from self._imported(module, node.id, inside.get(id(node), ""))

    def _imported(
        self, module: Module, called: str, attribute: str = ""
    ) -> Iterator[tuple[str, str]]:
        """Yield file and name of what a module calls so, or of an attribute of the module."""
        package, name = module.imports[called]
        if found := self.file_of(f"{package}.{name}".strip(".")):
            yield found, attribute
        elif found := self.file_of(package):
            yield found, name

    def _file_of(self, module: str) -> str | None:
        """Return the file of a module of this repository, as stages and benchmarks import it."""
        files = [f"{folder}{module.replace('.', '/')}.py" for folder in FOLDERS]
        return next((file for file in files if (self.root / file).is_file()), None)


def stale() -> list[str]:
    """List the results whose code is no longer the one they measured."""
    measured, code = json.loads(HASHES.read_bytes()), Code()
    return [result for result in RESULTS if measured.get(result) != code.hash(RESULTS[result])]


def record(results: list[str]) -> None:
    """Enter the present code as the one that these results measured."""
    if unknown := [result for result in results if result not in RESULTS]:
        raise InputError(f"{unknown[0]} is no result; choose from {', '.join(RESULTS)}")
    measured = json.loads(HASHES.read_bytes()) if HASHES.exists() else {}
    code = Code()
    write_json(HASHES, measured | {result: code.hash(RESULTS[result]) for result in results})


def main() -> None:
    """Record the results that are named, or list the stale ones."""
    if results := sys.argv[1:]:
        record(results)
        return
    old = stale()
    for result in old:
        print(f"benchmarks/{result}: its code has changed since")
    print(f"{len(RESULTS) - len(old)} of {len(RESULTS)} results are of this code")


if __name__ == "__main__":
    run(main)
