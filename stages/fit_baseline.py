"""params -> data/models/median_residual: the baseline that every table holds; it learns nothing.

A detector that does not beat it has not earned its keep. `dvc repro fit_baseline`
"""

from pathlib import Path

from blackswan.detectors import median_residual
from blackswan.errors import run
from blackswan.outputs import replace_folder
from blackswan.params import load_section

MODEL = Path("data/models/median_residual")


def main() -> None:
    """Save the baseline with its params."""
    params = load_section(median_residual.Params, "fit_baseline")
    with replace_folder(MODEL) as folder:
        median_residual.Detector(params).save(folder)
    print(f"{MODEL}: {params.kernel} pixel median, {params.blur} pixel box")


if __name__ == "__main__":
    run(main)
