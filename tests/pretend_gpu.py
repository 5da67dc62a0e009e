"""A device that is not there: tensors that say they are on a GPU and are computed on the CPU.

What meets a tensor of another device fails as it does on a real GPU, `numpy()` fails, and like MPS
it has no float64. Numbers are those of the CPU, so that results can be compared bit by bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import accelerate
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from blackswan.networks import devices

GPU = torch.device("meta")  # the one that every build of torch lets a tensor name
aten = torch.ops.aten
# What takes indices of the CPU, and what copies between devices.
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}


class OnGpu(torch.Tensor):
    """A tensor of the CPU that says it is on the GPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "OnGpu":
        if inner.dtype == torch.float64:
            raise TypeError("the GPU has no float64")
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=GPU, requires_grad=False,
        )  # fmt: skip
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})

    def tolist(self) -> list:
        """Return what torch has for its own tensors alone."""
        return self.inner.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({self.inner!r})"


class Machine(TorchDispatchMode):
    """Everything that is computed passes here."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def on_gpu(value: object) -> bool:
    return isinstance(value, OnGpu)


def computed(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU; wrap what would be on the GPU, refuse what would meet it from outside."""
    if func.overloadpacket == aten.to:
        decomposed = func.decompose(*args, **kwargs)
        if decomposed is not NotImplemented:
            return decomposed
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if on_gpu(tensor)]
    target = kwargs.get("device")
    wrap = bool(there) if target is None else torch.device(target).type == GPU.type
    if target is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    if there and func not in INDEXING | {aten._to_copy.default, aten.copy_.default}:
        others = [tensor for tensor in tensors if not on_gpu(tensor) and tensor.ndim]
        if others:
            raise RuntimeError(f"{func}: tensors on two devices")
    mine = {id(tensor.inner): tensor for tensor in there}
    given = tree_map(lambda leaf: leaf.inner if on_gpu(leaf) else leaf, (args, kwargs))
    result = func(*given[0], **given[1])
    if func is aten.copy_.default:
        return args[0]

    def outside(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or on_gpu(leaf):
            return leaf
        if id(leaf) in mine:  # changed in place
            return mine[id(leaf)]
        return OnGpu(leaf) if wrap else leaf

    return tree_map(outside, result)


@contextmanager
def pretend_gpu(free: int = 10**9) -> Iterator[None]:
    """Give the machine a GPU with `free` bytes while the block runs."""
    # Tensors of inference mode take no wrapper; without gradients they compute the same.
    mode = torch.inference_mode
    devices.device.cache_clear()
    with pytest.MonkeyPatch.context() as patch, Machine():
        patch.setattr(mode, "__enter__", lambda self: vars(self).update(no=enter_no_grad()))
        patch.setattr(mode, "__exit__", lambda self, *error: self.no.__exit__(*error))
        patch.setattr(torch.accelerator, "is_available", lambda: True)
        patch.setattr(torch.accelerator, "empty_cache", lambda: None)
        patch.setattr(devices, "free_bytes", lambda _: free)
        state = type("State", (), {"device": GPU})
        patch.setattr(accelerate, "PartialState", state)
        try:
            yield
        finally:
            devices.device.cache_clear()


def enter_no_grad() -> torch.no_grad:
    entered = torch.no_grad()
    entered.__enter__()
    return entered
