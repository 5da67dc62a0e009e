"""One task of the job: the commands of a laptop, in a copy of the repository on the node's disk.

    python databricks/run.py REPOSITORY VOLUME --repro label --then blackswan --version

The cache of DVC lies on the volume. A stage that an earlier task ran, or an earlier run of the job
with the same source and params, is found there and not run again, so tasks share nothing else. The
packages are those of constraints.txt, in an environment of their own: the runtime's do not fit.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

STAGE = "python stages/train_vit.py"
ON_PROCESSES = "python -m blackswan.distributed.training --processes {}"
LEFT_OUT = (".git", ".venv", "cache", "tmp", "config.local", "__pycache__", ".databricks")
OVERRIDE = (
    "import sys; from dvc.utils.hydra import apply_overrides as f; f('params.yaml', sys.argv[1:])"
)
# No Git comes along, and a volume has no links.
CONFIG = """\
[core]
    no_scm = true
[cache]
    dir = {cache}
    type = copy
"""
# By these variables programs of the environment would take the runtime's Spark, packages or login.
OF_THE_RUNTIME = ("DATABRICKS_RUNTIME", "SPARK_", "PYSPARK_", "PYTHON")


def environment(repository: Path, disk: Path) -> Path:
    """Return the python of an environment with our packages, made where the node has none."""
    pinned = (repository / "constraints.txt").read_bytes()
    wanted = (repository / "pyproject.toml").read_bytes()
    folder = disk / f"blackswan-{hashlib.sha256(pinned + wanted).hexdigest()[:12]}"
    python, complete = folder / "bin/python", folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        run([sys.executable, "-m", "virtualenv", "--quiet", str(folder)], disk, clean(os.environ))
        install = [str(python), "-m", "pip", "install", "--quiet", "--constraint"]
        packages = [str(repository / "constraints.txt"), f"{repository}[mlflow,spark]"]
        run([*install, *packages], disk, clean(os.environ))
        complete.touch()
    return python


def clean(variables: "os._Environ[str]") -> dict[str, str]:
    """Return the variables less those of the runtime's own Python and Spark."""
    return {name: value for name, value in variables.items() if not name.startswith(OF_THE_RUNTIME)}


def run(command: list[str], folder: Path, variables: dict[str, str]) -> None:
    """Run a command; end the task where it fails, for it has said why."""
    print("$", *command, flush=True)
    # Through a pipe: what a child writes to its own output, a task of Databricks does not show.
    with subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
    if process.returncode:
        sys.exit(f"error: {command[0]} ended with exit code {process.returncode}; see above")


def main(arguments: list[str]) -> None:
    """Copy, configure, reproduce, then run the command."""
    parser = argparse.ArgumentParser(prog="run.py")
    parser.add_argument("repository", type=Path)
    parser.add_argument("volume", type=Path)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of params.yaml")
    parser.add_argument("--processes", type=int, default=1, help="that train the ViT")
    parser.add_argument("--repro", nargs="*", default=[], help="stages, with all before them")
    parser.add_argument("--python", type=Path, help="of a ready environment")
    parser.add_argument("--disk", type=Path, default=Path("/local_disk0"))
    parser.add_argument("--then", nargs=argparse.REMAINDER, default=[], help="a command")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory(prefix="blackswan-", dir=options.disk) as folder:
        work = Path(folder, "repository")
        shutil.copytree(options.repository, work, ignore=shutil.ignore_patterns(*LEFT_OUT))
        python = options.python or environment(work, options.disk)
        variables = clean(os.environ) | {
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(work),
            "DVC_NO_ANALYTICS": "true",
        }
        settings = CONFIG.format(cache=options.volume.resolve() / "cache")
        (work / ".dvc/config.local").write_text(settings, encoding="utf-8")
        if options.set:
            run([str(python), "-c", OVERRIDE, *options.set], work, variables)
        if options.processes > 1:
            train_on(options.processes, work / "dvc.yaml")
        if options.repro:
            run([str(python), "-m", "dvc", "repro", *options.repro], work, variables)
        if options.then:
            run(options.then, work, variables)


def train_on(processes: int, pipeline: Path) -> None:
    """Let dvc.yaml train the ViT on several processes."""
    text = pipeline.read_text(encoding="utf-8")
    if text.count(STAGE) != 1:
        sys.exit(f"error: {pipeline.name} has no single `{STAGE}`; mend STAGE in databricks/run.py")
    pipeline.write_text(text.replace(STAGE, ON_PROCESSES.format(processes)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
