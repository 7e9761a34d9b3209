"""Legendre polynomials."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LinearBasis, register_basis


@register_basis("legendre")
@dataclass(frozen=True)
class Legendre(LinearBasis):
    r"""Legendre polynomials $P_0, \dots, P_{G-1}$ on the interval.

    $$(k + 1) P_{k+1} = (2k + 1)\, u\, P_k - k\, P_{k-1}, \qquad P_0 = 1, \quad P_1 = u$$

    Orthogonal under the constant weight; they grow like $|u|^k$ outside, so phi is clamped there.

    Reference: DLMF 18.9.2, https://dlmf.nist.gov/18.9.
    """

    extrapolation: ClassVar[str] = "clamp"
    claims: ClassVar[frozenset[Claim]] = frozenset(
        {Claim.ORTHOGONAL, Claim.BOUNDED, Claim.REPRODUCES_LINES}
    )
    order: ClassVar[float | None] = math.inf
    formula: ClassVar[str] = r"(k+1)\,P_{k+1}(u) = (2k+1)\,u\,P_k(u) - k\,P_{k-1}(u)"
    reference: ClassVar[str] = "DLMF 18.9.2"

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """Degrees 0 to G - 1."""
        u = self.unit(x)
        p = [torch.ones_like(u), u]
        while len(p) < self.num_basis:
            k = len(p) - 1
            p.append(((2 * k + 1) * u * p[-1] - k * p[-2]) / (k + 1))
        return torch.stack(p[: self.num_basis], dim=-1)

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """`scipy.special.eval_legendre`."""
        import numpy as np
        from scipy import special

        u = np.interp(x, self.interval, (-1.0, 1.0))
        design: Array = special.eval_legendre(np.arange(self.num_basis), u[:, None])
        return design
