"""Hermite functions."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LinearBasis, register_basis


@register_basis("hermite")
@dataclass(frozen=True)
class Hermite(LinearBasis):
    r"""Hermite functions $h_0, \dots, h_{G-1}$, the eigenfunctions of the Fourier transform.

    $$h_0(t) = \pi^{-1/4} e^{-t^2/2}, \quad h_1 = \sqrt 2\, t\, h_0, \quad
    h_{k+1} = \sqrt{\tfrac{2}{k+1}}\, t\, h_k - \sqrt{\tfrac{k}{k+1}}\, h_{k-1}$$

    with $t = \sqrt G\, u$: the last function oscillates all over the interval and a little beyond.
    Orthogonal on the real line and zero far outside. The polynomials without the Gaussian
    overflow float32 near degree 30 and are not offered.

    Reference: Boyd, *Chebyshev and Fourier Spectral Methods* (2001), section 17.4.
    """

    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.ORTHOGONAL, Claim.BOUNDED})
    order: ClassVar[float | None] = math.inf
    formula: ClassVar[str] = (
        r"h_{k+1}(t) = \sqrt{\frac{2}{k+1}}\,t\,h_k(t) - \sqrt{\frac{k}{k+1}}\,h_{k-1}(t)"
    )
    reference: ClassVar[str] = "Boyd, Chebyshev and Fourier Spectral Methods (2001), 17.4"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_basis > 400:
            raise ValueError(
                f"`num_basis` must be at most 400 for Hermite, got {self.num_basis}: beyond, "
                "the Gaussian underflows float64"
            )

    @property
    def orthogonality_interval(self) -> tuple[float, float]:
        """So wide that every function has faded below rounding at the ends."""
        low, high = self.interval
        beyond = (high - low) / 2 * (1 + 9 / math.sqrt(self.num_basis))
        return low - beyond, high + beyond

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """Orders 0 to G - 1."""
        # float64: the Gaussian underflows float32 where late functions are still large
        t = math.sqrt(self.num_basis) * self.unit(x.double())[..., None]
        far = t.abs() > math.sqrt(2 * self.num_basis) + 8  # zero; the recurrence would overflow
        t = torch.where(far, 0, t)
        h = [math.pi**-0.25 * torch.exp(-t.square() / 2)]
        h.append(math.sqrt(2) * t * h[0])
        while len(h) < self.num_basis:
            k = len(h) - 1
            h.append(math.sqrt(2 / (k + 1)) * t * h[-1] - math.sqrt(k / (k + 1)) * h[-2])
        values = torch.cat(h[: self.num_basis], dim=-1)
        return torch.where(far, 0, values).to(x.dtype)

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """`numpy.polynomial.hermite`, normalised in logarithms."""
        import numpy as np
        from scipy import special

        low, high = self.interval
        t = np.sqrt(self.num_basis) * (x - (low + high) / 2) / ((high - low) / 2)
        k = np.arange(self.num_basis)
        log_norm = 0.5 * (k * np.log(2) + special.gammaln(k + 1) + np.log(np.pi) / 2)
        value = np.polynomial.hermite.hermvander(t, self.num_basis - 1)
        design: Array = value * np.exp(-(t[:, None] ** 2) / 2 - log_norm)
        return design
