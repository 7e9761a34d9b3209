"""Memory that stays where it is, for tensors that are made anew in every pass.

torch's own CUDA graphs (`mode="reduce-overhead"`) assume that a tensor on a module stays where it
is, and are recorded anew when it has moved.
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

StaticMemory = dict[Hashable, list[Tensor]]
"""Places by what they are for."""


def places(memory: StaticMemory, key: Hashable, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Where `tensors` are to lie: where those of `key` lay, if they were of these shapes."""
    buffers = memory.get(key)
    if buffers is None or list(map(_kind, buffers)) != list(map(_kind, tensors)):
        buffers = memory[key] = [torch.empty_like(t, requires_grad=False) for t in tensors]
    return buffers


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


@torch.no_grad()
def moved(tensor: Tensor, place: Tensor | None) -> Tensor:
    """The numbers of `tensor` in the memory of `place`; `tensor` itself where that is None.

    It shares the version counter of `place`, so a backward pass that saved it raises after the
    memory was overwritten.
    """
    return tensor if place is None else place.copy_(tensor).detach()
