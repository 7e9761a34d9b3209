"""One adapter on one layer, as a term of W'."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.basis.fitting.tensor_versions import Mark
from adapters.forms import Form, Operands, PhiFunction
from adapters.ops.weight import effective_weight, weight_update
from basis_zoo.proxy import Proxy


class Frozen(nn.Module):
    """What a form computed once of W: it moves with the model and is not saved."""

    def __init__(self, tensors: tuple[Tensor, ...], of: Mark) -> None:
        super().__init__()
        self.of = of
        """Which W it is of."""
        for i, tensor in enumerate(tensors):
            self.register_buffer(f"tensor_{i}", tensor, persistent=False)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """In the order in which they were given."""
        return tuple(self.buffers())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for name, tensor in self.named_buffers():
            moved = fn(tensor)
            # a decomposition in 16 bits would be none
            narrower = moved.dtype.itemsize < tensor.dtype.itemsize
            setattr(self, name, tensor.to(moved.device) if narrower else moved)
        return self


def forget_frozen(layer: Any, _: object) -> None:
    """Drop what was computed of another W than the one that a state dict has brought."""
    frozen = layer.basis_frozen
    for adapter in [name for name, each in frozen.items() if each.of != layer.mark_of_weight()]:
        del frozen[adapter]


class Term(NamedTuple):
    """s times the update of one adapter."""

    form: Form
    columns: bool
    """Whether blocks of columns have a phi each; else rows, or the matrix has one."""
    operands: Operands
    proxy: Proxy
    input_scale: Tensor | float
    scale: float
    """s."""

    @property
    def b(self) -> Tensor:
        """B with the input scale, (out, r)."""
        fixed = isinstance(self.input_scale, float) and self.input_scale == 1
        return self.operands.b if fixed else self.operands.b * self.input_scale

    @property
    def is_plain(self) -> bool:
        """Whether one kernel makes W' of W."""
        return self.form.elementwise and not self.columns

    def delta(self) -> Tensor:
        """The change of W, (out, in) in float32 or better."""
        of = self.operands
        if not self.form.elementwise:
            return self.form.update(of, PhiFunction(self.proxy, self.input_scale)) * self.scale
        if self.columns:
            update = weight_update(of.a.T, self.b.T, self.proxy, self.scale).T
        else:
            update = weight_update(self.b, of.a, self.proxy, self.scale)
        return update if of.weight is None else update * of.weight

    def in_force(
        self, weight: Tensor, *, seed: int | None = None, merged: Tensor | None = None
    ) -> Tensor:
        """W' of W (out, in), differentiable; `seed` and `merged` as in `effective_weight`."""
        if not self.form.elementwise:
            return (weight.to(torch.promote_types(weight.dtype, torch.float32)) + self.delta()).to(
                weight.dtype
            )
        b, a = self.b, self.operands.a
        if self.columns:  # blocks of rows of the transpose
            weight, b, a = weight.T, a.T, b.T
            merged = None if merged is None else merged.T
        in_force = effective_weight(
            *(weight, b, a, self.proxy, self.scale),
            seed=seed, merged=merged, hadamard=self.form.needs_weight,
        )  # fmt: skip
        return in_force.T if self.columns else in_force

    def apply(self, x: Tensor) -> Tensor:
        """What the update adds to the output: x (*, in) -> (*, out)."""
        if self.form.elementwise:
            return F.linear(x, self.delta().to(x.dtype))
        phi = PhiFunction(self.proxy, self.input_scale)
        return self.form.apply(x, self.operands, phi, self.scale)
