"""stages/train_vit.py on several processes of Spark's TorchDistributor, as Databricks starts them.

    python -m blackswan.distributed.training --processes 4

On one machine, from the top of the repository. `train(..., across_nodes=True)` spreads them over
the nodes of a cluster, in a folder that all of them see.
"""

import os
import runpy
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer

from blackswan.errors import InputError, cause, explained

if TYPE_CHECKING:
    from pyspark.ml.torch.distributor import TorchDistributor

STAGE = "stages/train_vit.py"


def run_stage(repository: str) -> None:
    """Run the stage as one of the processes."""
    os.chdir(repository)
    sys.argv = [STAGE]
    runpy.run_path(STAGE, run_name="__main__")


def train(repository: Path, processes: int, *, across_nodes: bool = False) -> None:
    """Train the ViT of a repository, in the Spark session that is active or in one of this machine.

    Raises InputError where a process ends with an error, which it has printed.
    """
    if not (repository / STAGE).is_file():
        raise InputError(f"{repository} has no {STAGE}; name the top of the repository")
    try:
        from pyspark.ml.torch.distributor import TorchDistributor
        from pyspark.sql import SparkSession
    except ImportError:
        raise InputError("Spark is not installed; `pip install -e .[spark]`") from None
    active = SparkSession.getActiveSession()
    if across_nodes and active is None:
        raise InputError("across_nodes has no Spark session; call it where a cluster gives one")
    if active is None and not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        raise InputError("Java is missing, which Spark needs; install Java 17 or name JAVA_HOME")
    session = active or (
        SparkSession.builder.master("local[1]")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    try:
        distributor = TorchDistributor(
            processes,
            local_mode=not across_nodes,
            # On one machine accelerate gives each process a GPU, without a word to Spark.
            use_gpu=across_nodes and torch.cuda.is_available(),
        )
        _run(distributor, repository, processes)
    except RuntimeError as error:
        raise InputError(f"TorchDistributor: {cause(error)}; mend the cluster") from None
    finally:
        if active is None:
            session.stop()


def _run(distributor: "TorchDistributor", repository: Path, processes: int) -> None:
    try:
        distributor.run(run_stage, str(repository.resolve()))
    except RuntimeError:  # which quotes all that the processes have printed
        raise InputError(
            f"one of {processes} processes of {STAGE} ended with an error; it stands above"
        ) from None


def main(
    processes: Annotated[int, typer.Option(min=1, help="one for each GPU")],
    repository: Annotated[Path, typer.Option(help="its top")] = Path(),
) -> None:
    """Train the ViT on several processes of this machine."""
    explained(lambda: train(repository, processes))


if __name__ == "__main__":
    typer.run(main)
