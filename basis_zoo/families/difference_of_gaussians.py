"""The difference of two Gaussians."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LocationScaleBasis, register_basis


@register_basis("difference_of_gaussians")
@dataclass(frozen=True)
class DifferenceOfGaussians(LocationScaleBasis):
    r"""A narrow Gaussian minus one twice as wide and half as high.

    $$\psi(z) = e^{-z^2/2} - \tfrac12 e^{-z^2/8}$$

    Zero mean. Not the first derivative of a Gaussian, which also goes by the letters DoG.

    Reference: Marr & Hildreth, *Theory of edge detection* (1980).
    """

    parity: ClassVar[str | None] = "even"
    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.BOUNDED, Claim.ZERO_MEAN})
    formula: ClassVar[str] = r"\psi(z) = e^{-z^2/2} - \frac{1}{2}\,e^{-z^2/8}"
    reference: ClassVar[str] = "Marr & Hildreth, Theory of edge detection (1980)"

    def psi(self, z: Tensor) -> Tensor:
        """Narrow minus wide."""
        s = z.square()
        return torch.exp(-s / 2) - torch.exp(-s / 8) / 2

    def psi_oracle(self, z: Array) -> Array:
        """`scipy.stats.norm`."""
        import numpy as np
        from scipy import stats

        psi: Array = np.sqrt(2 * np.pi) * (stats.norm.pdf(z) - stats.norm.pdf(z, scale=2))
        return psi
