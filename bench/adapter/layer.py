r"""One linear layer, forward and backward, against the best LoRA that we can write.

LoRA needs two dense products (x W and dy W), we need three: $G = dy^\top x$ as well, which is
measured in 8 bits too.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.ops.linear import merged_linear
from adapters.ops.operators import make_weight
from bench.adapter.cases import case
from bench.adapter.floors import Ceilings
from bench.adapter.record import Row, Run
from bench.adapter.timing import Call, median_us

TOKENS, SIDE, RANK = 8192, 4096, 16


class _LeanLora(torch.autograd.Function):
    """y = x W^T + s (x A^T) B^T by hand: the small products join the dense ones' outputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor, a: Tensor, scale: float) -> Tensor:
        """x (n, in) -> (n, out)."""
        low = x @ a.T
        ctx.save_for_backward(x, w, b, a, low)
        ctx.scale = scale
        return (x @ w.T).addmm_(low, b.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, B and A."""
        x, w, b, a, low = ctx.saved_tensors
        up = ctx.scale * (dy @ b)
        return (dy @ w).addmm_(up, a), None, ctx.scale * (dy.T @ low), up.T @ x, None


class _MergedLora(torch.autograd.Function):
    """W' = W + s B A once, then one dense product each way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor, a: Tensor, scale: float) -> Tensor:
        """x (n, in) -> (n, out)."""
        merged = torch.addmm(w, b, a, alpha=scale)
        ctx.save_for_backward(x, merged, b, a)
        ctx.scale = scale
        return x @ merged.T

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, B and A."""
        x, merged, b, a = ctx.saved_tensors
        up = ctx.scale * (dy @ b)
        return dy @ merged, None, ctx.scale * (dy.T @ (x @ a.T)), up.T @ x, None


def layer(run: Run, device: str, quick: bool) -> None:
    """8,192 tokens through 4096 x 4096 in bfloat16."""
    subject = case("sinc", 0.05, (SIDE, SIDE), RANK, device)
    like: dict[str, Any] = {"device": device, "dtype": torch.bfloat16}
    x = torch.randn(TOKENS, SIDE, **like).requires_grad_()
    w, dy = 0.02 * torch.randn(SIDE, SIDE, **like), torch.randn(TOKENS, SIDE, **like)
    b, a = subject.b.clone().requires_grad_(), subject.a.clone().requires_grad_()
    narrow = [t.detach().bfloat16().requires_grad_() for t in (b, a)]
    coefficients = subject.proxy.coefficients.clone().requires_grad_()
    proxy = subject.proxy.rebuilt((coefficients, *subject.proxy.tensors[1:]))
    precomputed = make_weight(x.dtype, w, b.detach(), a.detach(), proxy, 1.0)

    def passes(forward: Callable[[], Tensor], leaves: list[Tensor]) -> Call:
        return lambda: torch.autograd.grad(forward(), leaves, dy)

    def ours(**options: Any) -> Call:
        forward = functools.partial(merged_linear, x, w, None, b, a, proxy, 1.0, **options)
        return passes(forward, [x, b, a, coefficients])

    lean: Callable[..., Tensor] = _LeanLora.apply
    merged: Callable[..., Tensor] = _MergedLora.apply
    loras: dict[str, Callable[[], Tensor]] = {
        "autograd": lambda: F.linear(x, w) + F.linear(F.linear(x, narrow[1]), narrow[0]),
        "by hand": lambda: lean(x, w, *narrow, 1.0),
        "by hand, merged": lambda: merged(x, w, *narrow, 1.0),
    }
    times = {
        name: median_us(passes(forward, [x, *narrow]), device, quick=quick)
        for name, forward in loras.items()
    }
    best = min(times, key=times.__getitem__)
    product = 1e6 * 2 * TOKENS * SIDE**2 / Ceilings.measured(device, quick).flops
    note = f"a dense product takes {product:.0f} us: three of them, LoRA two"
    for label, options, goal in (
        ("", {}, 1.2),
        (", W' kept", {"merged": precomputed}, None),
        (", G in 8 bits", {"float8": True}, 1.2),
    ):
        us = median_us(ours(**options), device, quick=quick)
        run.add(
            Row("layer", f"layer {SIDE} x {SIDE}, {TOKENS} tokens, both passes{label}",
                us / times[best], goal, ours=us, other=times[best], unit="us",
                against=f"LoRA {best}", note=note)
        )  # fmt: skip
