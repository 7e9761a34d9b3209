"""Hat functions: piecewise linear interpolation."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LinearBasis, register_basis


@register_basis("hat")
@dataclass(frozen=True)
class Hat(LinearBasis):
    r"""Hats on the grid: each is one at its own point and falls to zero at both neighbours.

    $$\psi_i(x) = \max\!\left(0,\ \min\!\left(\frac{x - g_{i-1}}{g_i - g_{i-1}},\
    \frac{g_{i+1} - x}{g_{i+1} - g_i}\right)\right)$$

    Amplitudes are the values of phi at the grid points. The first and last spacing are continued
    by one point outside, so that phi fades to zero there without a jump.

    Reference: Bohra et al., *Learning activation functions in deep (spline) neural networks*
    (2020), equation 13.
    """

    claims: ClassVar[frozenset[Claim]] = frozenset(
        {
            Claim.PARTITION_OF_UNITY,
            Claim.INTERPOLATING,
            Claim.NON_NEGATIVE,
            Claim.BOUNDED,
            Claim.REPRODUCES_LINES,
        }
    )
    min_basis: ClassVar[int] = 2  # one piece
    order: ClassVar[float | None] = 2
    smoothness: ClassVar[float] = 0
    formula: ClassVar[str] = r"\psi_i(x) = \max(0,\ 1 - |x - g_i| / h)"
    reference: ClassVar[str] = "Bohra et al., Learning activation functions in deep networks (2020)"

    @property
    def num_points(self) -> int:
        """One for each hat."""
        return self.num_basis

    def ends(self, grid: Tensor) -> Tensor:
        """The first and last grid point."""
        return torch.cat([grid[..., :1], grid[..., -1:]], dim=-1)

    def breakpoints(self, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The grid and one more point at each end."""
        before, after = 2 * grid[..., :1] - grid[..., 1:2], 2 * grid[..., -1:] - grid[..., -2:-1]
        return torch.cat([before, grid, after], dim=-1)

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """All G hats."""
        g = self.breakpoints(grid, bandwidth)[..., None, :]
        x = x[..., :, None]
        span = (g[..., -1:] - g[..., :1]).detach().clamp(min=1e-30)
        gap = torch.maximum(g.diff(dim=-1), torch.finfo(g.dtype).eps * span)  # learned: may meet
        rising = (x - g[..., :-2]) / gap[..., :-1]
        falling = (g[..., 2:] - x) / gap[..., 1:]
        return torch.minimum(rising, falling).clamp(min=0)

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """`numpy.interp` of unit vectors."""
        import numpy as np

        g = np.r_[2 * grid[0] - grid[1], grid, 2 * grid[-1] - grid[-2]]
        unit = np.eye(len(g))[1:-1]
        return np.stack([np.interp(x, g, row, left=0, right=0) for row in unit], axis=-1)
