"""Chebyshev polynomials."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LinearBasis, register_basis


@register_basis("chebyshev")
@dataclass(frozen=True)
class Chebyshev(LinearBasis):
    r"""Chebyshev polynomials of the first kind, $T_0, \dots, T_{G-1}$, on the interval.

    $$T_0 = 1, \quad T_1 = u, \quad T_{k+1} = 2u\,T_k - T_{k-1}, \qquad u \in [-1, 1]$$

    They grow like $2^{k-1}|u|^k$ outside, so phi is clamped there. The recurrence is used, not
    $\cos(k \arccos u)$, whose derivative is infinite at both ends.

    Reference: Mason & Handscomb, *Chebyshev Polynomials* (2003), equation 1.3.
    """

    extrapolation: ClassVar[str] = "clamp"
    claims: ClassVar[frozenset[Claim]] = frozenset(
        {Claim.ORTHOGONAL, Claim.BOUNDED, Claim.REPRODUCES_LINES}
    )
    order: ClassVar[float | None] = math.inf
    formula: ClassVar[str] = r"T_{k+1}(u) = 2u\,T_k(u) - T_{k-1}(u)"
    reference: ClassVar[str] = "Mason & Handscomb, Chebyshev Polynomials (2003), 1.3"

    def weight(self, x: Tensor) -> Tensor:
        """1 / sqrt(1 - u^2)."""
        return (1 - self.unit(x).square()).rsqrt()

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """Degrees 0 to G - 1."""
        u = self.unit(x)
        t = [torch.ones_like(u), u]
        while len(t) < self.num_basis:
            t.append(2 * u * t[-1] - t[-2])
        return torch.stack(t[: self.num_basis], dim=-1)

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """`scipy.special.eval_chebyt`."""
        import numpy as np
        from scipy import special

        u = np.interp(x, self.interval, (-1.0, 1.0))
        design: Array = special.eval_chebyt(np.arange(self.num_basis), u[:, None])
        return design
