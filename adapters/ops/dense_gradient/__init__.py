r"""$G = dy^\top x$, the gradient of W': in the dtype of its factors, or in 8 bits.

In 8 bits both factors are rounded to e4m3 (3 bits of mantissa) with one scale a tensor,
$\max|t| / 448$, measured anew each time and never brought to the host. The products of two such
numbers are added up in float32, and G is rounded once. Its noise is about 3.8 % of its
norm whatever the shape: two factors, each off by up to $2^{-4}$ of itself.
"""

import functools

import torch
from torch import Tensor

from adapters.ops.dense_gradient import emulated
from adapters.ops.dense_gradient.emulated import MULTIPLE

LEAST = 1500
"""The value of out x in / (out + in) from which 8 bits are used: 3008 x 3008, 2048 x 5632, 1792 x
9232.

A token more saves time for each entry of W and costs some for each of its dY and X. On an H200 at
4096 x 4096 (2048 by this measure) and 8192 tokens the product is 184 us faster, the casts take 58
and the maxima, two thirds of their bytes, some 40: even at 1100. At 2048 tokens, where launches
weigh more, it is 41 for 22 and some 13: even at 1750. `bench.adapter --only float8` measures it.
"""


def takes_float8(outputs: int, inputs: int) -> bool:
    """Whether G (outputs, inputs) can be computed in 8 bits, and is the faster for it."""
    fits = outputs % MULTIPLE == 0 and inputs % MULTIPLE == 0
    return fits and outputs * inputs >= LEAST * (outputs + inputs)


def dense_gradient(dy: Tensor, x: Tensor, *, float8: bool = False) -> Tensor:
    """G (out, in) = dY^T X in the dtype of x, the sum over all tokens.

    Args:
        dy: (*, out).
        x: (*, in), in the dtype of `dy`.
        float8: Compute in 8 bits where `takes_float8` of its shape holds and x is not float64. If
            anything in `dy` or `x` is infinite or NaN, all of G is NaN then. GPUs without 8-bit
            products and CPUs compute the same numbers by other means, which saves no time.
    """
    dy, x = dy.flatten(0, -2), x.flatten(0, -2)
    small = float8 and len(x) > 0 and x.dtype != torch.float64
    if not (small and takes_float8(dy.shape[1], x.shape[1])):
        return dy.T @ x
    return in_float8(dy, x)


def in_float8(dy: Tensor, x: Tensor) -> Tensor:
    """G (out, in) from dy (n, out) and x (n, in), in 8 bits whether that pays or not."""
    if not has_products(x.device):
        return emulated.dense_gradient(dy, x)
    from adapters.ops.dense_gradient import fused  # Triton is there where CUDA is

    return fused.dense_gradient(dy, x)


@functools.cache
def has_products(device: torch.device) -> bool:
    """Whether the device multiplies numbers in e4m3: NVIDIA's from capability 8.9 on."""
    if device.type != "cuda" or torch.version.cuda is None:  # AMD's e4m3 is another one
        return False
    return torch.cuda.get_device_capability(device) >= (8, 9)


__all__ = ["LEAST", "MULTIPLE", "dense_gradient", "has_products", "in_float8", "takes_float8"]
