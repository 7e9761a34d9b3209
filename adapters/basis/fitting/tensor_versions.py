"""Whether tensors have changed since something was computed from them.

torch counts the in-place changes of a tensor, but not those that go through `.data`, as most code
for moving averages writes them, nor those of fused optimizers (torch 2.13).
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from adapters.torch_types import never_compiled

_steps: list[int] = []


@never_compiled
def _count(*_: Any) -> None:
    _steps[0] += 1


def optimizer_steps() -> int:
    """Steps of all optimizers of this process since the first call, which starts the count."""
    if not _steps:
        _steps.append(0)
        register_optimizer_step_post_hook(_count)
    return _steps[0]


def count_step() -> None:
    """Count a step that torch's hooks did not see, since it was replayed from a CUDA graph."""
    optimizer_steps()
    _count()


class Mark(NamedTuple):
    """What torch knows of a tensor without reading its numbers."""

    version: int
    """Counts in-place changes; inference tensors have none."""
    place: int
    """Changed by an assignment to `.data`."""
    trained: bool


def mark(tensor: Tensor) -> Mark:
    """The mark of `tensor`; it does not wait for the device."""
    version = 0 if tensor.is_inference() else tensor._version
    return Mark(version, tensor.data_ptr(), tensor.requires_grad)


@torch.no_grad()
def same_numbers(now: Sequence[Tensor], then: Sequence[Tensor]) -> bool:
    """Whether tensors hold the same numbers, pair by pair; waits for the device once."""
    groups: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = defaultdict(
        lambda: ([], [])
    )
    for pair in zip(now, then, strict=True):
        for tensor, group in zip(pair, groups[pair[0].device, pair[0].dtype], strict=True):
            group.append(tensor.reshape(-1))
    return all(torch.equal(torch.cat(new), torch.cat(old)) for new, old in groups.values())
