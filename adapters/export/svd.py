r"""Leading singular triples: randomised for dense matrices, exact for products of thin factors."""

from typing import NamedTuple

import torch
from torch import Tensor

_OVERSAMPLING = 10
_ITERATIONS = 6


class Factors(NamedTuple):
    """The leading part of a singular value decomposition."""

    u: Tensor
    """(out, k), orthonormal columns"""
    s: Tensor
    """(k,), falling"""
    v: Tensor
    """(in, k), orthonormal columns"""


def leading(matrix: Tensor, count: int, seed: int = 0) -> Factors:
    r"""The `count` leading triples of a dense (out, in) matrix, in float32 or better.

    Randomised range finder with power iterations (Halko, Martinsson & Tropp 2011, algorithms 4.4
    and 5.1): orthonormal Q spans the range approximately, and $Q^\top M$ is decomposed exactly.
    So $U_k S_k V_k^\top = U_k U_k^\top M$ is a true projection, and its error is
    $\|M\|^2 - \sum_{i \le k} s_i^2$ whatever the quality of Q. Exact where most of the spectrum is
    asked for, since nothing would be saved.
    """
    work = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    width = count + _OVERSAMPLING
    if 2 * width >= min(work.shape):
        u, s, vt = torch.linalg.svd(work, full_matrices=False)
        return Factors(u[:, :count], s[:count], vt[:count].T)
    generator = torch.Generator(work.device).manual_seed(seed)
    start = torch.randn(
        work.shape[1], width, dtype=work.dtype, device=work.device, generator=generator
    )
    q = torch.linalg.qr(work @ start).Q
    for _ in range(_ITERATIONS):
        q = torch.linalg.qr(work @ torch.linalg.qr(work.T @ q).Q).Q
    right, core = torch.linalg.qr(work.T @ q)  # Q^T M = core^T right^T
    u, s, vt = torch.linalg.svd(core.T)
    return Factors(q @ u[:, :count], s[:count], right @ vt[:count].T)


def of_product(b: Tensor, a: Tensor) -> Factors:
    """All triples of B A from its factors (out, r) and (r, in), by a core of r x r; float64."""
    q_b, r_b = torch.linalg.qr(b.double())
    q_a, r_a = torch.linalg.qr(a.double().T)
    u, s, vt = torch.linalg.svd(r_b @ r_a.T)
    return Factors(q_b @ u, s, q_a @ vt.T)
