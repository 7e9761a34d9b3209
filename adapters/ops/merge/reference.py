r"""The definition: $W' = W + s\,\phi(BA)$ and its gradients, in plain torch.

Slow and plain beside `fused.py`, which must agree with it. Float64 inputs are computed in
float64, all others in float32; W' is rounded once, to the dtype of W, so that the forward pass and
a merge give the same bits.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from basis_zoo.proxy import Proxy


def product(b: Tensor, a: Tensor) -> Tensor:
    """x = B A in float32 or better, (out, in)."""
    work = torch.promote_types(torch.promote_types(b.dtype, a.dtype), torch.float32)
    with torch.autocast(b.device.type, enabled=False):
        return b.to(work) @ a.to(work)


def merged_weight(
    weight: Tensor | None,
    b: Tensor,
    a: Tensor,
    proxy: Proxy,
    scale: float,
    *,
    hadamard: bool = False,
    dtype: torch.dtype | None = None,
    seed: int | None = None,
) -> Tensor:
    """W' = W + scale * phi(B A); the arguments are those of `adapters.ops.merge`."""
    update = of_blocks(proxy.value, proxy.copies, product(b, a))
    if hadamard and weight is not None:
        update = update * weight
    if weight is None:
        total, dtype = update * scale, dtype or update.dtype
    else:
        wide = torch.promote_types(weight.dtype, update.dtype)  # a float64 W keeps its digits
        total = torch.add(weight.to(wide), update.to(wide), alpha=scale)
        dtype = dtype or weight.dtype
    if seed is not None and dtype == torch.bfloat16:
        total = round_up_or_down(total, seed)
    return total.to(dtype)


def of_blocks(function: Callable[..., Tensor], count: int, *matrices: Tensor) -> Tensor:
    """`function` of `matrices`, of `count` blocks of rows at once; in the shape of a matrix."""
    if count == 1:
        return function(*matrices)
    result = function(*(matrix.reshape(count, -1) for matrix in matrices))
    return result if len(matrices) > 1 else result.view(matrices[0].shape)


def round_up_or_down(total: Tensor, seed: int) -> Tensor:
    """Float32 whose upper half is `total` rounded to bfloat16 with the odds of its distance."""
    index = torch.arange(total.numel(), device=total.device).view(total.shape)
    bits = total.float().view(torch.int32)
    noise = (_hash(index, seed) & 0xFFFF).int()
    rounded = torch.where(total.isfinite(), bits + noise, bits) & ~0xFFFF
    return rounded.view(torch.float32)


def _hash(index: Tensor, seed: int) -> Tensor:
    """32 well mixed bits for each element, in int64; the integer hash of `fused`."""
    low = 0xFFFFFFFF
    h = ((index ^ (index >> 32)) & low) ^ (seed & low)
    h = ((h ^ (h >> 16)) * 0x7FEB352D) & low
    h = ((h ^ (h >> 15)) * 0x846CA68B) & low
    return h ^ (h >> 16)


def merge_gradients(
    grad: Tensor, b: Tensor, a: Tensor, proxy: Proxy, scale: float, weight: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to B, A and phi; arguments and results as in `adapters.ops.merge`.

    H = s G * phi'(B A), dB = H A^T, dA = B^T H; for phi the moments that its proxy asks for. The
    Hadamard form has G ⊙ W in the place of G.
    """
    x = product(b, a)
    grad = grad.to(x.dtype) * scale
    if weight is not None:
        grad = grad * weight
    h = grad * of_blocks(proxy.slope, proxy.copies, x)
    with torch.autocast(b.device.type, enabled=False):
        return (
            h @ a.to(h.dtype).T,
            b.to(h.dtype).T @ h,
            of_blocks(proxy.pullback, proxy.copies, x, grad),
        )
