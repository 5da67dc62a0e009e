"""Seconds per training step: by the Trainer of stages/train_vit.py, or by a bare torch loop.

Both read the same rows through the same dataset in shuffled batches, and both step the same AdamW.
The bare loop has no schedule, no clipping of gradients and no callbacks. pipeline.py starts it in a
folder laid out like the repository: `python benchmarks/training.py trainer 2 6` prints a JSON list.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from train_vit import DATASET, WEIGHTS, Params, train
from transformers import TrainerCallback, set_seed

from blackswan.data.dataset import Split
from blackswan.detectors import vit
from blackswan.params import load_section


class Enough(Exception):  # noqa: N818 - not an error
    """As many steps as were asked for are done; ends the Trainer before it evaluates and saves."""


def time_trainer(
    network: vit.Network, inputs: vit.Input, params: Params, steps: int
) -> list[float]:
    """Return when each step of the stage's own Trainer ended."""
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            ends.append(time.perf_counter())
            if len(ends) == steps:
                raise Enough

    with mock.patch("train_vit.Progress", return_value=Clock()):
        try:
            train(network, inputs, params, Path("data/checkpoints/benchmark/run"))
        except Enough:
            return ends
    raise SystemExit(f"error: the train split ends after {len(ends)} of {steps} steps")


def time_loop(network: vit.Network, inputs: vit.Input, params: Params, steps: int) -> list[float]:
    """Return when each step of the bare loop ended."""
    heads = {id(parameter) for parameter in network.heads}
    body = [parameter for parameter in network.parameters() if id(parameter) not in heads]
    groups: list[dict[str, Any]] = [
        {"params": body, "lr": params.learning_rate},
        {"params": network.heads, "lr": params.head_learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=params.weight_decay)
    rows = vit.TrainingRows(Split(DATASET, "train"), inputs)
    batches = torch.utils.data.DataLoader(rows, batch_size=params.batch_size, shuffle=True)
    network.train()
    ends = []
    for _, batch in zip(range(steps), batches, strict=False):
        network(**batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        ends.append(time.perf_counter())
    return ends


def main() -> None:
    """Print the seconds of each step after the warm-up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["trainer", "loop"])
    parser.add_argument("warm_up", type=int, help="steps that do not count")
    parser.add_argument("steps", type=int, help="steps that do")
    arguments = parser.parse_args()

    params = load_section(Params, "train_vit")
    set_seed(params.seed)
    inputs = vit.Input.of_weights(WEIGHTS / params.backbone, params.image_size)
    network = vit.Network.from_weights(WEIGHTS / params.backbone)
    time_side = {"trainer": time_trainer, "loop": time_loop}[arguments.side]
    ends = time_side(network, inputs, params, arguments.warm_up + arguments.steps)
    seconds = [end - begin for begin, end in zip(ends, ends[1:], strict=False)]
    print(json.dumps(seconds[arguments.warm_up - 1 :]))


if __name__ == "__main__":
    main()
