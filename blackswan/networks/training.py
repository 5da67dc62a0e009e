"""A loop of Adam that can be killed at any moment and ends with the bytes of one that was not.

Each step draws its randomness from a generator of its own, so a checkpoint is tensors only: the
network, what Adam remembers, and the losses so far.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from blackswan.errors import InputError
from blackswan.networks.checkpoints import last_complete, mark_complete, remove

SECONDS_BETWEEN_CHECKPOINTS = 60.0  # when they are written changes no result
DECAY_AT, DECAY = 0.95, 0.1  # the learning rate falls once, after this share of the steps
STATE = "state.safetensors"
LINES = 10  # a fit prints about so many, for a log file shows no bar


@dataclass(frozen=True)
class Schedule:
    """How long and how fast Adam learns."""

    steps: int
    learning_rate: float
    weight_decay: float  # an L2 penalty, as in Adam, not decoupled as in AdamW

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.learning_rate * (DECAY if step >= int(DECAY_AT * self.steps) else 1)


def train(
    network: nn.Module,
    loss: Callable[[int], Tensor],
    schedule: Schedule,
    folder: Path,
    name: str,
    begin: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Minimise loss(step) over the trainable parameters; return the loss of each step (steps,).

    Goes on from the last complete checkpoint in `folder`, which is named by `fingerprint`; without
    one calls `begin` first. Raises InputError where the loss is no longer a number, and as one of
    several processes, which would write the same files.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"{name} is learnt by one process; start its stage by `dvc repro` or `python` alone"
        )
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, weight_decay=schedule.weight_decay)
    losses = np.zeros(schedule.steps, np.float32)
    checkpoint = last_complete(folder)
    if checkpoint is None:
        begin()
        start = 0
        _save(folder, 0, network, optimizer, losses)
    else:
        start = _restore(checkpoint, network, optimizer, losses)
    saved, stretch = time.monotonic(), max(1, schedule.steps // LINES)
    steps = tqdm(range(start, schedule.steps), name, schedule.steps, initial=start, disable=None)
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate_at(step)
        optimizer.zero_grad()
        value = loss(step)
        losses[step] = value.item()
        if not np.isfinite(losses[step]):
            raise InputError(f"{name}: the loss is not finite at step {step}; lower learning_rate")
        value.backward()
        optimizer.step()
        if (step + 1) % stretch == 0:
            mean = losses[step + 1 - stretch : step + 1].mean()
            tqdm.write(f"{name}: step {step + 1} of {schedule.steps}, loss {mean:.5f}")
        if time.monotonic() - saved >= SECONDS_BETWEEN_CHECKPOINTS or step + 1 == schedule.steps:
            _save(folder, step + 1, network, optimizer, losses)
            saved = time.monotonic()
    return losses


@contextmanager
def torch_seed(rng: np.random.Generator) -> Iterator[None]:
    """Let what torch draws inside the block (initial weights, dropout) depend on `rng` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        yield


class Shuffled:
    """The item of each step when `count` items are taken in passes of random order."""

    def __init__(self, count: int, generator_of_pass: Callable[[int], np.random.Generator]) -> None:
        self.count, self.generator_of_pass = count, generator_of_pass
        self.number, self.order = -1, np.empty(0, np.int64)  # of the pass that was asked for last

    def __getitem__(self, step: int) -> int:
        number, place = divmod(step, self.count)
        if number != self.number:
            self.number, self.order = number, self.generator_of_pass(number).permutation(self.count)
        return int(self.order[place])


def curve(losses: np.ndarray, points: int = 100) -> str:
    """Return the mean loss of up to `points` equal stretches as CSV: step, loss."""
    stretches = np.array_split(losses.astype(np.float64), min(points, len(losses)))
    ends = np.cumsum([len(stretch) for stretch in stretches])
    rows = [f"{end},{stretch.mean():.6g}\n" for end, stretch in zip(ends, stretches, strict=True)]
    return "step,loss\n" + "".join(rows)


def _save(
    folder: Path, step: int, network: nn.Module, optimizer: torch.optim.Adam, losses: np.ndarray
) -> None:
    """Write checkpoint-<step>, mark it complete, then delete those before it."""
    before = sorted(folder.glob("checkpoint-*"))
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for number, memory in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{name}": tensor for name, tensor in memory.items()}
    tensors["losses"] = torch.from_numpy(losses)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, checkpoint / STATE)
    mark_complete(checkpoint)
    for old in before:
        if old != checkpoint:
            remove(old)


def _restore(
    checkpoint: Path, network: nn.Module, optimizer: torch.optim.Adam, losses: np.ndarray
) -> int:
    """Read what `_save` wrote into the three; return the step to go on with."""
    tensors = load_file(checkpoint / STATE)
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "adam": {}}
    losses[:] = tensors.pop("losses").numpy()
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    network.load_state_dict(parts["network"])
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    memories: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["adam"].items():
        number, _, key = name.partition(".")
        # In the memory layout of its parameter, as it was: sums must round the same way.
        same_layout = torch.empty_like(parameters[int(number)]) if tensor.ndim else tensor
        memories.setdefault(int(number), {})[key] = same_layout.detach().copy_(tensor)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": memories, "param_groups": groups})
    return int(checkpoint.name.split("-")[1])
