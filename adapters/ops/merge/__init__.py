"""W' = W + s phi(BA) and its gradients: `fused` on a GPU, `blocked` on a CPU, else `reference`.

The Hadamard form is W' = W + s W ⊙ phi(BA). A stack of n proxies stands for a phi of each of n
equal blocks of rows.
"""

import functools
from typing import Any, Protocol

import torch
from torch import Tensor

from adapters.ops.merge import blocked, reference
from adapters.ops.merge.reference import product
from basis_zoo.proxy import ChebyshevProxy, ExactProxy, Proxy


class Implementation(Protocol):
    """A path: a module with these two functions, of the proxies that it can evaluate."""

    def merged_weight(
        self, weight: Tensor | None, b: Tensor, a: Tensor, proxy: Any, scale: float,
        *, hadamard: bool = False, dtype: torch.dtype | None = None, seed: int | None = None,
    ) -> Tensor:  # fmt: skip
        """As `merged_weight` below."""

    def merge_gradients(
        self, grad: Tensor, b: Tensor, a: Tensor, proxy: Any, scale: float,
        weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """As `merge_gradients` below."""


def _implementation(b: Tensor, other: Tensor | None, proxy: Proxy) -> Implementation:
    """The fast path where it works: float32 factors, 16 or 32 bit weights, and a real proxy."""
    wide = torch.float64 in (b.dtype, b.dtype if other is None else other.dtype)
    if wide or isinstance(proxy, ExactProxy):
        return reference
    if b.is_cuda and (proxy.copies == 1 or isinstance(proxy, ChebyshevProxy)):
        return _fused()
    if b.device.type == "cpu" and blocked.can_evaluate(proxy):
        return blocked
    return reference


@functools.cache
def _fused() -> Implementation:
    from adapters.ops.merge import fused  # Triton is there where CUDA is

    return fused


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
    """W' = W + scale * phi(B A), rounded once.

    Args:
        weight: (out, in), any floating dtype; None for the update by itself.
        b: (out, r).
        a: (r, in).
        proxy: phi on the range of B A; a stack of n for one phi a block of out / n rows.
        scale: s.
        hadamard: W' = W + scale * W ⊙ phi(B A) instead.
        dtype: Dtype of the result; by default that of W, or float32 without W.
        seed: Round to bfloat16 up or down by chance, such that the mean is exact; the same seed
            gives the same bits. None rounds to nearest. Other dtypes are rounded to nearest.
    """
    path = _implementation(b, weight, proxy)
    return path.merged_weight(weight, b, a, proxy, scale, hadamard=hadamard, dtype=dtype, seed=seed)


def merge_gradients(
    grad: Tensor, b: Tensor, a: Tensor, proxy: Proxy, scale: float, weight: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a loss with respect to B, A and phi, from its gradient G with respect to W'.

    Args:
        grad: G, (out, in).
        weight: W, where W' is the Hadamard form.

    Returns:
        dB (out, r), dA (r, in), d coefficients (the shape of `proxy.coefficients`).
    """
    return _implementation(b, grad, proxy).merge_gradients(grad, b, a, proxy, scale, weight)


__all__ = ["merge_gradients", "merged_weight", "product"]
