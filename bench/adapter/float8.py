"""G = dYᵀX in 8 bits against the bfloat16 product: what pays from which size, and what is lost."""

import functools

import torch
from torch import Tensor

from adapters.ops import dense_gradient as op
from bench.adapter.checks import error
from bench.adapter.record import Row, Run
from bench.adapter.timing import median_us

SHAPES = (
    (2048, 4096, 4096), (8192, 4096, 4096), (8192, 14336, 4096), (2048, 14336, 4096),
    (4096, 8192, 2048), (8192, 2048, 2048), (8192, 1024, 4096), (8192, 896, 896),
)  # fmt: skip
"""Tokens, outputs, inputs: on both sides of the line that `takes_float8` draws."""


def float8(run: Run, device: str, quick: bool) -> None:
    """Time and error of G by shape; of its parts, the maxima and the product by themselves."""
    if not op.has_products(torch.device(device)):
        run.add(Row("float8", "G in 8 bits", None, note="this device has no 8-bit products"))
        return
    from adapters.ops.dense_gradient import fused

    for shape in SHAPES[:2] if quick else SHAPES:
        dy, x = factors = _factors(*shape, device)
        (small_dy, scale_dy), (small_x, scale_x) = fused.cast(dy), fused.cast(x)
        cast = (small_dy, small_x, scale_dy, scale_x)
        calls = (
            functools.partial(op.in_float8, dy, x),
            functools.partial(op.dense_gradient, dy, x),
            functools.partial(fused.product, *cast, torch.bfloat16),
            lambda factors=factors: [torch.linalg.vector_norm(t, torch.inf) for t in factors],
        )
        ours, plain, product, maxima = (median_us(call, device, quick=quick) for call in calls)
        off = error(op.in_float8(dy, x), dy.double().T @ x.double())
        tokens, outputs, inputs = shape
        used = "" if op.takes_float8(outputs, inputs) else "; not used by `gradient_dtype`"
        run.add(
            Row("float8", f"G in 8 bits, {tokens} tokens, {outputs} x {inputs}", ours / plain,
                ours=ours, other=plain, against="in bfloat16", unit="us",
                note=f"product {product:.1f} us, maxima {maxima:.1f}, the rest casts; off by "
                f"{off:.4f} of its norm{used}")
        )  # fmt: skip


def _factors(tokens: int, outputs: int, inputs: int, device: str) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    dy, x = (torch.randn(tokens, k, device=device).bfloat16() for k in (outputs, inputs))
    return 1e-4 * dy, x
