r"""$W' = W + s\,\phi(BA)$ as a tensor of the graph, for modules that do more than $xW'^\top$.

Embeddings, convolutions, attention and experts read W' itself, so whatever they do with it keeps it
for the backward pass; of the update only B and A are kept.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adapters.ops import merge, operators
from adapters.ops.operators import gradients_of_factors
from adapters.torch_types import never_compiled
from basis_zoo.proxy import Proxy


class _EffectiveWeight(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor | None,
        b: Tensor,
        a: Tensor,
        coefficients: Tensor,
        proxy: Proxy,
        scale: float,
        seed: int | None,
        merged: Tensor | None,
        hadamard: bool,
    ) -> Tensor:
        """(out, in), in the dtype of W."""
        ctx.save_for_backward(b, a, weight if hadamard else None)
        ctx.proxy, ctx.scale = proxy, scale
        if merged is None:
            return merge.merged_weight(weight, b, a, proxy, scale, hadamard=hadamard, seed=seed)
        return merged.detach()  # a graph of this pass, around the caller's numbers

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of W, B, A and the coefficients."""
        b, a, times = ctx.saved_tensors
        dw = db = da = dc = None
        if any(ctx.needs_input_grad[1:4]):
            db, da, dc = gradients_of_factors(grad.contiguous(), b, a, ctx.proxy, ctx.scale, times)
        if ctx.needs_input_grad[0]:
            dw = grad
            if times is not None:
                update = merge.merged_weight(None, b, a, ctx.proxy, ctx.scale)
                dw = (grad + grad * update).to(grad.dtype)
        return dw, db, da, dc, None, None, None, None, None


class _WeightInAGraph(torch.autograd.Function):
    """The same by operators."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor | None, b: Tensor, a: Tensor, coefficients: Tensor, ends: Tensor,
        terms: Tensor, table: bool, scale: float, seed: int | None, hadamard: bool,
    ) -> Tensor:  # fmt: skip
        """(out, in), in the dtype of W."""
        ctx.save_for_backward(b, a, coefficients, ends, terms, weight if hadamard else None)
        ctx.table, ctx.scale = table, scale
        merged: Tensor = operators.weight(
            weight, b, a, coefficients, ends, terms, table, scale, seed, hadamard
        )
        return merged

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of W, B, A and the coefficients."""
        *numbers, times = ctx.saved_tensors
        of_phi = operators.weight_backward(grad, *numbers, ctx.table, ctx.scale, times)
        dw = grad if ctx.needs_input_grad[0] else None
        return dw, *of_phi, *(None,) * 6


def effective_weight(
    weight: Tensor | None,
    b: Tensor,
    a: Tensor,
    proxy: Proxy,
    scale: float,
    *,
    seed: int | None = None,
    merged: Tensor | None = None,
    hadamard: bool = False,
) -> Tensor:
    """W' = W + scale * phi(B A), (out, in) in the dtype of W, differentiable in W, B, A and phi.

    Without W it is the update by itself; `merged` is W' where the caller keeps it. The other
    arguments are those of `adapters.ops.linear.merged_linear`.
    """
    if not torch.compiler.is_compiling():
        return _eager(weight, b, a, proxy.coefficients, proxy, scale, seed, merged, hadamard)
    trained = hadamard and weight is not None and weight.requires_grad
    if operators.can_be_operator(proxy) and not trained:
        return _in_a_graph(weight, b, a, *operators.numbers(proxy), scale, seed, hadamard)
    return _outside(weight, b, a, proxy.coefficients, proxy, scale, seed, merged, hadamard)


def weight_update(b: Tensor, a: Tensor, proxy: Proxy, scale: float) -> Tensor:
    """The update by itself, scale * phi(B A), (out, in) in float32 or better, differentiable.

    For several adapters that are active at once, and for export. Arguments as in
    `effective_weight`.
    """
    return effective_weight(None, b, a, proxy, scale)


_eager: Callable[..., Tensor] = _EffectiveWeight.apply
_in_a_graph: Callable[..., Tensor] = _WeightInAGraph.apply


@never_compiled
def _outside(*arguments: Any) -> Tensor:
    weight, hadamard = arguments[0], arguments[-1]
    operators.warn_outside(hadamard and weight is not None and weight.requires_grad)
    return _eager(*arguments)
