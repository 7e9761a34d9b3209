"""The PEFT tuner that methods of our own share; a method's file adds its mathematics only.

A method is an `Update`: the numbers of one adapted layer and what they add to its output. The
layer around it brings several adapters, merging, saving and loading.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.basis.field_types import require
from adapters.merging.layer import MergingLayer
from adapters.peft_integration.fixes import sparing_heads
from adapters.peft_integration.model_card import WithCard
from adapters.peft_integration.options import Indices, KnownOptions, Names, as_sets, setting
from adapters.peft_integration.registration import peft_type, register_with_peft
from adapters.placement.inspection import base_of, computes_linear, reads_weight

if TYPE_CHECKING:
    from adapters.torch_types import ModulesOf


@dataclass
class UpdateConfig(KnownOptions, WithCard, PeftConfig):
    """The options that all methods with this tuner have."""

    r: int = setting(8, "rank")
    alpha: float = setting(16.0, "the update is scaled by alpha / r")
    dropout: float = setting(0.0, "share of the update's input that is zeroed while training")
    target_modules: Names = setting(None, "names or a pattern of the modules to adapt")
    exclude_modules: Names = setting(None, "names or a pattern of modules to leave out")
    modules_to_save: list[str] | None = setting(
        None, "modules that are trained and saved whole, such as a head"
    )
    layers_to_transform: Indices = setting(None, "indices of the layers to adapt; all by default")
    layers_pattern: Names = setting(None, "name of the layer list, where PEFT does not know it")

    method: ClassVar[str] = ""
    """The name under which PEFT knows the method."""
    least_r: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]  # PEFT's
        self.peft_type = peft_type(self.method)
        as_sets(self)
        least = self.least_r
        require(isinstance(self.r, int) and self.r >= least, "r", f"an integer >= {least}", self.r)
        require(self.alpha > 0, "alpha", "positive", self.alpha)
        require(0 <= self.dropout < 1, "dropout", "at least 0 and below 1", self.dropout)


class Update(nn.Module, ABC):
    """What one adapter adds to one frozen linear layer; its input comes after the dropout."""

    mergeable: ClassVar[bool] = True
    """Whether the update is a change of the weight."""

    def __init__(self, base: nn.Linear, config: UpdateConfig) -> None:
        super().__init__()
        self.scaling = config.alpha / (config.r or 1)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """x (*, in) -> what is added to the layer's output, (*, out)."""

    def delta_weight(self) -> Tensor:
        """What is added to the weight, (out, in).

        Raises:
            ValueError: The method is not mergeable.
        """
        raise ValueError(
            f"{type(self).__name__} cannot be merged: what it adds is not a linear function of "
            "the input; evaluate and serve the adapter unmerged"
        )


class FactoredUpdate(Update):
    """dW = scaling * B A, never formed while training."""

    @abstractmethod
    def factors(self) -> tuple[Tensor, Tensor]:
        """B (out, k) and A (k, in), differentiable."""

    def forward(self, x: Tensor) -> Tensor:
        """scaling * x A^T B^T."""
        b, a = self.factors()
        return F.linear(F.linear(x.to(a.dtype), a), b) * self.scaling

    def delta_weight(self) -> Tensor:
        """scaling * B A."""
        b, a = self.factors()
        return b @ a * self.scaling


class UpdateLinear(nn.Module, MergingLayer):
    """`nn.Linear` (or a layer that wraps one) with one or more adapters of one method.

    `register_update` makes a class for each method, with `update_type` and, in
    `adapter_layer_names`, the one name under which updates are kept.
    """

    adapter_layer_names: tuple[str, ...] = ()
    other_param_names = ("dropout",)
    update_type: ClassVar[type[Update]]

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: UpdateConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.add_module(self.adapter_layer_names[0], nn.ModuleDict())
        self.dropout: dict[str, float] = {}
        self._disable_adapters, self.merged_adapters, self._unmerged = False, [], None
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    @property
    def updates(self) -> "ModulesOf[Update]":
        """The updates by adapter name."""
        updates: ModulesOf[Update] = getattr(self, self.adapter_layer_names[0])
        return updates

    @property
    def _linear(self) -> nn.Linear:
        """The innermost layer: `UpdateModel` adapts no other kind."""
        return cast(nn.Linear, self.get_base_layer())

    def update_layer(self, adapter_name: str, config: UpdateConfig) -> None:
        """Add the adapter `adapter_name`, or make it anew."""
        self.updates[adapter_name] = self.update_type(self._linear, config)
        self.dropout[adapter_name] = config.dropout
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        # the device only: PEFT would also round the numbers to the base's dtype
        device = device or self._linear.weight.device
        update = self.updates[adapter_name]
        if device.type != "meta" and not any(p.is_meta for p in update.parameters()):
            update.to(device)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """What `adapter` adds to the weight, (out, in) in float32."""
        return self.updates[adapter].delta_weight()

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """`peft.convert_to_lora` may read `get_delta_weight`."""
        return self.update_type.mergeable

    def changes_weight(self, adapter: str) -> bool:
        """Whether `adapter` is on this layer."""
        return adapter in self.updates

    def merged_weight(self, weight: Tensor, adapters: Sequence[str]) -> Tensor:
        """W + dW, summed in float32.

        Raises:
            ValueError: The method cannot be merged.
        """
        first, *others = map(self.get_delta_weight, adapters)
        update = sum(others, first)
        return (weight.to(update.dtype) + update).to(weight.dtype)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x (*, in) -> (*, out)."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        y: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return y
        for name in self.active_adapters:
            if name in self.updates:
                p = self.dropout[name] if self.training else 0.0
                y = y + self.updates[name](F.dropout(x, p) if p else x).to(y.dtype)
        return y

    def __repr__(self) -> str:
        return f"{self.adapter_layer_names[0].removesuffix('_update')}." + super().__repr__()


class UpdateModel(BaseTuner):
    """The tuner; `register_update` makes a class for each method, with its prefix and layer."""

    # PEFT's own tuners differ from their base class in the same way
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING  # type: ignore[assignment]
    tuner_layer_cls: type[UpdateLinear]
    _replace_module = sparing_heads(BaseTuner._replace_module)

    def _create_and_replace(  # type: ignore[override]  # PEFT passes the configuration of the tuner
        self,
        peft_config: UpdateConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional_kwargs: Any,
    ) -> None:
        if isinstance(target, self.tuner_layer_cls):
            target.update_layer(adapter_name, peft_config)
            return
        base = base_of(target)
        if not (isinstance(base, nn.Linear) and computes_linear(base)):
            raise ValueError(
                f"cannot adapt {current_key!r} of type {type(base).__name__}: expected nn.Linear, "
                "or a layer of it that computes x W^T + bias as it does; name only such in "
                "`target_modules`, or leave it out by `exclude_modules`"
            )
        if reads_weight(type(parent), target_name):  # type: ignore[arg-type]  # classes are hashable
            raise ValueError(
                f"cannot adapt {current_key!r}: {type(parent).__name__} reads its weight in place "
                "of calling it, so the adapter would do nothing; leave it out by `exclude_modules`"
            )
        new = self.tuner_layer_cls(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            new.requires_grad_(False)
        self._replace_module(parent, target_name, new, target)


def register_update(
    config: type[UpdateConfig], update: type[Update], model: type[UpdateModel] = UpdateModel
) -> None:
    """Register the method `config.method` with PEFT, with a tuner and a layer made for it.

    Args:
        config: The settings.
        update: What an adapter adds to a layer; saved under the method's name and `_update`.
        model: What the tuner does beside `UpdateModel`.
    """
    name, stem = config.method, update.__name__.removesuffix("Update")
    of_layer = {"adapter_layer_names": (f"{name}_update",), "update_type": update}
    layer = type(f"{stem}Linear", (UpdateLinear,), of_layer)
    tuner = type(f"{stem}Model", (model,), {"prefix": f"{name}_", "tuner_layer_cls": layer})
    for made in (layer, tuner):  # a pickle looks for them beside the update
        made.__module__ = update.__module__
        setattr(sys.modules[made.__module__], made.__name__, made)
    register_with_peft(name, config, tuner)
