r"""One linear layer with the merged weight, that keeps no W' for the backward pass.

Forward: $y = x W'^\top + b$ with $W' = W + s\,\phi(BA)$. Backward recomputes $W'$:
$dx = dy\,W'$, $G = dy^\top x$, and from G the gradients of B, A and phi. Saving $W'$ instead would
hold a second copy of every adapted weight.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.ops import merge
from basis_zoo.proxy import Proxy


class _MergedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        b: Tensor,
        a: Tensor,
        coefficients: Tensor,
        proxy: Proxy,
        scale: float,
    ) -> Tensor:
        """x (*, in) -> (*, out), in the dtype of x."""
        proxy = proxy.rebuilt((coefficients.detach(), *proxy.tensors[1:]))
        ctx.save_for_backward(x, weight, b, a, *proxy.tensors)
        ctx.rebuilt, ctx.scale = proxy.rebuilt, scale
        return F.linear(x, merge.merged_weight(weight, b, a, proxy, scale).to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, B, A and the coefficients; W and the bias are frozen."""
        x, weight, b, a, *rest = ctx.saved_tensors
        proxy = ctx.rebuilt(tuple(rest))
        dx = db = da = dc = None
        if ctx.needs_input_grad[0]:
            dx = dy @ merge.merged_weight(weight, b, a, proxy, ctx.scale).to(dy.dtype)
        if any(ctx.needs_input_grad[3:6]):
            grad = dy.flatten(0, -2).T @ x.flatten(0, -2)
            db, da, dc = merge.merge_gradients(grad, b, a, proxy, ctx.scale)
            db, da = db.to(b.dtype), da.to(a.dtype)
        return dx, None, None, db, da, dc, None, None


def merged_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, b: Tensor, a: Tensor, proxy: Proxy, scale: float
) -> Tensor:
    """x W'^T + bias with W' = W + scale * phi(B A), differentiable in x, B, A and phi.

    W and the bias get no gradient. Under autocast the product runs in autocast's dtype, and W' is
    made in that of W first, as a merge makes it.

    Args:
        x: (*, in).
        weight: W, (out, in).
        bias: (out,) or None.
        b: B, (out, r), float32.
        a: A, (r, in), float32.
        proxy: phi on the range of B A; its coefficients carry phi's gradient.
        scale: s.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x = x.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    elif x.dtype != weight.dtype:
        raise ValueError(f"`x` is {x.dtype} but `weight` is {weight.dtype}: cast one, or autocast")
    return _MergedLinear.apply(x, weight, bias, b, a, proxy.coefficients, proxy, scale)
