"""The bundles are what databricks-bundles allows; a task runs on a folder that plays the volume."""

import copy
import re
import runpy
import shutil
import sys

import pytest
import yaml
from conftest import ROOT, SMALL
from databricks.bundles.jobs import Job
from databricks.bundles.model_serving_endpoints import ModelServingEndpoint
from databricks.bundles.registered_models import RegisteredModel
from databricks.bundles.schemas import Schema
from databricks.bundles.volumes import Volume

FOLDER = ROOT / "databricks"
BUNDLES = {
    path.relative_to(ROOT).as_posix(): yaml.safe_load(path.read_text())
    for path in sorted(FOLDER.rglob("databricks.yml"))
}
JOB = BUNDLES["databricks/databricks.yml"]["resources"]["jobs"]["blackswan"]
TYPES = {
    "jobs": Job,
    "model_serving_endpoints": ModelServingEndpoint,
    "registered_models": RegisteredModel,
    "schemas": Schema,
    "volumes": Volume,
}
# The package has no types of what stands around the resources: the keys of the CLI's own schema.
AROUND = {
    "bundle": {"name", "databricks_cli_version"},
    "sync": {"paths"},
    "targets": {"default", "mode", "workspace", "resources"},
    "variables": {"description", "default"},
    "resources": {*TYPES},
}
FREE = {"spark_conf", "spark_env_vars", "custom_tags", "environment_vars"}  # keys of one's own


def refused(bundle):
    """Say what is wrong with a bundle, "" where nothing is."""
    for part, content in bundle.items():
        if part not in AROUND:
            return f"unknown key {part}"
        named = part in ("targets", "variables")
        for block in content.values() if named else [content]:
            if unknown := {*(block or {})} - AROUND[part]:
                return f"unknown keys {unknown} of {part}"
    targets = [target.get("resources", {}) for target in bundle["targets"].values()]
    for resources in [bundle["resources"], *targets]:
        for kind, named in resources.items():
            for name, block in named.items():
                try:
                    read = TYPES[kind].from_dict(copy.deepcopy(block)).as_dict()
                except (ValueError, TypeError, KeyError) as error:
                    return f"{kind}.{name}: {error}"
                if read != block:  # a number where a text belongs, say
                    return f"{kind}.{name}: is read as {read}"
    return ""


def keys(content, path=()):
    """Yield the path of every key that a type names."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(key, str):
            yield (*path, key)
        if isinstance(value, (dict, list)) and key not in FREE:
            yield from keys(value, (*path, key))


def texts(content):
    if isinstance(content, (dict, list)):
        for value in content.values() if isinstance(content, dict) else content:
            yield from texts(value)
    else:
        yield str(content)


@pytest.mark.parametrize("path", BUNDLES)
def test_a_bundle_is_what_the_types_allow(path):
    assert refused(BUNDLES[path]) == ""


@pytest.mark.parametrize("path", BUNDLES)
def test_any_misspelt_key_of_a_bundle_is_found(path):
    resources = BUNDLES[path]["resources"]
    named = {(kind, name) for kind in resources for name in resources[kind]}
    tried = 0
    for place in keys(resources):
        if place in named:
            continue
        bundle = copy.deepcopy(BUNDLES[path])
        *above, key = place
        block = bundle["resources"]
        for part in above:
            block = block[part]
        block[f"{key}s"] = block.pop(key)
        assert refused(bundle), place
        tried += 1
    assert tried >= 15


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("tasks", 5, "condition_task", "op"), "EQUALS"),
        (("job_clusters", 0, "new_cluster", "data_security_mode"), "ALONE"),
        (("job_clusters", 0, "new_cluster", "num_workers"), "none"),
        (("job_clusters", 0, "new_cluster", "num_workers"), "0"),
        (("queue", "enabled"), "maybe"),
    ],
)
def test_a_value_that_is_none_of_its_type_is_found(place, value):
    bundle = copy.deepcopy(BUNDLES["databricks/databricks.yml"])
    block = bundle["resources"]["jobs"]["blackswan"]
    for part in place[:-1]:
        block = block[part]
    block[place[-1]] = value
    assert refused(bundle).startswith("jobs.blackswan: ")


@pytest.mark.parametrize("path", BUNDLES)
def test_what_a_bundle_refers_to_is_there(path):
    bundle = BUNDLES[path]
    for text in texts(bundle):
        for reference in re.findall(r"\$\{([^}]+)\}", text):
            first, *parts = reference.split(".")
            if first == "var":
                assert parts[0] in bundle["variables"], reference
            elif first == "resources":
                assert parts[2] in bundle["resources"][parts[0]][parts[1]], reference
            else:
                assert reference in ("bundle.name", "bundle.target", "workspace.file_path")
        for name in re.findall(r"\{\{job\.parameters\.(\w+)\}\}", text):
            assert name in {parameter["name"] for parameter in JOB["parameters"]}


def test_a_secret_is_named_never_written():
    variables = JOB["job_clusters"][0]["new_cluster"]["spark_env_vars"]
    secrets = {name: value for name, value in variables.items() if "TOKEN" in name}
    assert secrets == {"DATABRICKS_TOKEN": "{{secrets/${var.secret_scope}/token}}"}


def test_there_are_two_targets_and_the_endpoint_scales_to_zero():
    for bundle in BUNDLES.values():
        assert [*bundle["targets"]] == ["dev", "prod"]
    endpoint = BUNDLES["databricks/endpoint/databricks.yml"]["resources"]["model_serving_endpoints"]
    [served] = endpoint["detector"]["config"]["served_entities"]
    assert served["scale_to_zero_enabled"] is True


@pytest.fixture
def run():
    """The functions of databricks/run.py."""
    return runpy.run_path(str(FOLDER / "run.py"))


def test_a_task_runs_stages_that_exist_one_after_the_other(run, monkeypatch):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    tasks = [task for task in JOB["tasks"] if "spark_python_task" in task]
    called = []

    def parsed(self, arguments):
        called.append(parse(self, arguments))
        raise SystemExit

    parse = run["argparse"].ArgumentParser.parse_args
    monkeypatch.setattr(run["argparse"].ArgumentParser, "parse_args", parsed)
    for before, task in zip([None, *JOB["tasks"]], JOB["tasks"], strict=False):
        depends = [dependency["task_key"] for dependency in task.get("depends_on", [])]
        assert depends == ([before["task_key"]] if before else [])
    for task in tasks:
        script = task["spark_python_task"]
        assert (FOLDER / script["python_file"]).is_file()
        parameters = [text.replace("${var.processes}", "1") for text in script["parameters"]]
        with pytest.raises(SystemExit):
            run["main"](parameters)
    assert [stage for options in called for stage in options.repro] == [
        "extract_frames", "build_dataset", "train_vit", "fit_detector", "fit_baseline",
        "compare", "compare", "compare",
    ]  # fmt: skip
    assert {stage for options in called for stage in options.repro} <= {*stages}
    assert [options.then[:2] for options in called if options.then] == [
        ["blackswan", "register"], ["blackswan", "invoke"],
    ]  # fmt: skip


@pytest.fixture
def task(run, tmp_path, drawn_clip, capfd):
    """Run a task on a copy of the repository, with small params; disk and volume are folders."""
    repository = tmp_path / "files"
    ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
    for name in ("stages", "blackswan", ".dvc"):
        shutil.copytree(ROOT / name, repository / name, ignore=ignored)
    for name in ("dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, repository)
    for name in ("data/corrections.csv", "data/ignore.json", "metrics/robustness.json"):
        (repository / name).parent.mkdir(exist_ok=True)  # as Git, so a bundle, has them
        shutil.copy(ROOT / name, repository / name)
    volume, disk = tmp_path / "volume", tmp_path / "disk"
    disk.mkdir()
    (volume / "source").mkdir(parents=True)
    shutil.copy(drawn_clip, volume / "source/clip.avi")
    changes = {**SMALL, "source.path": f"{volume}/source/clip.avi"}
    settings = [f"{key}={value}" for key, value in changes.items()]

    def started(*arguments):
        before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
        capfd.readouterr()
        folders = [str(repository), str(volume), "--disk", str(disk), "--python", sys.executable]
        run["main"]([*folders, "--set", *settings, *arguments])
        after = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
        assert after == before
        assert [*disk.iterdir()] == []
        return capfd.readouterr().out

    return started


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_task_finds_what_another_made_on_the_volume(task):
    assert "Running stage 'extract_frames'" in task("--repro", "extract_frames")
    printed = task("--repro", "synthesize_anomalies", "--then", "ls", "data/anomalies")
    assert "Stage 'extract_frames' is cached - skipping run, checking out outputs" in printed
    assert "Running stage 'synthesize_anomalies'" in printed
    made = ["images", "index.csv", "masks", "quarantine.csv"]
    assert printed.splitlines()[-4:] == made


def test_several_processes_take_the_place_of_the_stage(run, tmp_path):
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    run["train_on"](2, tmp_path / "dvc.yaml")
    before = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    after = yaml.safe_load((tmp_path / "dvc.yaml").read_text())
    several = "python -m blackswan.distributed.training --processes 2"
    assert before["stages"]["train_vit"].pop("cmd") == "python stages/train_vit.py"
    assert after["stages"]["train_vit"].pop("cmd") == several
    assert after == before
    with pytest.raises(SystemExit, match="dvc.yaml has no single `python stages/train_vit.py`"):
        run["train_on"](2, tmp_path / "dvc.yaml")


def test_a_task_ends_with_the_command_that_fails(run, tmp_path):
    with pytest.raises(SystemExit, match="^error: false ended with exit code 1; see above$"):
        run["run"](["false"], tmp_path, {"PATH": "/usr/bin:/bin"})


def test_a_task_hides_the_packages_of_the_runtime(run):
    hidden = ("SPARK_HOME", "PYSPARK_PYTHON", "PYTHONPATH", "DATABRICKS_RUNTIME_VERSION")
    kept = {"HOME": "/root", "DATABRICKS_HOST": "https://adb.example"}
    assert run["clean"](dict.fromkeys(hidden, "/x") | kept) == kept
