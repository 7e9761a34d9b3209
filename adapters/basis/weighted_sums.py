"""Weighted sums of adapters, and adapters at another strength for a while."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from peft.utils.other import ModulesToSaveWrapper
from torch import nn

from adapters.basis.config import BasisConfig
from adapters.basis.layers import BasisLayer


def weighted_config(
    configs: dict[str, BasisConfig], adapters: Sequence[str], weights: Sequence[float], name: str
) -> BasisConfig:
    """The settings under which PEFT keeps the weighted sum `name` of `adapters`.

    Raises:
        ValueError: An adapter is unknown or itself a sum, a weight is not finite, their numbers
            differ, or the name is taken.
    """
    if name in configs:
        raise ValueError(f"there is an adapter {name!r} already: delete it, or take another name")
    if not adapters or len(adapters) != len(weights):
        raise ValueError(f"expected one weight for each adapter, got {adapters} and {weights}")
    if unknown := [a for a in adapters if a not in configs]:
        raise ValueError(f"unknown adapters {unknown}; the model has {sorted(configs)}")
    if len(set(adapters)) < len(adapters):
        raise ValueError(f"an adapter stands in {adapters} more than once: add its weights up")
    if not all(math.isfinite(w) for w in weights):
        raise ValueError(f"weights must be finite numbers, got {weights}")
    config = copy.deepcopy(configs[adapters[0]])
    config.inference_mode = True
    return config


def weigh(model: nn.Module, adapters: Sequence[str], weights: Sequence[float], name: str) -> None:
    """Make `name` stand for the sum of weight times update on every layer of `model`.

    A module that one of them trained whole belongs to the sum too.

    Raises:
        ValueError: Several of them trained the same module whole.
    """
    trained = {m: [a for a in adapters if a in m.modules_to_save] for m in _whole(model)}
    if several := sum(len(own) > 1 for own in trained.values()):
        raise ValueError(
            "Cannot add weighted adapters if they target the same module with modules_to_save, but "
            f"found {several} such instance(s)."
        )
    for module, own in trained.items():
        for adapter in own:
            module.modules_to_save[name] = module.modules_to_save[adapter]
            module._adapters.add(name)
    for layer in (m for m in model.modules() if isinstance(m, BasisLayer)):
        shares = {a: float(w) for a, w in zip(adapters, weights, strict=True) if a in layer.scaling}
        if shares:
            layer.sums[name] = shares


def _whole(model: nn.Module) -> list[ModulesToSaveWrapper]:
    return [m for m in model.modules() if isinstance(m, ModulesToSaveWrapper)]


def sums_of(model: nn.Module, name: str) -> list[str]:
    """The weighted sums that the adapter `name` is part of, or the sum itself."""
    layers = (m for m in model.modules() if isinstance(m, BasisLayer))
    return sorted({s for m in layers for s, parts in m.sums.items() if name in (s, *parts)})


@contextmanager
def rescale_adapter_scale(model: nn.Module, multiplier: float) -> Iterator[None]:
    """Multiply the scale s of every adapter of `model` inside the context.

    PEFT's helper of the same name looks for LoRA's layers only. With a multiplier between 0 and 1
    this is WiSE-FT (Wortsman et al., 2022) between the base and the adapted model.

    Raises:
        TypeError: `multiplier` is no number.
        ValueError: The model has no adapter of this method, or one is merged.
    """
    if not isinstance(multiplier, int | float):
        raise TypeError(f"Argument multiplier should be of type float, got {type(multiplier)}")
    layers = [m for m in model.modules() if isinstance(m, BasisLayer)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no layer with an adapter to rescale")
    if any(layer.merged for layer in layers):
        raise ValueError("merged adapters keep their scale: call `unmerge_adapter` first")
    before = [layer.scaling for layer in layers]
    for layer in layers:
        layer.scaling = {name: s * multiplier for name, s in layer.scaling.items()}
    try:
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling = scaling
