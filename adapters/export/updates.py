"""The update of every adapted layer, of our own and of PEFT's methods, ready to decompose."""

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from peft.tuners.adalora.layer import AdaLoraLayer
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters.basis.layers import BasisLayer, BasisParameter
from adapters.export.svd import Factors, leading, of_product
from adapters.placement.module_names import IN_PEFT


class LayerUpdate(ABC):
    """What an adapter adds to the weight of one layer.

    Attributes:
        name: The layer's name in the base model.
        layer: The adapted layer.
        adapter: The adapter's name.
        shape: (out, in).
        energy: The update's squared Frobenius norm.
    """

    def __init__(self, name: str, layer: BaseTunerLayer, adapter: str) -> None:
        self.name, self.layer, self.adapter = name, layer, adapter
        self._decomposition: Factors | None = None

    shape: tuple[int, int]
    energy: float

    @abstractmethod
    def dense(self) -> Tensor:
        """The update, (out, in) in float32 or better."""

    @abstractmethod
    def _decompose(self, count: int) -> Factors: ...

    @property
    def largest_rank(self) -> int:
        """How many singular triples there are at most."""
        return min(self.shape)

    def leading(self, count: int) -> Factors:
        """At least the `count` leading triples, or all that there are."""
        count = min(count, self.largest_rank)
        if self._decomposition is None or len(self._decomposition.s) < count:
            self._decomposition = self._decompose(count)
        return self._decomposition

    @property
    def cost(self) -> int:
        """LoRA parameters for each rank."""
        return sum(self.shape)


class DenseUpdate(LayerUpdate):
    """An update that exists only as a whole matrix; computed anew each time, never kept."""

    def __init__(self, name: str, layer: BaseTunerLayer, adapter: str) -> None:
        super().__init__(name, layer, adapter)
        update = self.dense()
        rows, columns = update.shape
        self.shape, self.energy = (rows, columns), float(update.double().square().sum())

    def dense(self) -> Tensor:
        """As `LayerUpdate.dense`."""
        with torch.no_grad():
            layer: Any = self.layer  # PEFT's layers have the method, their base class has not
            update: Tensor = layer.get_delta_weight(self.adapter).float()
        # the layout of the weight: GPT-2's Conv1D holds (in, out)
        return update.T if isinstance(self.layer.get_base_layer(), Conv1D) else update

    def _decompose(self, count: int) -> Factors:
        return leading(self.dense(), count)


class LoraUpdate(LayerUpdate):
    """A product of factors, LoRA's or AdaLoRA's, decomposed by its r x r core (PARA)."""

    def __init__(self, name: str, layer: LoraLayer, adapter: str) -> None:
        super().__init__(name, layer, adapter)
        self.b, self.a = (factor.detach() for factor in _factors(layer, adapter))
        self.shape = (self.b.shape[0], self.a.shape[1])
        self._decomposition = of_product(self.b, self.a)
        self.energy = float(self._decomposition.s.square().sum())

    @property
    def largest_rank(self) -> int:
        """The rank of the factors."""
        return min(*self.shape, self.a.shape[0])

    def dense(self) -> Tensor:
        """As `LayerUpdate.dense`."""
        return self.b.float() @ self.a.float()

    def _decompose(self, count: int) -> Factors:
        return of_product(self.b, self.a)


def _factors(layer: LoraLayer, adapter: str) -> tuple[Tensor, Tensor]:
    """B with the scale, (out, r), and A (r, in); `_update` has looked at their kinds."""
    b, a, scale = (cast(Any, of[adapter]) for of in (layer.lora_B, layer.lora_A, layer.scaling))
    if isinstance(layer, AdaLoraLayer):
        return b * scale / (layer.ranknum[adapter] + 1e-5), a * layer.lora_E[adapter]
    return b.weight * scale, a.weight


def layer_updates(model: nn.Module, adapter: str = "default") -> list[LayerUpdate]:
    """The updates of all layers that carry `adapter`, in the model's order.

    Raises:
        ValueError: No layer does, or a layer's update is not an addition to a linear weight.
    """
    updates = []
    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer) and adapter in layer._get_available_adapters():
            updates.append(_update(name.removeprefix(IN_PEFT), layer, adapter))
    if not updates:
        raise ValueError(f"no layer of {type(model).__name__} carries an adapter {adapter!r}")
    return updates


def _update(name: str, layer: BaseTunerLayer, adapter: str) -> LayerUpdate:
    if isinstance(layer, LoraLayer):
        variant = getattr(layer, "lora_variant", {}).get(adapter)
        # LoRA on a parameter of its own, such as experts kept as one tensor, has that one's name
        matrix = adapter in layer.lora_A and getattr(layer, "parameter_name", None) is None
        plain = matrix and not hasattr(layer.get_base_layer(), "kernel_size")
        if variant is not None or not plain:
            other = "an embedding, a convolution or a parameter of several matrices"
            what = type(variant).__name__ if plain else other
            raise ValueError(f"{name!r} is LoRA on {what}, which a plain LoRA cannot express")
        return LoraUpdate(name, layer, adapter)
    if isinstance(layer, BasisParameter):
        kind = type(layer.get_base_layer()).__name__
        raise ValueError(
            f"{name!r} adapts {layer.parameter_name!r} of {kind}, and the export writes linear "
            "layers only: merge, or leave it out of `target_modules`"
        )
    if isinstance(layer, BasisLayer):
        return DenseUpdate(name, layer, adapter)  # a form that changes no weight says so
    if not (hasattr(layer, "get_delta_weight") and layer.supports_lora_conversion(adapter)):
        raise ValueError(
            f"{name!r} is a {type(layer).__name__}, whose update is not a matrix added to the "
            "weight; only additive methods can be exported as LoRA"
        )
    return DenseUpdate(name, layer, adapter)
