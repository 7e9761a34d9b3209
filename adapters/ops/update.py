r"""The update $\Delta W = s\,\phi(BA)$ by itself, differentiable in B, A and phi.

For several adapters that are active at once, and for export.
"""

from typing import Any

import torch
from torch import Tensor

from adapters.ops.merge import merge_gradients, product
from basis_zoo.proxy import Proxy


class _WeightUpdate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, b: Tensor, a: Tensor, coefficients: Tensor, proxy: Proxy, scale: float
    ) -> Tensor:
        """(out, r), (r, in) -> (out, in)."""
        ctx.save_for_backward(b, a)
        ctx.proxy, ctx.scale = proxy, scale
        return scale * proxy.value(product(b, a))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of B, A and the coefficients."""
        b, a = ctx.saved_tensors
        db, da, dc = merge_gradients(grad, b, a, ctx.proxy, ctx.scale)
        return db.to(b.dtype), da.to(a.dtype), dc, None, None


def weight_update(b: Tensor, a: Tensor, proxy: Proxy, scale: float) -> Tensor:
    """scale * phi(B A), (out, in) in float32 or better.

    Args:
        b: (out, r).
        a: (r, in).
        proxy: phi on the range of B A.
        scale: s.
    """
    return _WeightUpdate.apply(b, a, proxy.coefficients, proxy, scale)
