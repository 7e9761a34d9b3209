"""Memory that stays where it is, for tensors that are made anew in every pass.

torch's own CUDA graphs (`mode="reduce-overhead"`) assume that a tensor on a module stays where it
is, and are recorded anew when it has moved.
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


class StaticMemory:
    """A place for each of several tensors, by a key."""

    def __init__(self) -> None:
        self._places: dict[Hashable, list[Tensor]] = {}

    def places(self, key: Hashable, tensors: Sequence[Tensor]) -> list[Tensor | None]:
        """Where `tensors` are to lie: where those of `key` lay, if they were of these shapes."""
        buffers = self._places.get(key)
        if buffers is None or list(map(_kind, buffers)) != list(map(_kind, tensors)):
            buffers = self._places[key] = [
                torch.empty_like(t, requires_grad=False) for t in tensors
            ]
        return list(buffers)


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


@torch.no_grad()
def moved(tensor: Tensor, place: Tensor | None) -> Tensor:
    """The numbers of `tensor` in the memory of `place`; `tensor` itself where that is None.

    It shares the version counter of `place`, so a backward pass that saved it raises after the
    memory was overwritten.
    """
    return tensor if place is None else place.copy_(tensor).detach()
