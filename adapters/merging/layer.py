"""Merging: W' in the place of W, and W back bit for bit."""

import copy
import warnings
from abc import abstractmethod
from collections.abc import Sequence

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from peft.utils.quantization_utils import QuantizationBackend
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adapters.merging.base_weights import put_weight, restore_weight, without_parametrization


class MergingLayer(BaseTunerLayer):
    """How a layer with adapters puts them into its base layer.

    The original is kept: subtracting the update again would not give W back in bfloat16, and
    quantising anew is lossy.
    """

    base_layer: nn.Module
    parameter_name: str = "weight"
    """The parameter of the innermost base layer that the adapters change."""
    quantization_backend: QuantizationBackend | None = None
    tied_to: Sequence["MergingLayer"] = ()
    """The layer whose weight is this one's too, if there is one."""
    _unmerged: nn.Module | list[nn.Parameter] | None
    """What stood where W' stands: the base layer whole, or its parameter (in a list, so that it is
    not registered). Each layer sets it to None: a class attribute would hide a module."""

    @abstractmethod
    def changes_weight(self, adapter: str) -> bool:
        """Whether `adapter` has an update for the weight of this layer."""

    @abstractmethod
    def merged_weight(self, weight: Tensor, adapters: Sequence[str]) -> Tensor:
        """W' of the base parameter `weight` with `adapters`: one sum, rounded once."""

    def get_base_weight(self) -> Tensor:
        """W in the layout of the base layer, dequantised where it is quantised."""
        if self.quantization_backend is not None:
            return super().get_base_weight()
        weight: Tensor = getattr(self.get_base_layer(), self.parameter_name).data
        return weight

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put W' in the place of W; W is kept, so that `unmerge` restores it bit for bit.

        Raises:
            ValueError: `safe_merge` is on and W' is not finite, or the base cannot take it.
        """
        names = check_adapters_to_merge(self, adapter_names) or []
        names = [name for name in names if self.changes_weight(name)]
        if not names:
            return
        self._require_mergeable()
        merged = self.merged_adapters + names
        weight = self._unmerged_weight()
        # in inference mode W' would be of no use to training
        with torch.inference_mode(weight.is_inference()), torch.no_grad():
            new = self.merged_weight(weight, merged)
            if safe_merge and not torch.isfinite(new).all():
                raise ValueError(
                    "NaNs detected in the merged weights. The adapter "
                    f"{', '.join(names)} seems to be broken"
                )
            if self._unmerged is not None:
                self._restore()
            self._replace_weight(new, merged)
        self.merged_adapters = merged

    def _replace_weight(self, new: Tensor, names: list[str]) -> None:
        base, name = self.get_base_layer(), self.parameter_name
        if self.quantization_backend is not None:
            self._unmerged, self.base_layer = self.base_layer, copy.deepcopy(self.base_layer)
            self.set_base_weight(new)
        elif parametrize.is_parametrized(base, name):
            self._unmerged = self.base_layer
            self.base_layer = without_parametrization(base)
            put_weight(self.base_layer, new, name)
        elif [donor.merged_adapters for donor in self.tied_to] == [names]:
            self._unmerged = [getattr(base, name)]
            setattr(base, name, self.tied_to[0].get_base_layer().weight)
        else:
            self._unmerged = [put_weight(base, new, name)]

    def unmerge(self) -> None:
        """Put W back."""
        if not self.merged:
            warnings.warn("already unmerged, nothing to do", stacklevel=2)
            return
        self._restore()
        self.merged_adapters = []

    def _unmerged_weight(self) -> Tensor:
        """W, even while W' is in its place."""
        if isinstance(self._unmerged, list):
            return self._unmerged[0].data.to(self.get_base_weight())
        if self._unmerged is None:
            return self.get_base_weight()
        merged, self.base_layer = self.base_layer, self._unmerged
        try:
            return self.get_base_weight()
        finally:
            self.base_layer = merged

    def _restore(self) -> None:
        if isinstance(self._unmerged, list):
            (original,) = self._unmerged
            restore_weight(self.get_base_layer(), original, self.parameter_name)
        else:
            assert self._unmerged is not None, "something was merged"
            self.base_layer = self._unmerged
        self._unmerged = None

    def _require_mergeable(self) -> None:
        base, backend, name = self.get_base_layer(), self.quantization_backend, self.parameter_name
        kind = type(base).__name__
        if backend is not None:
            if not backend.supports_merge:
                raise _quantised(kind)
            return
        if parametrize.is_parametrized(base, name):
            if base is not self.base_layer:
                raise ValueError(
                    f"cannot merge into {kind}, whose {name!r} is parametrized, below another "
                    "adapter: merge that one first"
                )
        elif name not in base._parameters:
            raise ValueError(
                f"cannot merge into {kind}, which makes its {name!r} anew in every forward pass: "
                "make it a plain parameter first, as torch.nn.utils.remove_weight_norm does"
            )
        elif not getattr(base, name).is_floating_point():
            raise _quantised(kind)
        elif hasattr(getattr(base, name), "ds_id"):
            raise ValueError(
                f"cannot merge into {kind}, whose weight DeepSpeed's ZeRO-3 holds: save the "
                "adapter inside deepspeed.zero.GatheredParameters (the Trainer does), load it onto "
                "the model in one process, and merge there"
            )


def _quantised(kind: str) -> ValueError:
    return ValueError(
        f"cannot merge into {kind}, whose weight is quantised: serve it unmerged, export by "
        "adapters.export.to_lora, or load the base dequantised"
    )
