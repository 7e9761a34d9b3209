"""A linear layer whose weight carries the update s phi(scale * B A)."""

import copy
import math
import warnings
from typing import Any, NamedTuple

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from peft.utils.quantization_utils import (
    ForwardOnlyQuantizationBackend,
    QuantizationBackend,
    resolve_quantization_backend,
)
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from adapters.base_weight import put_weight, restore_weight
from adapters.batch import Member, PhiBatch
from adapters.changes import mark
from adapters.config import BasisConfig
from adapters.ops.linear import make_weight, merged_linear, working_dtype
from adapters.ops.merge import merged_weight, product
from adapters.ops.update import weight_update
from basis_zoo import InputScale, Nonlinearity


class Execution(NamedTuple):
    """How a layer applies an adapter."""

    split: bool = False
    """Two products, with W and with the update, instead of one with W'."""
    stochastic: bool = False
    """While training, W' is rounded to bfloat16 up or down by chance."""
    merge_once: bool = False
    """W' (or the update) is kept until a number behind it changes."""


class BasisLinear(nn.Module, BaseTunerLayer):
    """`nn.Linear`, GPT-2's `Conv1D`, or a layer that wraps or quantises one, with adapters.

    Args:
        base_layer: The frozen layer.
        adapter_name: Name of the first adapter.
        r: Its rank.
        config: Its settings.
        batch: Where its phi is evaluated, together with those of the other layers.
        quantization: What PEFT's quantisation back ends need to know of the model.
    """

    adapter_layer_names = ("basis_A", "basis_B", "basis_phi", "basis_scale")
    other_param_names = ("r", "scaling", "batches", "execution")

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        r: int,
        config: BasisConfig,
        batch: PhiBatch,
        quantization: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        base = self.get_base_layer()
        self.transposed = isinstance(base, Conv1D)
        if self.transposed:
            self.in_features, self.out_features = base.weight.shape
        else:
            self.in_features, self.out_features = base.in_features, base.out_features
        self.quantization_backend = _quantization_backend(base, quantization or {})
        self.r: dict[str, int] = {}
        self.scaling: dict[str, float] = {}
        self.batches: dict[str, PhiBatch] = {}
        self.execution: dict[str, Execution] = {}
        self.basis_A, self.basis_B = nn.ParameterDict(), nn.ParameterDict()
        self.basis_phi, self.basis_scale = nn.ModuleDict(), nn.ModuleDict()
        self._disable_adapters, self.merged_adapters = False, []
        self._unmerged: nn.Module | list[nn.Parameter] | None = None
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, config, batch)

    def update_layer(self, adapter_name: str, r: int, config: BasisConfig, batch: PhiBatch) -> None:
        """Add the adapter `adapter_name`, or make it anew."""
        self.r[adapter_name], self.scaling[adapter_name] = r, config.alpha / r
        self.basis_A[adapter_name] = nn.Parameter(torch.empty(r, self.in_features))
        self.basis_B[adapter_name] = nn.Parameter(torch.zeros(self.out_features, r))
        self.basis_phi[adapter_name] = config.build_nonlinearity()
        scale = config.build_input_scale()
        if scale is not None:
            self.basis_scale[adapter_name] = scale
        nn.init.kaiming_uniform_(self.basis_A[adapter_name], a=math.sqrt(5))
        if not (config.init_weights and config.build_start().zero_b):
            nn.init.normal_(self.basis_B[adapter_name], std=config.b_std)
        if not config.init_weights:
            nn.init.normal_(self.basis_phi[adapter_name].amplitude)
        self.batches[adapter_name] = batch
        self.execution[adapter_name] = Execution(
            split=config.path == "split",
            stochastic=config.rounding == "stochastic",
            merge_once=config.merge_once,
        )
        if self not in batch.layers:
            batch.layers.append(self)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        # the device only: PEFT would also cast to the base's dtype, and bf16 grid points are wrong
        if device is None:
            device, _ = self._get_base_layer_device_and_dtype(self.get_base_layer())
        if device is None or device.type == "meta":
            return
        for name in self.adapter_layer_names:
            held = getattr(self, name)
            if adapter_name in held and not any(p.is_meta for p in held.parameters()):
                held[adapter_name] = held[adapter_name].to(device)

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove the adapter from this layer and from its batch."""
        if adapter_name in self.batches and self in self.batches[adapter_name].layers:
            self.batches[adapter_name].layers.remove(self)
        super().delete_adapter(adapter_name)

    def member(self, adapter: str) -> Member:
        """The factors, with the input scale on B, and the phi of `adapter`."""
        phi, b = self.basis_phi[adapter], self.basis_B[adapter]
        assert isinstance(phi, Nonlinearity)
        if adapter in self.basis_scale:
            b = b * self.basis_scale[adapter]()
        return Member(b, self.basis_A[adapter], phi)

    def numbers(self, adapter: str) -> list[Tensor]:
        """Every tensor that the proxy of `adapter` depends on."""
        tensors = [self.basis_B[adapter], self.basis_A[adapter], *self.basis_phi[adapter].numbers]
        if adapter in self.basis_scale:
            scale = self.basis_scale[adapter]
            tensors += [*scale.parameters(), *scale.buffers()]
        return tensors

    @torch.no_grad()
    def observe(self, adapter: str) -> None:
        """Tell the input scale how large B A is, where it measures."""
        scale = self.basis_scale[adapter] if adapter in self.basis_scale else None
        if not isinstance(scale, InputScale) or scale.rule not in ("rms", "range"):
            return
        b, a = self.basis_B[adapter].float(), self.basis_A[adapter].float()
        if scale.rule == "rms":  # ||B A||^2 from two r x r products
            scale.observe(mean_square=((b.T @ b) * (a @ a.T)).sum() / (b.shape[0] * a.shape[1]))
        elif scale.momentum is not None or not scale.measured > 0:
            scale.observe(peak=product(b, a).abs().max())

    def update(self, adapter: str) -> Tensor:
        """s phi(scale * B A) of one adapter, (out, in) float32."""
        member = self.member(adapter)
        proxy = self.batches[adapter].proxy(self)
        return weight_update(member.b, member.a, proxy, self.scaling[adapter])

    def get_delta_weight(self, adapter: str) -> Tensor:
        """The update in the layout of the base's weight: (in, out) for `Conv1D`."""
        update = self.update(adapter)
        return update.T if self.transposed else update

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """`peft.convert_to_lora` may read `get_delta_weight`."""
        return True

    def merged_weight(self, weight: Tensor, names: list[str]) -> Tensor:
        """W' for the adapters `names`: one sum in float32, rounded once to the dtype of W.

        Args:
            weight: W in the layout of the base layer; the result has the same.
            names: Adapters that this layer carries.
        """
        weight = weight.T if self.transposed else weight
        if len(names) == 1:
            b, a, _ = self.member(names[0])
            proxy = self.batches[names[0]].proxy(self)
            merged = merged_weight(weight, b, a, proxy, self.scaling[names[0]])
        else:
            update = sum(self.update(name) for name in names)
            merged = (weight.to(update.dtype) + update).to(weight.dtype)
        return merged.T if self.transposed else merged

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put W' in the place of W; W is kept, so that `unmerge` restores it bit for bit.

        Raises:
            ValueError: `safe_merge` is on and W' is not finite, or the base cannot take it.
        """
        names = check_adapters_to_merge(self, adapter_names) or []
        names = [name for name in names if name in self.basis_A]
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
                    f"the merged weight is not finite; adapters {names} seem to be broken"
                )
            if self._unmerged is not None:
                self._restore()
            if self.quantization_backend is None:
                self._unmerged = [put_weight(self.get_base_layer(), new)]
            else:  # quantising anew is lossy, so the original stays aside whole
                self._unmerged, self.base_layer = self.base_layer, copy.deepcopy(self.base_layer)
                self.set_base_weight(new)
        self.merged_adapters = merged

    def unmerge(self) -> None:
        """Put W back."""
        if not self.merged:
            warnings.warn("already unmerged, nothing to do", stacklevel=2)
            return
        self._restore()
        self.merged_adapters = []

    def _unmerged_weight(self) -> Tensor:
        """W, dequantised where it is quantised; also while W' is in its place."""
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
            restore_weight(self.get_base_layer(), *self._unmerged)
        else:
            self.base_layer = self._unmerged
        self._unmerged = None

    def _require_mergeable(self) -> None:
        base, backend = self.get_base_layer(), self.quantization_backend
        weight = getattr(base, "weight", None)
        plain = isinstance(weight, Tensor) and weight.is_floating_point()
        if not (plain if backend is None else backend.supports_merge):
            raise ValueError(
                f"cannot merge into {type(base).__name__}, whose weight is quantised: serve it "
                "unmerged, export by adapters.export.to_lora, or load the base dequantised"
            )

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x (*, in) -> (*, out)."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        names = [name for name in self.active_adapters if name in self.basis_A]
        if self.disable_adapters or self.merged or not names:
            return self.base_layer(x, *args, **kwargs)
        base = self.base_layer
        plain = type(base) in (nn.Linear, Conv1D) and self.quantization_backend is None
        if not plain or any(self.execution[name].split for name in names):
            y = base(x, *args, **kwargs)
            for name in names:
                # a quantised base says nothing about the precision that x deserves
                points = x if plain else x.to(torch.promote_types(x.dtype, torch.float32))
                y = y + self._product(name, points, None, None).to(y.dtype)
            return y
        if len(names) > 1:
            weight = self.merged_weight(base.weight, names)
            return F.linear(x, weight.T if self.transposed else weight, base.bias)
        weight = base.weight.T if self.transposed else base.weight
        return self._product(names[0], x, weight, base.bias)

    def _product(self, name: str, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """x W'^T + bias; without a weight, x times the update alone."""
        run, batch, scale = self.execution[name], self.batches[name], self.scaling[name]
        b, a, _ = self.member(name)
        proxy = batch.proxy(self)
        rounds = run.stochastic and self.training and weight is not None
        seed = batch.seed(self) if rounds else None
        made = None
        if run.merge_once:
            dtype = working_dtype(x)
            of_weight = () if weight is None else mark(weight)

            @torch.no_grad()
            def make() -> Tensor:
                return make_weight(dtype, weight, b, a, proxy, scale, seed)

            made = batch.weight(self, (dtype, scale, seed, *of_weight), make)
        return merged_linear(x, weight, bias, b, a, proxy, scale, seed=seed, made=made)

    def __repr__(self) -> str:
        return "basis." + super().__repr__()


def _quantization_backend(base: nn.Module, known: dict[str, Any]) -> QuantizationBackend | None:
    try:
        return resolve_quantization_backend(base, **known)
    except ValueError:  # torchao outside transformers: without its recipe W can be used, not made
        return ForwardOnlyQuantizationBackend("torchao")
