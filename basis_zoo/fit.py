"""Amplitudes by least squares in float64, with their error."""

from typing import NamedTuple

import torch
from torch import Tensor

from basis_zoo.basis import Basis, LinearBasis

_CUTOFF = 1e-9  # singular values below this share of the largest are left out
_RIDGE = 1e-6  # of the mean squared column: bounds amplitudes where functions nearly coincide


class Fit(NamedTuple):
    """Amplitudes and how far off they are."""

    amplitude: Tensor
    """(num_amplitudes,) float64, of numbers that float32 holds"""
    residual: float
    """max |phi(x) - y| over the points, with amplitudes rounded to float32"""


def responses(basis: Basis, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
    """What one unit of each amplitude adds to phi when all others are zero: `(n, num_amplitudes)`.

    For a `LinearBasis` this is the design matrix; for others the model is linear near zero. There
    are n points `x`, `grid` is `(num_points,)` and `bandwidth` `(num_bandwidths,)`.
    """
    if isinstance(basis, LinearBasis):
        return basis.design_matrix(x, grid, bandwidth)
    unit = torch.eye(basis.num_amplitudes, dtype=x.dtype, device=x.device)
    one_each = torch.stack([basis.phi(x, row, grid, bandwidth) for row in unit], dim=-1)
    return one_each - basis.phi(x, torch.zeros_like(unit[0]), grid, bandwidth)[:, None]


def fit_amplitudes(
    basis: Basis,
    x: Tensor,
    y: Tensor,
    grid: Tensor,
    bandwidth: Tensor,
    *,
    ridge: bool = False,
    pinned: bool = False,
) -> Fit:
    """The amplitudes whose phi is nearest to `y` at the points `x` in the sum of squares.

    Args:
        basis, x, grid, bandwidth: As in `responses`.
        y: Values wanted at `x`, `(n,)`.
        ridge: Whether to hold amplitudes small at some cost in accuracy, as a start should.
        pinned: Whether to correct them, as little as possible, so that phi(0) = 0.
    """
    x, y, grid, bandwidth = (t.detach().to("cpu", torch.float64) for t in (x, y, grid, bandwidth))
    a = responses(basis, x, grid, bandwidth)
    rest = y - basis.phi(x, torch.zeros(basis.num_amplitudes, dtype=x.dtype), grid, bandwidth)
    target = rest
    if ridge:
        weight = (_RIDGE * a.square().sum(dim=0).mean()).sqrt()
        a = torch.cat([a, weight * torch.eye(a.shape[1], dtype=a.dtype)])
        target = torch.cat([rest, torch.zeros(a.shape[1], dtype=a.dtype)])
    solution = torch.linalg.lstsq(a, target[:, None], rcond=_CUTOFF, driver="gelsd").solution[:, 0]
    if pinned:
        row = responses(basis, torch.zeros_like(x[:1]), grid, bandwidth)[0]
        solution = solution - (row @ solution) / row.square().sum().clamp_min(1e-12) * row
    amplitude = solution.float().double()
    residual = (basis.phi(x, amplitude, grid, bandwidth) - y).abs().max().item()
    return Fit(amplitude, residual)
