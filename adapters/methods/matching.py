"""Choose a method's size for the number of trained parameters nearest to another arm's."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from adapters.merging.base_weights import weight_of
from adapters.methods.attachment import attach
from adapters.methods.registry import get_method
from adapters.training.parameters import count_parameters

ModelFactory = Callable[[], nn.Module]
"""Makes the model before adaptation; it is called on the meta device, so no weight is filled."""


def _attached(factory: ModelFactory, adapter: dict[str, Any]) -> nn.Module:
    with torch.device("meta"):
        model = factory()
    return attach(model.to("meta"), adapter)


def count(model_factory: ModelFactory, adapter: dict[str, Any]) -> int:
    """How many parameters `adapter` trains beside the task's head, found without weights.

    Raises:
        ValueError: As `attach`.
    """
    return count_parameters(_attached(model_factory, adapter))["adapter"]


def match(
    model_factory: ModelFactory, reference: dict[str, Any], adapter: dict[str, Any]
) -> dict[str, Any]:
    """The options of `adapter` with its size chosen to train about as much as `reference`.

    The size is the method's own (`Method.size`: rank, bases, coefficients). Of two sizes equally
    near the one that trains less is taken.

    Args:
        model_factory: Makes the model that both would adapt.
        reference: An `adapter:` mapping, whose count is the target.
        adapter: An `adapter:` mapping; what it says of its size does not matter.

    Returns:
        `adapter` (the mapping with its size set), `option` (the size's name, None where the
        method has none), `parameters` (what it trains) and `reference_parameters`.

    Raises:
        ValueError: As `attach`.
    """
    method = get_method(adapter["method"])
    target = count(model_factory, reference)
    chosen = dict(adapter)
    option = method.size
    if option is not None:
        # the widths of the adapted layers are those that the reference's smallest adapter shows
        shapes = _shapes(_attached(model_factory, {**adapter, option: 1}))
        sizes = method.sizes(min(min(shape) for shape in shapes))

        def trained(size: int) -> int:
            return count(model_factory, {**adapter, option: size})

        chosen[option] = _nearest(trained, sizes, target)
    return {
        "adapter": chosen,
        "option": option,
        "parameters": count(model_factory, chosen),
        "reference_parameters": target,
    }


def _shapes(model: nn.Module) -> list[tuple[int, ...]]:
    layers = (m for m in model.modules() if isinstance(m, BaseTunerLayer))
    return [tuple(weight_of(layer.get_base_layer()).shape) for layer in layers]


def _nearest(trained: Callable[[int], int], sizes: Sequence[int], target: int) -> int:
    """The size in `sizes` with `trained(size)` nearest to `target`, by bisection."""
    low, high = 0, len(sizes) - 1
    counts = {i: trained(sizes[i]) for i in (low, high)}
    rising = counts[low] <= counts[high]
    while high - low > 1:
        middle = (low + high) // 2
        counts[middle] = trained(sizes[middle])
        if (counts[middle] <= target) == rising:
            low = middle
        else:
            high = middle
    return sizes[min(counts, key=lambda i: (abs(counts[i] - target), counts[i]))]
