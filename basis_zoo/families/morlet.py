"""The Morlet wavelet, a real Gabor function."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LocationScaleBasis, register_basis


@register_basis("morlet")
@dataclass(frozen=True)
class Morlet(LocationScaleBasis):
    r"""A cosine under a Gaussian (real Morlet wavelet, Gabor function).

    $$\psi(z) = \cos(f z)\, e^{-z^2/2}$$

    At $f = 5$ its mean is $e^{-f^2/2}$ of the Gaussian's, 4e-6: it represents neither a constant
    nor a line, so carry the linear term.

    Reference: Grossmann & Morlet (1984); Daubechies, *Ten Lectures on Wavelets* (1992), 3.3.5.
    """

    frequency: float = 5.0
    """The frequency f, in radians per unit of z."""

    parity: ClassVar[str | None] = "even"
    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.BOUNDED})
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"frequency": 2.0})
    formula: ClassVar[str] = r"\psi(z) = \cos(f z)\,e^{-z^2/2}"
    reference: ClassVar[str] = "Daubechies, Ten Lectures on Wavelets (1992), 3.3.5"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.frequency > 0:
            raise ValueError(f"`frequency` must be positive, got {self.frequency}")

    def psi(self, z: Tensor) -> Tensor:
        """The wavelet."""
        return torch.cos(self.frequency * z) * torch.exp(-z.square() / 2)

    def psi_oracle(self, z: Array) -> Array:
        """The real part of one complex exponential."""
        import numpy as np

        return np.exp(1j * self.frequency * z - z**2 / 2).real
