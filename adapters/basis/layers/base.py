"""What the layers of all kinds share: a matrix W and, for each adapter, its s phi(B A)."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from adapters.basis.config import BasisConfig
from adapters.basis.fitting.batch import PhiBatch
from adapters.basis.layers.numbers import AdapterNumbers, Execution
from adapters.basis.layers.scaling import Scaling
from adapters.basis.layers.term import Frozen, Term, forget_frozen
from adapters.basis.sharing import Blocks, blocks_of, copied
from adapters.merging.base_weights import execution_device, weight_here
from adapters.merging.layer import MergingLayer
from basis_zoo import InputScale, Nonlinearity
from basis_zoo.nonlinearity import NUMBERS
from basis_zoo.proxy import Proxy

if TYPE_CHECKING:
    from adapters.torch_types import ModulesOf

BASE = "__base__"
"""PEFT's name, in `adapter_names`, for rows that no adapter is applied to."""


class Part(NamedTuple):
    """One term s phi(B A) of an update."""

    adapter: str
    scale: float
    """s, times the adapter's weight in a sum."""


class BasisLayer(nn.Module, AdapterNumbers, MergingLayer, Scaling):
    """A module one of whose parameters, seen as a matrix, becomes W' = W + s phi(B A).

    Args:
        base_layer: The frozen module.
        adapter_name: Name of the first adapter.
        r: Its rank.
        config: Its settings.
        batch: Where its phi is evaluated, together with those of the other layers.
        parameter_name: The parameter of the innermost base layer that the adapters change.
        weight_is_read: Whether the module around this one reads `weight` instead of calling it.
        heads: The blocks of the attention heads that the matrix holds, if any.
    """

    adapter_layer_names = ("basis_A", "basis_B", "basis_phi", "basis_scale", "basis_frozen")
    other_param_names = ("r", "scaling", "initial_scaling", "batches", "execution", "sums")
    cast_input_dtype_enabled = True  # read by peft.helpers.disable_input_dtype_casting
    mixes_batches = True
    """Whether the rows of a batch may have adapters of their own."""
    tied_to: list["BasisLayer"]

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        r: int,
        config: BasisConfig,
        batch: PhiBatch,
        *,
        parameter_name: str = "weight",
        weight_is_read: bool = False,
        heads: Blocks | None = None,
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.parameter_name, self.weight_is_read = parameter_name, weight_is_read
        self.heads = heads
        self.out_features, self.in_features = self._shape()
        self.r: dict[str, int] = {}
        self.scaling, self.initial_scaling = {}, {}
        self.batches: dict[str, PhiBatch] = {}
        self.execution: dict[str, Execution] = {}
        self.sums: dict[str, dict[str, float]] = {}
        self.proxies: dict[str, Proxy] = {}
        self.basis_A, self.basis_B = nn.ParameterDict(), nn.ParameterDict()
        self.basis_phi = cast("ModulesOf[Nonlinearity]", nn.ModuleDict())
        self.basis_scale = cast("ModulesOf[InputScale]", nn.ModuleDict())
        self.basis_frozen = cast("ModulesOf[Frozen]", nn.ModuleDict())
        self._disable_adapters, self.merged_adapters = False, []
        self._unmerged, self.tied_to = None, []
        self._active_adapter = adapter_name
        self.register_load_state_dict_post_hook(forget_frozen)  # type: ignore[no-untyped-call]  # torch's
        self.update_layer(adapter_name, r, config, batch)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and files carry no proxies: these belong to a pass of this process."""
        return {**self.__dict__, "proxies": {}}

    def _shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix: out and in of a linear layer."""
        shape = getattr(self.get_base_layer(), self.parameter_name).shape
        return (math.prod(shape[:-1]), shape[-1])

    def matrix(self, parameter: Tensor) -> Tensor:
        """The base parameter, or a tensor in its layout, as the matrix (rows, columns)."""
        return parameter.reshape(self.out_features, self.in_features)

    def in_layout(self, matrix: Tensor, like: Any) -> Tensor:
        """A (rows, columns) matrix in the layout of the base parameter `like`."""
        return matrix.reshape(like.shape)

    def update_layer(self, adapter_name: str, r: int, config: BasisConfig, batch: PhiBatch) -> None:
        """Add the adapter `adapter_name`, or make it anew."""
        phi = config.phi
        form = phi.build_form()
        blocks = blocks_of(config.sharing_scope, (self.out_features, self.in_features), self.heads)
        self.r[adapter_name] = r
        scaling = config.alpha / (math.sqrt(r) if config.use_rslora else r)
        self.scaling[adapter_name] = self.initial_scaling[adapter_name] = scaling
        self.basis_phi[adapter_name] = phi.build_nonlinearity()
        self.basis_phi[adapter_name].repeat(copied(config.sharing), blocks.number)
        self.basis_phi[adapter_name].repeat(NUMBERS, form.copies(r))
        scale = phi.build_input_scale()
        if scale is not None:
            self.basis_scale[adapter_name] = scale
        zero_b = config.init_weights and phi.build_start().zero_b
        self._add_factors(adapter_name, form.factor_rank(r), 0.0 if zero_b else phi.b_std)
        if not config.init_weights:
            nn.init.normal_(self.basis_phi[adapter_name].amplitude)
        if any(number.is_meta for number in self.numbers(adapter_name)):
            # low_cpu_mem_usage puts only parameters on meta
            self.basis_phi[adapter_name].to("meta")
            if adapter_name in self.basis_scale:
                self.basis_scale[adapter_name].to("meta")
        self.batches[adapter_name] = batch
        self.execution[adapter_name] = Execution(
            form,
            blocks.columns,
            split=config.path == "split",
            stochastic=config.rounding == "stochastic",
            merge_once=config.merge_once,
            float8=config.gradient_dtype == "float8",
            dropout=config.dropout,
        )
        weight = getattr(self.get_base_layer(), self.parameter_name, None)
        if isinstance(weight, Tensor) and weight.is_floating_point() and not weight.is_meta:
            self._freeze(adapter_name)
        if self not in batch.layers:
            batch.layers.append(self)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        # the device only: PEFT would also cast to the base's dtype, and bf16 grid points are wrong
        if device is None:
            base = self.get_base_layer()
            device, _ = self._get_base_layer_device_and_dtype(base)  # type: ignore[no-untyped-call]  # PEFT's
            entries = getattr(base, self.parameter_name, None)
            device = entries.device if isinstance(entries, Tensor) else device
            if device is not None and device.type == "meta":  # offloaded: the adapter is not
                device = execution_device(base)
        if device is None or device.type == "meta":
            return
        for name in self.adapter_layer_names:
            entries = getattr(self, name)
            if adapter_name in entries and not any(
                t.is_meta for t in _tensors(entries[adapter_name])
            ):
                entries[adapter_name] = entries[adapter_name].to(device)

    def cast_trained(self, adapter_name: str) -> None:
        """Cast what is trained to the dtype of W, as PEFT does without autocast."""
        base = self.get_base_layer()
        _, dtype = self._get_base_layer_device_and_dtype(base)  # type: ignore[no-untyped-call]  # PEFT's
        parameter = getattr(base, self.parameter_name, None)
        dtype = parameter.dtype if isinstance(parameter, Tensor) else dtype
        for entries in (getattr(self, name) for name in self.adapter_layer_names):
            if adapter_name in entries and dtype is not None and dtype.is_floating_point:
                entry = entries[adapter_name]
                own = [entry] if isinstance(entry, nn.Parameter) else entry.parameters()
                for number in own:
                    number.data = number.data.to(dtype)

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove the adapter from this layer and from its batch."""
        if adapter_name in self.batches and self in self.batches[adapter_name].layers:
            self.batches[adapter_name].layers.remove(self)
        super().delete_adapter(adapter_name)

    def _get_available_adapters(self) -> set[str]:
        """The adapters of this layer, those without numbers of their own included."""
        return {*self.scaling, *self.sums}

    def give_up(self, adapter: str, donor: "BasisLayer") -> None:
        """Read the numbers of `adapter` from `donor` from now on; both have one weight."""
        for name in self.adapter_layer_names:
            entries = getattr(self, name)
            if adapter in entries:
                del entries[adapter]
        if self in self.batches[adapter].layers:
            self.batches[adapter].layers.remove(self)
        self.tied_to = [donor]

    def uses(self, adapter: str) -> bool:
        """Whether the active adapters need the proxy of `adapter`."""
        if self.disable_adapters or self.merged:
            return False
        return any(
            name == adapter or adapter in self.sums.get(name, ()) for name in self.active_adapters
        )

    def parts(self, names: Sequence[str]) -> list[Part]:
        """The terms of the update that the adapters `names` make together on this layer."""
        parts = []
        for name in names:
            if name in self.sums:
                weighted = self.sums[name].items()
                parts += [Part(n, w * self.scaling[n]) for n, w in weighted if n in self.scaling]
            elif name in self.scaling:
                parts.append(Part(name, self.scaling[name]))
        return parts

    def update(self, adapter: str) -> Tensor:
        """s phi(scale * B A) of one adapter, or of a weighted sum, (rows, columns) float32."""
        self._leave_pass()
        return self._sum(self.parts([adapter]))

    def _leave_pass(self) -> None:
        """End a pass that Ctrl-C interrupted, since torch then calls no hook at its end."""
        for batch in self.batches.values():
            batch.end_pass()

    def term(self, part: Part) -> Term:
        """The adapter of `part` as it stands."""
        owner, run = self.owner(part.adapter), self.execution[part.adapter]
        # first: it brings and measures what the factors are read from
        proxy = self.batches[part.adapter].proxy(owner)
        operands, scale = owner.operands(part.adapter), owner.input_scale(part.adapter)
        return Term(run.form, run.columns, operands, proxy, scale, part.scale)

    def _sum(self, parts: Sequence[Part]) -> Tensor:
        first, *others = parts
        update = self.term(first).delta()
        for part in others:
            update = update + self.term(part).delta()
        return update

    def merged_matrix(self, weight: Tensor, parts: Sequence[Part]) -> Tensor:
        """W' of the matrix W: one sum in float32, rounded once to the dtype of W."""
        if len(parts) == 1:
            return self.term(parts[0]).in_force(weight)
        update = self._sum(parts)
        return (weight.to(update.dtype) + update).to(weight.dtype)

    def changes_weight(self, adapter: str) -> bool:
        """Whether `adapter` is on this layer, by itself or in a sum."""
        return bool(self.parts([adapter]))

    def merged_weight(self, weight: Tensor, adapters: Sequence[str]) -> Tensor:
        """W' with `adapters`, in the layout of the base parameter `weight`."""
        self._leave_pass()
        return self.in_layout(self.merged_matrix(self.matrix(weight), self.parts(adapters)), weight)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """The update in the layout of the base parameter: (in, out) for `Conv1D`."""
        parameter = getattr(self.get_base_layer(), self.parameter_name, None)  # hidden if quantised
        return self.in_layout(self.update(adapter), parameter)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """`peft.convert_to_lora` may read `get_delta_weight`."""
        return self.execution[adapter_name].form.mergeable

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the base layer does, with W' in the place of W."""
        rows = kwargs.pop("adapter_names", None)
        if self.disable_adapters:
            if self.merged:
                self.unmerge()
            return self.base_layer(*args, **kwargs)
        base = self.get_base_layer()
        parameter = getattr(base, self.parameter_name, None)
        if isinstance(parameter, Tensor) and parameter.is_meta:  # offloaded
            with weight_here(base, self.parameter_name):
                return self._applied(rows, *args, **kwargs)
        return self._applied(rows, *args, **kwargs)

    def _applied(self, rows: Sequence[str] | None, *args: Any, **kwargs: Any) -> Any:
        if rows is not None:
            return self._mixed(rows, *args, **kwargs)
        parts = [] if self.merged else self.parts(self.active_adapters)
        if not parts:
            return self.base_layer(*args, **kwargs)
        return self._adapted(parts, *args, **kwargs)

    @abstractmethod
    def _adapted(self, parts: list[Part], *args: Any, **kwargs: Any) -> Any:
        """The forward pass with an update of at least one part."""

    def _mixed(self, adapter_names: Sequence[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The forward pass of a batch with an adapter of its own for every row."""
        if len(x) != len(adapter_names):
            raise ValueError(
                "Length of `adapter_names` should be the same as the number of inputs, but got "
                f"{len(adapter_names)} and {len(x)} respectively."
            )
        if self.merged:
            raise ValueError(
                "Cannot pass `adapter_names` when there are merged adapters, please call "
                "`unmerge_adapter` first."
            )
        result: Tensor | None = None
        for name in dict.fromkeys(adapter_names):
            own = torch.tensor([n == name for n in adapter_names], device=x.device)
            parts = [] if name == BASE else self.parts([name])
            if parts:
                y = self._adapted(parts, x[own], *args, **kwargs)
            else:
                y = self.base_layer(x[own], *args, **kwargs)
            if result is None:
                result = y.new_empty(len(x), *y.shape[1:])
            result[own] = y
        assert result is not None, "`adapter_names` is as long as the batch, which has rows"
        return result

    def __repr__(self) -> str:
        return "basis." + super().__repr__()


def _tensors(entry: nn.Parameter | nn.Module) -> list[Tensor]:
    if isinstance(entry, nn.Parameter):
        return [entry]
    return [*entry.parameters(), *entry.buffers()]
