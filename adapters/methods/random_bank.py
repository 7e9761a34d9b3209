"""Frozen random numbers that many layers share and no file holds."""

from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor


class Bank:
    """Random numbers that are the same for the same arguments, kept once a device.

    Entries are uniform on [-1, 1]; drawn on the CPU, so that they do not depend on the device.
    """

    def __init__(self, *shape: int, seed: int) -> None:
        self._shape, self._seed = shape, seed
        self._copies: dict[torch.device, Tensor] = {}

    @torch.inference_mode(False)  # what is kept serves training too
    def on(self, device: torch.device) -> Tensor:
        """The numbers, float32 of the shape given."""
        if device not in self._copies:
            draw = torch.rand(self._shape, generator=torch.Generator().manual_seed(self._seed))
            self._copies[device] = (2 * draw - 1).to(device)
        return self._copies[device]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Bank":
        return self


_BANKS: WeakValueDictionary[tuple[int, ...], Bank] = WeakValueDictionary()


def bank(*shape: int, seed: int) -> Bank:
    """One bank for all layers of a shape, as long as one of them lives."""
    key = (seed, *shape)
    entry = _BANKS.get(key)
    if entry is None:
        entry = _BANKS[key] = Bank(*shape, seed=seed)
    return entry
