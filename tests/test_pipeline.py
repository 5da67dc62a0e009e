"""dvc.yaml declares what the stages read and import: DVC sees neither imports nor load_section.

`undeclared` is the check; the tests run it on the pipeline as it is and on pipelines with one
declaration removed.
"""

import ast
import copy
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from dvc.utils.serialize import modify_yaml

from blackswan.params import block_name

ROOT = Path(__file__).resolve().parent.parent
# No outputs: the paths of labels.csv start from data/, checkpoints are what a killed run leaves.
SCRATCH = {"data", "data/checkpoints", "data/checkpoints/train_vit"}
# Every detector is told where the weights lie; those that load a network have to declare them.
WEIGHTS, BACKBONES = "data/weights", "blackswan/networks/backbones.py"


@dataclass
class Stage:
    """One resolved stage: what it runs and what it declares."""

    name: str
    script: str
    argument: str  # what the matrix varies, or ""
    deps: set[str]
    params: set[str]
    outs: set[str]


@cache
def repository():
    return Repo(ROOT)


@pytest.fixture(scope="module")
def pipeline():
    """The stages of dvc.yaml as DVC resolves them, matrices expanded."""
    stages = []
    for stage in repository().index.stages:
        if not stage.is_data_source:
            _, script, *_ = stage.cmd.split()
            params = {name for dep in stage.deps for name in getattr(dep, "params", [])}
            deps = {dep.def_path for dep in stage.deps if not hasattr(dep, "params")}
            outs = {out.def_path for out in stage.outs}
            argument = stage.name.partition("@")[2]
            stages.append(Stage(stage.addressing, script, argument, deps, params, outs))
    return stages


def undeclared(stage, source):
    """List what `source`, the text of the script, uses and `stage` does not declare."""
    tree = ast.parse(source)
    problems = [] if stage.script in stage.deps else [f"{stage.script} is no dep"]
    modules = imported(source)
    if re.search(r"\bload_module\(", source):
        modules |= imported_file(f"blackswan/detectors/{stage.argument}.py")
    problems += [f"{module} is no dep" for module in sorted(modules - stage.deps)]
    for key in sections(tree, stage.argument):
        if not any(key == name or key.startswith(f"{name}.") for name in stage.params):
            problems.append(f"section {key} is no param")
    for path in paths(tree):
        declared = stage.deps | stage.outs
        if path == WEIGHTS and BACKBONES not in modules:
            continue
        if path not in SCRATCH and not any(overlaps(path, other) for other in declared):
            problems.append(f"path {path} is neither dep nor out")
    return problems


def imported(source):
    """Return the first-party files that `source` imports, directly or through others."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = f"{name.replace('.', '/')}.py"
            if name.startswith(("blackswan", "stages")) and (ROOT / file).is_file():
                found |= imported_file(file)
    return found


@cache
def imported_file(file):
    return {file} | imported((ROOT / file).read_text())


def sections(tree, argument):
    """Yield the keys that the script gives to load_section; the matrix gives what varies."""
    named = {
        target.id: node.value
        for node in ast.walk(tree) if isinstance(node, ast.Assign)
        for target in node.targets if isinstance(target, ast.Name)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "load_section":
            key = node.args[1]
            key = named[key.id] if isinstance(key, ast.Name) else key
            parts = key.values if isinstance(key, ast.JoinedStr) else [key]
            yield "".join(
                part.value if isinstance(part, ast.Constant) else argument for part in parts
            )


def paths(tree):
    """Yield the constants `Path("data/...")` and `Path("metrics/...")`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Path":
            for value in node.args:
                if isinstance(value, ast.Constant) and re.match(r"(data|metrics)\b", value.value):
                    yield value.value


def overlaps(path, other):
    return path == other or path.startswith(f"{other}/") or other.startswith(f"{path}/")


def text_of(stage):
    return (ROOT / stage.script).read_text()


def declared_stages():
    """Return the stages of both files as they are written."""
    return {
        name: stage
        for file in ("dvc.yaml", "drift/dvc.yaml")
        for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items()
    }


def find(pipeline, name):
    return next(stage for stage in pipeline if stage.name == name)


def test_every_stage_declares_what_it_uses(pipeline):
    assert {stage.name: undeclared(stage, text_of(stage)) for stage in pipeline} == {
        stage.name: [] for stage in pipeline
    }


def detector_files(stage):
    """List the detectors that could stand in the matrix of a stage, in use or not."""
    own = f"blackswan/detectors/{stage.argument}.py"
    fitted = "def fit(" if stage.script == "stages/fit_detector.py" else "def load("
    files = [path for path in (ROOT / "blackswan/detectors").glob("*.py")
             if fitted in path.read_text()]  # fmt: skip
    others = {imported for file in files for imported in imported_file(relative(file))}
    return [own, *(other for other in others if not is_detector(other))]


def relative(path):
    return path.relative_to(ROOT).as_posix()


def is_detector(file):
    return file.startswith("blackswan/detectors/") and "def load(" in (ROOT / file).read_text()


def test_no_stage_declares_a_module_that_it_does_not_use(pipeline):
    for stage in pipeline:
        used = imported(text_of(stage)) | {stage.script}
        if "load_module(" in text_of(stage) and stage.argument:
            # Deps are the same for the whole matrix: what one detector needs, all name.
            used |= set().union(*map(imported_file, detector_files(stage)))
        declared = {dep for dep in stage.deps if dep.endswith(".py")}
        assert sorted(declared - used) == [], stage.name


@pytest.mark.parametrize(
    ("name", "dep"),
    [
        ("label", "blackswan/data/leaks.py"),
        ("label", "stages/label.py"),
        ("extract_frames", "blackswan/data/sources/video.py"),
        ("fit_detector@patchcore", "blackswan/detectors/patchcore.py"),
        ("evaluate_reference@vit", "blackswan/detectors/vit.py"),
        ("evaluate_reference@vit", "blackswan/data/images.py"),  # only through others
    ],
)
def test_a_module_that_is_not_declared_is_found(pipeline, name, dep):
    stage = copy.deepcopy(find(pipeline, name))
    stage.deps.remove(dep)
    assert undeclared(stage, text_of(stage)) == [f"{dep} is no dep"]


@pytest.mark.parametrize(
    ("name", "section", "key"),
    [
        ("label", "split", "split"),
        ("extract_frames", "source", "source"),
        ("fit_detector@patchcore", "detectors.patchcore", "detectors.patchcore"),
        ("fit_detector@patchcore", "fit_detector", "fit_detector"),
    ],
)
def test_a_section_that_is_not_declared_is_found(pipeline, name, section, key):
    stage = copy.deepcopy(find(pipeline, name))
    stage.params.remove(section)
    assert undeclared(stage, text_of(stage)) == [f"section {key} is no param"]


@pytest.mark.parametrize(
    ("name", "path", "constant"),
    [
        ("label", "data/anomalies", "data/anomalies"),
        ("label", "data/labels.csv", "data/labels.csv"),
        ("evaluate_reference@vit", "data/models/vit", "data/models"),
        ("compare", "metrics/curves", "metrics/curves"),
    ],
)
def test_a_path_that_is_not_declared_is_found(pipeline, name, path, constant):
    stage = copy.deepcopy(find(pipeline, name))
    stage.deps.discard(path)
    stage.outs.discard(path)
    assert f"path {constant} is neither dep nor out" in undeclared(stage, text_of(stage))


def test_a_new_import_section_or_path_in_a_script_is_found(pipeline):
    stage = find(pipeline, "label")
    added = (
        "\nfrom blackswan.detectors import coreset\n"
        'EXTRA = Path("data/extra")\n'
        'load_section(Params, "evaluate")\n'
    )
    found = undeclared(stage, text_of(stage) + added)
    assert "blackswan/detectors/coreset.py is no dep" in found
    assert found[-2:] == [
        "section evaluate is no param",
        "path data/extra is neither dep nor out",
    ]


def test_the_backbone_of_every_detector_is_fetched():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    blocks = ["train_vit", *(f"detectors.{name}" for name in params["detectors"])]
    named = [f"${{{block}.backbone}}" for block in [*blocks, "embed_defects"]]
    assert stages["fetch_weights"]["matrix"]["name"] == named


def test_no_param_is_written_into_a_command():
    for name, stage in declared_stages().items():
        assert "${" not in stage.get("do", stage)["cmd"], name


def test_the_names_of_params_are_names():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for block in (params["fetch_weights"], params["detectors"], params["compare"]["references"]):
        assert [block_name("block", f"stage@{key}") for key in block] == list(block)


HOSTILE = [
    "a; touch harm", "$(touch harm)", "`touch harm`", "a' ; touch harm ; '", 'a" ; touch harm ; "',
    "a' \" ; touch harm ; ' \"", "a | touch harm", "two words", "a\ntouch harm\n",
]  # fmt: skip
# DVC takes the outputs of a stage away before it runs; other stages depend on them.
ECHO = (
    "import json, shutil, sys\nprint('ARGUMENTS', json.dumps(sys.argv[1:]))\n"
    "shutil.copytree('spare', 'data', dirs_exist_ok=True)\n"
)
# DVC names four backbones; two names are enough to show that a stage goes the same way.
FANNED_OUT = {
    "distill_teacher": [f"teacher {name}" for name in HOSTILE],
    "fetch_weights": HOSTILE[:4], "fit_detector": HOSTILE[3:5],
    "evaluate_detector": HOSTILE[3:5], "evaluate_reference": HOSTILE[3:5],
}  # fmt: skip


def copy_with_names(root, names):
    """Copy the pipeline to `root` with blocks of these names, and each script an echo."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["source"]["path"] = "photos; touch harm"
    params["train_vit"]["backbone"] = params["embed_defects"]["backbone"] = names[0]
    weights = params["fetch_weights"].pop("vit_small")
    teacher = {"images": "data/dataset/train", "backbone": names[0]}
    for detector, name in zip(params["detectors"].values(), names[1:], strict=False):
        detector["backbone"] = name
    params["fetch_weights"] = dict.fromkeys(names, weights)
    params["detectors"] |= dict.fromkeys(names, {"backbone": names[0]})
    params["compare"]["references"] = dict.fromkeys(names, "")
    params["distill_teacher"] = {f"teacher {name}": teacher for name in names}
    shutil.copytree(ROOT / "blackswan", root / "blackswan")
    for name in names:
        (root / "blackswan/detectors" / f"{name}.py").write_text("")
        for folder in ("models", "weights"):
            (root / "data" / folder / name).mkdir(parents=True)
            (root / "data" / folder / name / "x").write_text("x")
    splits = (root / "data/dataset" / split for split in ("train", "validation", "test"))
    shutil.copy(ROOT / "data/ignore.json", root / "data")
    for folder in (*splits, root / "photos; touch harm", root / ".dvc"):
        folder.mkdir(parents=True)
        (folder / "x").write_text("x")
    (root / ".dvc/x").unlink()
    (root / ".dvc/config").write_text("[core]\nno_scm = true\nanalytics = false\n")
    shutil.copytree(root / "data", root / "spare")
    (root / "stages").mkdir()
    for script in (ROOT / "stages").glob("*.py"):
        (root / "stages" / script.name).write_text(ECHO)
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())


def reproduce(root, *targets):
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT), "DVC_SITE_CACHE_DIR": str(root / "site"),
    }  # fmt: skip
    command = [sys.executable, "-m", "dvc", "repro", "--keep-going", "--single-item", *targets]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_name_reaches_its_script_whole_and_no_shell_runs_any_of_it(tmp_path):
    copy_with_names(tmp_path, HOSTILE)
    targets = [f"{stage}@{name}" for stage, names in FANNED_OUT.items() for name in names]
    said = reproduce(tmp_path, *targets, "extract_frames")
    given = [json.loads(line.removeprefix("ARGUMENTS ")) for line in said.splitlines()
             if line.startswith("ARGUMENTS ")]  # fmt: skip
    assert not (tmp_path / "harm").exists()
    assert sorted(given) == sorted([[target] for target in targets] + [[]])


def test_a_name_that_is_none_ends_in_one_sentence_of_the_real_script(tmp_path):
    copy_with_names(tmp_path, HOSTILE[:4])
    shutil.copy(ROOT / "stages/fetch_weights.py", tmp_path / "stages")
    said = reproduce(tmp_path, f"fetch_weights@{HOSTILE[1]}")
    assert f"error: fetch_weights: the name '{HOSTILE[1]}' may hold only letters, digits" in said
    assert "Traceback" not in said
    assert not (tmp_path / "harm").exists()


def test_every_stage_is_taken_from_the_run_cache(pipeline):
    """What ran once is never computed again: `persist` on one output would switch that off."""
    assert pipeline
    outs = [out for stage in repository().index.stages for out in stage.outs]
    # An output outside of the cache switches it off too, unless it is a metric or a plot.
    uncached = [out for out in outs if not (out.use_cache or out.is_metric or out.is_plot)]
    assert [out.def_path for out in outs if out.persist or out in uncached] == []


def test_what_learns_depends_on_no_test_image(pipeline):
    learning = [stage for stage in pipeline if re.search(r"/(train|fit|distill)_", stage.script)]
    assert len(learning) >= 5
    for stage in learning:
        assert [dep for dep in stage.deps if overlaps(dep, "data/dataset/test")] == [], stage.name
        data = {dep for dep in stage.deps if dep.startswith("data/") and "weights" not in dep}
        polygons = {"data/ignore.json"}
        assert data - polygons <= {"data/dataset/train", "data/dataset/validation"}, stage.name


def test_every_default_detector_is_an_artifact(pipeline):
    artifacts = yaml.safe_load((ROOT / "dvc.yaml").read_text())["artifacts"]
    judged = {stage.argument for stage in pipeline if stage.script == "stages/evaluate_detector.py"}
    assert {name: artifact["path"] for name, artifact in artifacts.items()} == {
        name: f"data/detectors/{name}" for name in judged
    }
    assert {artifact["type"] for artifact in artifacts.values()} == {"model"}


def test_params_are_written_as_dvc_rewrites_them(tmp_path):
    """So that `dvc exp run -S` changes one line and no more."""
    copy_of = tmp_path / "params.yaml"
    copy_of.write_text((ROOT / "params.yaml").read_text())
    with modify_yaml(copy_of):
        pass
    assert copy_of.read_text() == (ROOT / "params.yaml").read_text()


def test_every_script_is_a_stage_of_its_name(pipeline):
    declared = declared_stages()
    assert declared.pop("evaluate_reference")["do"] == declared["evaluate_detector"]["do"]
    assert declared.pop("simulate_drift_reference")["do"] == declared["simulate_drift"]["do"]
    scripts = {path.stem for path in (ROOT / "stages").glob("*.py")}
    assert scripts == set(declared)
    for name, stage in declared.items():
        stage = stage.get("do", stage)
        assert stage["cmd"].split()[:2] == ["python", f"stages/{name}.py"]
        assert stage["desc"]


def test_every_detector_of_the_table_is_fitted_or_trained(pipeline):
    outs = {out for stage in pipeline for out in stage.outs}
    judged = [stage for stage in pipeline if stage.script == "stages/evaluate_detector.py"]
    assert len(judged) >= 2
    for stage in judged:
        assert f"data/models/{stage.argument}" in outs


@pytest.mark.parametrize("script", sorted((ROOT / "stages").glob("*.py")), ids=lambda p: p.stem)
def test_a_script_does_nothing_on_import(script):
    tree = ast.parse(script.read_text())
    assert ast.get_docstring(tree)
    *body, last = tree.body[1:]
    assert ast.unparse(last) == "if __name__ == '__main__':\n    run(main)"
    harmless = (
        ast.Import,
        ast.ImportFrom,
        ast.Assign,
        ast.AnnAssign,
        ast.ClassDef,
        ast.FunctionDef,
    )
    assert [ast.unparse(node) for node in body if not isinstance(node, harmless)] == []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert "stages" not in ast.unparse(node), "stages never import stages"


def test_the_library_knows_no_pipeline_path():
    for path in {*(ROOT / "blackswan").rglob("*.py")} - {ROOT / "blackswan/cli.py"}:
        assert list(paths(ast.parse(path.read_text()))) == [], path
