"""Another update in the place of an adapter's own, for as long as something is measured."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from adapters.export.updates import LayerUpdate
from adapters.merging.base_weights import put_weight, restore_weight, weight_of


@contextmanager
def in_force(
    updates: Sequence[LayerUpdate], delta: Callable[[LayerUpdate], Tensor | None]
) -> Iterator[None]:
    """Inside, the model computes with W + delta in place of all adapters; heads stay as they are.

    The sum is taken in float32 and rounded once to the dtype of W, as a merge does it. Afterwards
    the model is as before, bit for bit.

    Args:
        updates: The adapted layers, see `layer_updates`.
        delta: Maps a layer to what is added to its W, (out, in); None leaves W alone.

    Raises:
        ValueError: The adapter is merged, or a weight is quantised.
    """
    if any(update.layer.merged for update in updates):
        raise ValueError("the adapter is merged: call `unmerge_adapter` first")
    for update in updates:
        weight = weight_of(update.layer.get_base_layer())
        if not weight.is_floating_point():
            raise ValueError(
                f"the weight of {update.name!r} is quantised ({weight.dtype}), and nothing "
                "can be added to it exactly: load the base dequantised"
            )
    originals = []
    try:
        for update in updates:
            added, base = delta(update), update.layer.get_base_layer()
            if added is not None:
                new = _sum(weight_of(base), added.T if isinstance(base, Conv1D) else added)
                originals.append((base, put_weight(base, new)))
            update.layer.merged_adapters = [update.adapter]  # so that only the base layer computes
        yield
    finally:
        for base, weight in originals:
            restore_weight(base, weight)
        for update in updates:
            update.layer.merged_adapters = []


@torch.no_grad()
def _sum(weight: Tensor, added: Tensor) -> Tensor:
    return (weight.float() + added.to(weight.device, torch.float32)).to(weight.dtype)
