"""The Mexican hat wavelet."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LocationScaleBasis, register_basis


@register_basis("mexican_hat")
@dataclass(frozen=True)
class MexicanHat(LocationScaleBasis):
    r"""The Mexican hat (Ricker) wavelet: minus the second derivative of a Gaussian.

    $$\psi(z) = \frac{2}{\sqrt 3\, \pi^{1/4}} (1 - z^2)\, e^{-z^2/2}$$

    Zero mean, unit energy, positive at the center. With one scale only it represents neither a
    constant nor a line: carry the linear term.

    Reference: Daubechies, *Ten Lectures on Wavelets* (1992), equation 3.3.17.
    """

    parity: ClassVar[str | None] = "even"
    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.BOUNDED, Claim.ZERO_MEAN})
    formula: ClassVar[str] = r"\psi(z) = \frac{2}{\sqrt{3}\,\pi^{1/4}}\,(1 - z^2)\,e^{-z^2/2}"
    reference: ClassVar[str] = "Daubechies, Ten Lectures on Wavelets (1992), 3.3.17"

    def psi(self, z: Tensor) -> Tensor:
        """The wavelet."""
        s = z.square()
        height: float = 2 / (math.sqrt(3) * math.pi**0.25)
        return height * (1 - s) * torch.exp(-s / 2)

    def psi_oracle(self, z: Array) -> Array:
        """Through He_2, the probabilists' Hermite polynomial of scipy."""
        import numpy as np
        from scipy import special, stats

        gaussian = stats.norm.pdf(z) * np.sqrt(2 * np.pi)
        psi: Array = -2 / np.sqrt(3 * np.sqrt(np.pi)) * special.eval_hermitenorm(2, z) * gaussian
        return psi
