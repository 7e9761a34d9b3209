"""Sinc, the family of LR-LoRA."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LocationScaleBasis, register_basis

_SERIES_BELOW = 0.25  # sin(t)/t cancels in its derivatives near 0: a series there, |error| < 3e-14


@register_basis("sinc")
@dataclass(frozen=True)
class Sinc(LocationScaleBasis):
    r"""The normalised sinc function, with $\psi(0) = 1$.

    $$\psi(z) = \frac{\sin \pi z}{\pi z}$$

    With spacing $h$ and bandwidth $1/h$ the functions interpolate at the centers and are
    orthogonal on the real line (Whittaker-Shannon).

    Reference: LR-LoRA (arXiv 2606.04325), equation 4; the derivative of `torch.sinc` loses
    digits near 0 and its second derivative is NaN there, so it is not used.
    """

    parity: ClassVar[str | None] = "even"
    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.BOUNDED, Claim.INTERPOLATING})
    formula: ClassVar[str] = r"\psi(z) = \frac{\sin \pi z}{\pi z}"
    reference: ClassVar[str] = "Whittaker 1915; LR-LoRA (arXiv 2606.04325), equation 4"

    def psi(self, z: Tensor) -> Tensor:
        """Sinc of z; smooth to every order at 0."""
        near = z.abs() < _SERIES_BELOW
        t = math.pi * torch.where(near, torch.ones_like(z), z)
        s = (math.pi * torch.where(near, z, torch.zeros_like(z))).square()
        series = torch.ones_like(s)
        for k in range(6, 0, -1):
            series = 1 - s / (2 * k * (2 * k + 1)) * series
        return torch.where(near, series, torch.sin(t) / t)

    def psi_oracle(self, z: Array) -> Array:
        """The spherical Bessel function of order 0 of scipy."""
        import numpy as np
        from scipy import special

        psi: Array = special.spherical_jn(0, np.pi * np.abs(z))
        return psi
