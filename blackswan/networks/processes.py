"""Several processes that train one network: of torchrun, accelerate launch or TorchDistributor.

They share each batch of a lone process and learn what it learns, up to rounding. Rank 0 alone
writes.
"""

import os
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed
from torch.nn import functional

from blackswan.errors import InputError

if TYPE_CHECKING:
    from accelerate import PartialState

SECONDS_FOR_RANK_0 = 10.0  # in which it says what is wrong, and the launcher ends the others


def use_cpu() -> bool:
    """Tell whether networks run on the CPU: there is no GPU, or accelerate is told to leave it."""
    from accelerate.utils import parse_flag_from_env  # takes seconds to import

    return not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")


def join() -> "PartialState":
    """Return what accelerate knows of this process and the others, which it waits for."""
    from accelerate import PartialState

    if not use_cpu():
        return PartialState()
    if "LOCAL_RANK" in os.environ:  # there is a launcher
        # accelerate's own name, cpu:0, is one that torch loads no checkpoint to.
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    # Without `cpu` it takes each of several processes on a CPU for a lone one.
    return PartialState(cpu=True)


def share_of(batch_size: int, key: str) -> int:
    """Return how many images of a batch each process takes; `key` in params.yaml is its size."""
    processes = join().num_processes
    if batch_size % processes:
        near = max(processes, batch_size // processes * processes)
        raise InputError(
            f"{key} = {batch_size} cannot be shared by {processes} processes; choose a multiple of "
            f"{processes}, such as {near}, or start another number of processes"
        )
    return batch_size // processes


def mean_loss(loss: Callable[..., Tensor], found: Tensor, wanted: Tensor, count: Tensor) -> Tensor:
    """Return the mean of `loss` of torch over `count` values of each process that trains.

    Several processes divide its sum by the mean of their counts, not each by its own: then the mean
    of their gradients, which DistributedDataParallel takes, is that of the whole batch.
    """
    if not distributed.is_initialized():
        return loss(found, wanted)
    mean = count.float()
    distributed.all_reduce(mean)
    return loss(found, wanted, reduction="sum") / (mean / distributed.get_world_size())


def computed_together(
    compute: Callable[[range], dict[str, Tensor]], rows: int, batch_size: int
) -> Iterator[dict[str, Tensor]]:
    """Yield what `compute` makes of each batch of rows, in their order, to every process.

    The processes take turns with the batches. Each tensor has the rows of the batch first.
    """
    state = join()
    processes = state.num_processes
    for start in range(0, rows, processes * batch_size):
        starts = [start + process * batch_size for process in range(processes)]
        batches = [range(rows)[begin : begin + batch_size] for begin in starts]
        # One without a batch takes part in the exchange all the same.
        made = compute(batches[state.process_index] or range(1))
        if processes == 1:
            yield made
            continue
        everything = {name: _gathered(value, batch_size, state) for name, value in made.items()}
        for process, batch in enumerate(batches):
            if batch:
                yield {name: all_[process][: len(batch)] for name, all_ in everything.items()}


def _gathered(value: Tensor, rows: int, state: "PartialState") -> tuple[Tensor, ...]:
    """Return the tensor of each process, filled up to `rows` rows."""
    missing = [0, 0] * (value.ndim - 1) + [0, rows - len(value)]
    own = functional.pad(value, missing).to(state.device)
    others = [torch.empty_like(own) for _ in range(state.num_processes)]
    distributed.all_gather(others, own)
    return tuple(other.cpu() for other in others)


def one_voice(main: Callable[[], None]) -> Callable[[], None]:
    """Let rank 0 say what went wrong for all, and another only what rank 0 does not know.

    The launcher ends all processes once one has ended.
    """

    @wraps(main)
    def spoken() -> None:
        try:
            main()
        except BaseException:
            if os.environ.get("RANK", "0") != "0":
                time.sleep(SECONDS_FOR_RANK_0)
            raise

    return spoken
