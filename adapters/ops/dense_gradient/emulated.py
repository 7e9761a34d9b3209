"""The 8-bit product in plain torch: the definition that the fused path must agree with."""

import torch
from torch import Tensor

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max
"""448."""
MULTIPLE = 16
"""The sizes of an 8-bit product must be multiples of this; tokens are padded."""
SMALLEST = 2.0**-100
"""The least maximum that a scale follows: 448 divided by it is still a float32."""


def dense_gradient(dy: Tensor, x: Tensor) -> Tensor:
    """G (out, in) in the dtype of x, from dy (n, out) and x (n, in)."""
    (small_dy, scale_dy), (small_x, scale_x) = cast(dy), cast(x)
    with torch.autocast(x.device.type, enabled=False):
        g = small_dy.float().T @ small_x.float()
    return (g * scale_dy * scale_x).to(x.dtype)


def cast(x: Tensor) -> tuple[Tensor, Tensor]:
    """x in 8 bits, and the float32 number that it is to be multiplied by.

    Both are NaN if anything in x is infinite or NaN: a cast by itself would make 448 of infinity.
    """
    largest = torch.linalg.vector_norm(x, torch.inf).float().clamp(min=SMALLEST)  # NaN stays NaN
    largest = torch.where(largest < torch.inf, largest, torch.nan)
    # a tensor by a tensor: a number torch would divide by multiplying by the rounded reciprocal
    inverse = torch.full_like(largest, LARGEST) / largest
    return (x.float() * inverse).to(E4M3), largest * (1 / LARGEST)
