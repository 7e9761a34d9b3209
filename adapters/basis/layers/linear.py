"""A linear layer whose weight carries the update s phi(scale * B A): the fast path."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from adapters.basis.fitting.tensor_versions import mark
from adapters.basis.layers.base import BasisLayer, Part
from adapters.ops.dense_gradient import LEAST, MULTIPLE, takes_float8
from adapters.ops.linear import merged_linear, working_dtype
from adapters.ops.operators import make_weight
from adapters.placement.inspection import LINEAR_FORWARDS, quantization_backend


class BasisLinear(BasisLayer):
    """`nn.Linear`, GPT-2's `Conv1D`, or a layer that wraps or quantises one, with adapters.

    Beside the arguments of `BasisLayer` it takes `quantization`: what PEFT's quantisation back ends
    need to know of the model.
    """

    def __init__(
        self,
        base_layer: nn.Module,
        *args: Any,
        quantization: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(base_layer, *args, **kwargs)
        self.quantization_backend = quantization_backend(self.get_base_layer(), quantization or {})

    @property
    def transposed(self) -> bool:
        """Whether the base's weight is (in, out)."""
        return isinstance(self.get_base_layer(), Conv1D)

    def _shape(self) -> tuple[int, int]:
        base: Any = self.get_base_layer()  # linear, of no common class
        if self.transposed:
            rows, columns = base.weight.shape
            return (columns, rows)
        return (base.out_features, base.in_features)  # a quantised weight has another shape

    def matrix(self, parameter: Tensor) -> Tensor:
        """The weight as (out, in)."""
        return parameter.T if self.transposed else parameter

    def in_layout(self, matrix: Tensor, like: Any) -> Tensor:
        """An (out, in) matrix as the base lays it out."""
        return matrix.T if self.transposed else matrix

    @property
    def weight(self) -> Tensor:
        """W, or W' for a module that reads it instead of calling this layer."""
        if self.weight_is_read and self.disable_adapters and self.merged:
            self.unmerge()
        if self.weight_is_read and not (self.disable_adapters or self.merged):
            parts = self.parts(self.active_adapters)
            if parts:
                weight: Tensor = getattr(self.get_base_layer(), self.parameter_name)
                return self.in_layout(self.merged_matrix(self.matrix(weight), parts), weight)
        return super().weight

    def _adapted(self, parts: list[Part], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x (*, in) -> (*, out)."""
        base: Any = self.base_layer  # linear, of no common class
        bare = self._is_bare()
        runs = [self.execution[part.adapter] for part in parts]
        drops = self.training and any(run.dropout for run in runs)
        if not bare or drops or any(run.split or run.form.applied for run in runs):
            y: Tensor = base(x, *args, **kwargs)
            for part, run in zip(parts, runs, strict=True):
                # a quantised base says nothing about the precision that x deserves
                points = x if bare else x.to(torch.promote_types(x.dtype, torch.float32))
                points = F.dropout(points, run.dropout) if drops and run.dropout else points
                y = y + self._added(part, points).to(y.dtype)
            return y
        weight = self.matrix(base.weight)
        if len(parts) > 1:
            return F.linear(x, self.merged_matrix(weight, parts), base.bias)
        return self._product(parts[0], x, weight, base.bias)

    def _added(self, part: Part, x: Tensor) -> Tensor:
        """What an adapter adds to the output."""
        form = self.execution[part.adapter].form
        if form.elementwise and not (form.needs_weight or self.execution[part.adapter].columns):
            return self._product(part, x, None, None)
        return self.term(part).apply(x)

    def _is_bare(self) -> bool:
        """Whether the base layer does nothing but x W^T + bias with a weight that is at hand."""
        base = self.base_layer
        return (
            self.quantization_backend is None
            and type(base).forward in LINEAR_FORWARDS
            and not (base._forward_pre_hooks or base._forward_hooks or base._backward_hooks)
            and not base._backward_pre_hooks
            and ("forward" not in base.__dict__ or "_hf_hook" in base.__dict__)  # accelerate's
        )

    def _product(self, part: Part, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """x W'^T + bias; without a weight, x times the update alone."""
        name, scale = part
        run, batch, owner = self.execution[name], self.batches[name], self.owner(name)
        term = self.term(part)
        rounds = run.stochastic and self.training and weight is not None
        seed = batch.seed(owner) if rounds else None
        hadamard, (b, a) = term.form.needs_weight, (term.b, term.operands.a)
        merged = None
        if run.merge_once and not torch.compiler.is_compiling():  # a graph makes it anew
            dtype = working_dtype(x)
            of_weight = () if weight is None else mark(weight)

            @torch.no_grad()
            def make() -> Tensor:
                if weight is not None and not term.is_plain:
                    return term.in_force(weight, seed=seed).to(dtype)
                return make_weight(dtype, weight, b, a, term.proxy, scale, seed, hadamard=hadamard)

            merged = batch.weight(owner, (dtype, scale, seed, *of_weight), make)
        if weight is not None and not term.is_plain:
            in_force = term.in_force(weight, seed=seed, merged=merged)
            return F.linear(x, in_force.to(working_dtype(x)), bias)
        return merged_linear(
            *(x, weight, bias, b, a, term.proxy, scale),
            seed=seed, merged=merged, float8=run.float8, hadamard=hadamard,
        )  # fmt: skip


def check_float8(layers: Iterable[BasisLayer]) -> None:
    """Refuse layers none of which would compute a gradient in 8 bits.

    Raises:
        ValueError: No layer is large enough; the message has the size of the largest.
    """
    shapes = [(m.out_features, m.in_features) for m in layers if isinstance(m, BasisLinear)]
    if any(takes_float8(*shape) for shape in shapes):
        return
    largest = max(shapes, key=lambda shape: shape[0] * shape[1], default=None)
    size = "there is none" if largest is None else f"the largest is {largest[0]} x {largest[1]}"
    raise ValueError(
        "`gradient_dtype` 'float8' would change nothing here: it is for linear layers of sizes "
        f"divisible by {MULTIPLE} with out x in / (out + in) of at least {LEAST}, as 3072 x 3072, "
        f"below which it costs time; of the adapted ones, {size}. Take gradient_dtype 'working'"
    )
