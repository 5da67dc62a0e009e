"""What the Trainer of transformers logged by epoch, as curves of DVCLive and as a table."""

from pathlib import Path

import pandas as pd
from dvclive import Live


def write_curves(history: list[dict[str, float]], folder: Path) -> None:
    """Write DVCLive curves by epoch; durations stay out, for they never repeat."""
    names = {
        "loss": "train/loss",
        "eval_loss": "validation/loss",
        "learning_rate": "train/learning_rate",
    }
    with Live(str(folder), save_dvc_exp=False, dvcyaml=None, report=None) as live:
        for entry in history:
            live.step = round(entry["epoch"])
            for key, name in names.items():
                if key in entry:
                    live.log_metric(name, entry[key])


def write_losses(history: list[dict[str, float]], path: Path) -> None:
    """Write the loss of each epoch on train and validation, for the report of the detector."""
    epochs = pd.DataFrame(history).groupby("epoch").first()
    losses = epochs[["loss", "eval_loss"]].set_axis(["train", "validation"], axis="columns")
    losses.set_axis(losses.index.astype(int)).to_csv(path, float_format="%.6g")
