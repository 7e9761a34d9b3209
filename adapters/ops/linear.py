r"""One linear layer with the merged weight, that keeps no W' for the backward pass.

Forward: $y = x W'^\top + b$ with $W' = W + s\,\phi(BA)$. Backward recomputes $W'$:
$dx = dy\,W'$, $G = dy^\top x$, and from G the gradients of B, A and phi. Saving $W'$ instead would
hold a second copy of every adapted weight; a caller that keeps one anyway hands it over.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.ops import operators
from adapters.ops.dense_gradient import dense_gradient
from adapters.ops.operators import gradients_of_factors, make_weight
from adapters.torch_types import never_compiled
from basis_zoo.proxy import Proxy


class _MergedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        b: Tensor,
        a: Tensor,
        coefficients: Tensor,
        proxy: Proxy,
        scale: float,
        seed: int | None,
        merged: Tensor | None,
        float8: bool,
        hadamard: bool,
    ) -> Tensor:
        """x (*, in) -> (*, out), in the dtype of x."""
        ctx.save_for_backward(x, weight, b, a)
        # plain attributes: a proxy is small, and a weight that is kept belongs to its keeper
        ctx.proxy, ctx.scale, ctx.seed, ctx.merged = proxy, scale, seed, merged
        ctx.float8, ctx.hadamard = float8, hadamard
        if merged is None:
            merged = make_weight(x.dtype, weight, b, a, proxy, scale, seed, hadamard=hadamard)
        y = F.linear(x, merged, bias)
        if bias is None or x.ndim < 3:
            return y
        # this y is a view, and a view that a Function returns may not be changed in place
        view: Tensor = torch.ops.aten._unsafe_view(y, y.shape)
        return view

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what is trained among x, W, the bias, B, A and the coefficients."""
        x, weight, b, a = ctx.saved_tensors
        dx = dw = dbias = db = da = dc = None
        if any(ctx.needs_input_grad[3:6]) or ctx.needs_input_grad[1]:
            # a W that is trained takes G itself, and deserves all its digits
            grad = dense_gradient(dy, x, float8=ctx.float8 and not ctx.needs_input_grad[1])
            times = weight if ctx.hadamard else None
            db, da, dc = gradients_of_factors(grad, b, a, ctx.proxy, ctx.scale, times)
            if ctx.needs_input_grad[1]:
                if ctx.hadamard:
                    grad = grad + grad * make_weight(grad.dtype, None, b, a, ctx.proxy, ctx.scale)
                dw = grad.to(weight.dtype)
            del grad  # as large as W': never both at once
        if ctx.needs_input_grad[2]:
            dbias = dy.flatten(0, -2).sum(0)
        if ctx.needs_input_grad[0]:
            merged = ctx.merged
            if merged is None:
                merged = make_weight(
                    *(dy.dtype, weight, b, a, ctx.proxy, ctx.scale, ctx.seed), hadamard=ctx.hadamard
                )
            dx = dy @ merged
        return dx, dw, dbias, db, da, dc, None, None, None, None, None, None


class _LinearInAGraph(torch.autograd.Function):
    """The same by operators, with W and the bias frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, b: Tensor, a: Tensor,
        coefficients: Tensor, ends: Tensor, terms: Tensor, table: bool, scale: float,
        seed: int | None, float8: bool, hadamard: bool,
    ) -> Tensor:  # fmt: skip
        """x (*, in) -> (*, out)."""
        ctx.save_for_backward(x, weight, b, a, coefficients, ends, terms)
        ctx.table, ctx.scale, ctx.seed, ctx.float8 = table, scale, seed, float8
        ctx.hadamard = hadamard
        y: Tensor = operators.linear(
            x, weight, bias, b, a, coefficients, ends, terms, table, scale, seed, hadamard
        )
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, B, A and the coefficients."""
        of_x = ctx.needs_input_grad[0]
        dx, *of_phi = operators.linear_backward(
            dy, *ctx.saved_tensors, ctx.table, ctx.scale, ctx.seed, ctx.float8, ctx.hadamard, of_x
        )
        return dx if of_x else None, None, None, *of_phi, *(None,) * 7


def working_dtype(x: Tensor) -> torch.dtype:
    """The dtype of products with x: its own, or autocast's."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def merged_linear(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    b: Tensor,
    a: Tensor,
    proxy: Proxy,
    scale: float,
    *,
    seed: int | None = None,
    merged: Tensor | None = None,
    float8: bool = False,
    hadamard: bool = False,
) -> Tensor:
    """x W'^T + bias with W' = W + scale * phi(B A), differentiable in all of them and in phi.

    Under autocast the product runs in autocast's dtype, and W' is made in that of W first, as a
    merge makes it. A compiled graph holds it as one operator; with a trained W, or phi itself in
    the place of a proxy, the graph breaks there.

    Args:
        x: (*, in).
        weight: W, (out, in); None for x (scale * phi(B A))^T by itself.
        bias: (out,) or None.
        b: B, (out, r), float32.
        a: A, (r, in), float32.
        proxy: phi on the range of B A; its coefficients carry phi's gradient.
        scale: s.
        seed: Seed of the stochastic rounding of W' to bfloat16; None rounds to nearest.
        merged: W' as `make_weight` makes it, where the caller keeps it; None makes it here and
            once more in the backward pass.
        float8: Whether G, and with it the gradients of B, A and phi, is computed in 8 bits where
            `dense_gradient` can; with a trained W it is not.
        hadamard: W' = W + scale * W ⊙ phi(B A) instead; it needs `weight`.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = working_dtype(x)
        x = x.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    elif weight is not None and x.dtype != weight.dtype:
        raise ValueError(f"`x` is {x.dtype} but `weight` is {weight.dtype}: cast one, or autocast")
    how = (proxy, scale, seed, merged, float8, hadamard)
    if not torch.compiler.is_compiling():
        return _eager(x, weight, bias, b, a, proxy.coefficients, *how)
    if (weight is not None and weight.requires_grad) or not operators.can_be_operator(proxy):
        return _outside(x, weight, bias, b, a, proxy.coefficients, *how)
    after = bias if bias is not None and bias.requires_grad else None
    numbers, inside = operators.numbers(proxy), bias if after is None else None
    y = _in_a_graph(x, weight, inside, b, a, *numbers, scale, seed, float8, hadamard)
    return y if after is None else y + after


_eager: Callable[..., Tensor] = _MergedLinear.apply
_in_a_graph: Callable[..., Tensor] = _LinearInAGraph.apply


@never_compiled
def _outside(*arguments: Any) -> Tensor:
    weight = arguments[1]
    operators.warn_outside(weight is not None and weight.requires_grad)
    return _eager(*arguments)
