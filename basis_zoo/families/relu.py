"""Hinges: the truncated power basis of piecewise linear functions."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LinearBasis, register_basis


@register_basis("relu")
@dataclass(frozen=True)
class ReLU(LinearBasis):
    r"""A constant, a line and one hinge at every inner grid point.

    $$\psi_1 = 1, \qquad \psi_2 = x - g_1, \qquad \psi_i = \max(0,\ x - g_{i-1}), \quad i \ge 3$$

    The same functions as `hat` on the same grid, except outside, where the lines go on. Worse
    conditioned than hats: every amplitude moves phi all the way to the right of its hinge.

    Reference: Friedman, *Multivariate adaptive regression splines* (1991), section 3.
    """

    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.REPRODUCES_LINES})
    min_basis: ClassVar[int] = 2  # the constant and the line
    order: ClassVar[float | None] = 2
    smoothness: ClassVar[float] = 0
    formula: ClassVar[str] = r"\psi_i(x) = \max(0,\ x - g_{i-1})"
    reference: ClassVar[str] = "Friedman, Multivariate adaptive regression splines (1991), 3"

    @property
    def num_points(self) -> int:
        """Both ends and the hinges between them."""
        return self.num_basis

    def ends(self, grid: Tensor) -> Tensor:
        """The first and last grid point."""
        return torch.cat([grid[..., :1], grid[..., -1:]], dim=-1)

    def breakpoints(self, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The hinges."""
        return grid[..., 1:-1]

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The constant, the line and the hinges."""
        distance = x[..., :, None] - grid[..., None, :-1]
        line, hinges = distance[..., :1], distance[..., 1:].clamp(min=0)
        return torch.cat([torch.ones_like(line), line, hinges], dim=-1)

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """`numpy.maximum`."""
        import numpy as np

        hinges = np.maximum(0, np.subtract.outer(x, grid[1:-1]))
        return np.column_stack([np.ones_like(x), x - grid[0], hinges])
