"""Bernstein polynomials."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LinearBasis, register_basis


@register_basis("bernstein")
@dataclass(frozen=True)
class Bernstein(LinearBasis):
    r"""Bernstein polynomials of degree $n = G - 1$ on the interval.

    $$b_{k,n}(t) = \binom{n}{k} t^k (1 - t)^{n-k}
    = (1 - t)\, b_{k,n-1}(t) + t\, b_{k-1,n-1}(t), \qquad t \in [0, 1]$$

    Amplitudes are a control polygon: increasing ones make phi increase. The recursion is used; it
    only averages, so nothing is lost to rounding. phi is clamped outside, where they explode.

    Reference: Farouki, *The Bernstein polynomial basis: a centennial retrospective* (2012).
    """

    extrapolation: ClassVar[str] = "clamp"
    claims: ClassVar[frozenset[Claim]] = frozenset(
        {Claim.PARTITION_OF_UNITY, Claim.NON_NEGATIVE, Claim.BOUNDED, Claim.REPRODUCES_LINES}
    )
    min_basis: ClassVar[int] = 2  # degree one
    order: ClassVar[float | None] = math.inf
    formula: ClassVar[str] = r"b_{k,n}(t) = \binom{n}{k}\, t^k (1-t)^{n-k}"
    reference: ClassVar[str] = "Farouki, The Bernstein polynomial basis (2012)"

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """All G polynomials, by de Casteljau's averages."""
        t = (1 + self.unit(x))[..., None] / 2
        b = torch.ones_like(t)
        for _ in range(self.num_basis - 1):
            edge = torch.zeros_like(t)
            b = torch.cat([(1 - t) * b, edge], dim=-1) + torch.cat([edge, t * b], dim=-1)
        return b

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """The closed form with `scipy.special.binom`."""
        import numpy as np
        from scipy import special

        t = np.interp(x, self.interval, (0.0, 1.0))[:, None]
        n = self.num_basis - 1
        k = np.arange(n + 1)
        design: Array = special.binom(n, k) * t**k * (1 - t) ** (n - k)
        return design
