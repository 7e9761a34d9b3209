"""The stable rank of a matrix without its singular values, for use while training."""

import torch
from torch import Tensor

ITERATIONS = 12


def stable_rank_by_power(matrix: Tensor) -> Tensor:
    r"""$\|M\|_F^2 / \|M\|_2^2$ by power iteration, (), float32 or better, differentiable; 0 for 0.

    Never too small, as $\|Mv\| \le \|M\|_2$ for a unit vector v, and too large by at most the share
    $\sum_{i>1} (1 - q_i^2)\, q_i^{48} c_i^2 / c_1^2$ of $\|Mv\|^2$, with $q_i = s_i/s_1$ and the
    start's parts $c_i$ along the right singular vectors: rounding where the first value stands
    apart ($q_2 \le 0.7$), some percent where many are nearly as large. The gradient is that of
    $\|M\|_F^2 / \|Mv\|^2$ at the v that was found: at a singular vector, that of the stable rank.

    Costs 25 products with a vector; never waits for the device and draws nothing at random, so that
    a CUDA graph may hold it.

    Args:
        matrix: M, (rows, columns), neither of them 0.
    """
    work = matrix if matrix.dtype == torch.float64 else matrix.float()
    peak = work.detach().abs().amax()
    work = work / torch.where(peak > 0, peak, 1)  # squares of small entries would underflow
    v = torch.cos(torch.arange(work.shape[1], device=work.device, dtype=torch.float64).square())
    v = v.to(work.dtype)  # no pattern that a matrix would have
    with torch.no_grad():
        for _ in range(ITERATIONS):
            v = work.T @ (work @ v)
            v = v / v.norm().clamp_min(torch.finfo(v.dtype).tiny)
    top = (work @ v).square().sum()
    return work.square().sum() / torch.where(top > 0, top, 1)
