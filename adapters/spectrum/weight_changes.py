"""How training has changed each weight, for methods whose update is not a separate matrix."""

from copy import deepcopy

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters.export.updates import DenseUpdate
from adapters.merging.base_weights import weight_of
from adapters.placement.module_names import IN_PEFT, block_of
from adapters.placement.targets import adaptable


class WeightChange(DenseUpdate):
    """The weight of a layer with the adapter merged, minus its weight before."""

    layer: nn.Module  # type: ignore[assignment]  # of a model without adapters too

    def __init__(self, name: str, layer: nn.Module, adapter: str, before: nn.Module) -> None:
        self._before = before
        super().__init__(name, layer, adapter)  # type: ignore[arg-type]  # as `layer`

    @torch.no_grad()
    def dense(self) -> Tensor:
        """As `LayerUpdate.dense`."""
        layer = self.layer
        if isinstance(layer, BaseTunerLayer):
            merged = deepcopy(layer).float()  # a weight in half precision would round the update
            merged.merge(adapter_names=[self.adapter])
            layer = merged.get_base_layer()
        change = weight_of(layer).detach().float()
        change = change - weight_of(self._before).detach().to(change)
        return change.T if isinstance(layer, Conv1D) else change


def weight_changes(
    model: nn.Module, before: nn.Module, adapter: str = "default"
) -> list[WeightChange]:
    """The changes of all linear weights that `adapter` adapts, in the model's order.

    For a model without adapters, those of all linear layers of its blocks.

    Args:
        before: The model as it was, unadapted; it is only read.
    """
    modules_before = dict(before.named_modules())
    modules = dict(model.named_modules())
    names = [
        name
        for name, layer in modules.items()
        if isinstance(layer, BaseTunerLayer) and adapter in layer._get_available_adapters()
    ]
    if not names:
        names = [name for name in adaptable(model) if block_of(name) is not None]
    own = {name: name.removeprefix(IN_PEFT) for name in names}
    return [
        WeightChange(own[name], modules[name], adapter, modules_before[own[name]]) for name in names
    ]
