"""Monomials."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LinearBasis, register_basis


@register_basis("polynomial")
@dataclass(frozen=True)
class Polynomial(LinearBasis):
    r"""Monomials of the variable scaled to $[-1, 1]$.

    $$\psi_i(x) = u^{i-1}, \qquad u = \frac{2x - (a + b)}{b - a}$$

    Badly conditioned: the design matrix of 50 monomials on $[-1, 1]$ has condition 7e17, so only
    the lowest dozen degrees are of use in float32; `chebyshev` spans the same space with
    condition 7. They explode outside the interval, so phi is clamped there.

    Reference: Higham, *Accuracy and Stability of Numerical Algorithms* (2002), section 22.
    """

    extrapolation: ClassVar[str] = "clamp"
    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.BOUNDED, Claim.REPRODUCES_LINES})
    order: ClassVar[float | None] = math.inf
    formula: ClassVar[str] = r"\psi_i(x) = u^{i-1},\ u \in [-1, 1]"
    reference: ClassVar[str] = "Higham, Accuracy and Stability of Numerical Algorithms (2002), 22"

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """Powers 0 to G - 1 of the scaled variable."""
        u = self.unit(x)
        powers = [torch.ones_like(u)]
        while len(powers) < self.num_basis:
            powers.append(powers[-1] * u)
        return torch.stack(powers, dim=-1)

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """`numpy.vander`."""
        import numpy as np

        return np.vander(np.interp(x, self.interval, (-1.0, 1.0)), self.num_basis, increasing=True)
