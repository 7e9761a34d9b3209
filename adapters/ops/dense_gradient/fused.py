"""`emulated.py` on a GPU: two casts that also transpose, and an 8-bit product.

The products of NVIDIA's Hopper want both factors with the index of the sum, the token, last.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from adapters.ops.dense_gradient.emulated import E4M3, LARGEST, MULTIPLE, SMALLEST
from adapters.ops.merge.fused.launching import Constants, Launcher

_TILE = Constants(LARGEST=LARGEST, SMALLEST=SMALLEST, R=64, C=128, num_warps=4)


@triton.jit
def _cast_kernel(
    x, largest, y, scale, N, K, P, x_row, x_col,
    LARGEST: tl.constexpr, SMALLEST: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Y (K, P) in 8 bits from X (N, K), with P - N zeros a row, and what multiplies it."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    col = tl.program_id(1).to(tl.int64) * C + tl.arange(0, C)
    b_largest = tl.load(largest).to(tl.float32)
    b_largest = tl.where(b_largest < SMALLEST, SMALLEST, b_largest)
    b_largest = tl.where(b_largest < float("inf"), b_largest, float("nan"))
    # rounded to nearest as in torch, which a plain quotient is not
    inverse = tl.div_rn(tl.full([], LARGEST, tl.float32), b_largest)
    if tl.program_id(0) + tl.program_id(1) == 0:
        tl.store(scale, b_largest * (1 / LARGEST))
    inside = (row[:, None] < N) & (col[None, :] < K)
    b_x = tl.load(x + row[:, None] * x_row + col[None, :] * x_col, mask=inside, other=0.0)
    b_y = tl.trans((b_x.to(tl.float32) * inverse).to(y.dtype.element_ty))
    inside = (col[:, None] < K) & (row[None, :] < P)
    tl.store(y + col[:, None] * P + row[None, :], b_y, mask=inside)


_cast = Launcher(_cast_kernel)


def cast(x: Tensor) -> tuple[Tensor, Tensor]:
    """x^T (k, n) in 8 bits, its rows filled up with zeros, and what it is to be multiplied by.

    k is a multiple of 16, as the product needs.
    """
    n, k = x.shape
    padded = triton.cdiv(n, MULTIPLE) * MULTIPLE
    largest = torch.linalg.vector_norm(x, torch.inf)
    y = torch.empty(k, padded, dtype=E4M3, device=x.device)
    scale = torch.empty((), dtype=torch.float32, device=x.device)
    grid = (triton.cdiv(padded, _TILE.values["R"]), triton.cdiv(k, _TILE.values["C"]), 1)
    _cast(grid, (x, largest, y, scale), (), (n, k, padded, *x.stride()), _TILE)
    return y, scale


def dense_gradient(dy: Tensor, x: Tensor) -> Tensor:
    """G (out, in) in the dtype of x, from dy (n, out) and x (n, in)."""
    (small_dy, scale_dy), (small_x, scale_x) = cast(dy), cast(x)
    return product(small_dy, small_x, scale_dy, scale_x, x.dtype)


def product(
    small_dy: Tensor, small_x: Tensor, scale_dy: Tensor, scale_x: Tensor, dtype: torch.dtype
) -> Tensor:
    """G (out, in) in `dtype` from what `cast` made of dy and x."""
    # Fast accumulation would save 3 to 8 % of the product's time, but an H200 then drops digits of
    # sums that grow: of positive factors a sum over 8192 tokens is 5 % short, over 32768 18 %
    return torch._scaled_mm(
        small_dy, small_x.T, scale_dy, scale_x, out_dtype=dtype, use_fast_accum=False
    )
