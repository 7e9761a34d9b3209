"""A stand-in for a CUDA graph, on a machine without a GPU."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor


class Again:
    """A graph that does its work again, on the buffers it was captured with."""

    made: ClassVar[list["Again"]]
    numbers: ClassVar[int] = 2
    """That the captured work gives."""
    fails: ClassVar[Callable[[], None] | None] = None

    def __init__(self) -> None:
        self.replays = 0
        self.made.append(self)

    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        if self.fails is not None:
            self.fails()
        self._work = work
        self._values = torch.full((self.numbers,), torch.nan, dtype=torch.float64)
        return self._values

    def replay(self) -> None:
        self._values.copy_(self._work())
        self.replays += 1
