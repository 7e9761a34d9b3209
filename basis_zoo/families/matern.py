"""Matern functions."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LocationScaleBasis, register_basis


@register_basis("matern")
@dataclass(frozen=True)
class Matern(LocationScaleBasis):
    r"""Matern functions of half-integer smoothness, with the bandwidth as inverse length scale.

    $$\psi_{1/2} = e^{-|z|}, \qquad \psi_{3/2} = (1 + s) e^{-s},\ s = \sqrt 3 |z|, \qquad
    \psi_{5/2} = (1 + s + s^2/3) e^{-s},\ s = \sqrt 5 |z|$$

    Reference: Rasmussen & Williams, *Gaussian Processes for Machine Learning* (2006), equations
    4.14, 4.17.
    """

    nu: float = 2.5
    """0.5, 1.5 or 2.5; phi has 2 nu - 1 continuous derivatives."""

    parity: ClassVar[str | None] = "even"
    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.BOUNDED, Claim.NON_NEGATIVE})
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"nu": 1.5}, {"nu": 0.5})
    formula: ClassVar[str] = (
        r"\psi_{5/2}(z) = \left(1 + s + \frac{s^2}{3}\right) e^{-s},\ s = \sqrt{5}\,|z|"
    )
    reference: ClassVar[str] = "Rasmussen & Williams, Gaussian Processes (2006), 4.14"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nu not in (0.5, 1.5, 2.5):
            raise ValueError(f"`nu` must be 0.5, 1.5 or 2.5, got {self.nu}")

    @property
    def smoothness(self) -> float:
        """2 nu - 1 continuous derivatives."""
        return 2 * self.nu - 1

    def kinks(self) -> tuple[float, ...]:
        """The center."""
        return (0.0,)

    def psi(self, z: Tensor) -> Tensor:
        """The function of smoothness nu."""
        if self.nu == 0.5:
            return torch.exp(-z.abs())
        # |z| with slope 1 at 0: abs has slope 0 there, which makes second derivatives wrong
        s = math.sqrt(2 * self.nu) * torch.where(z < 0, -z, z)
        polynomial = 1 + s if self.nu == 1.5 else 1 + s + s.square() / 3
        return polynomial * torch.exp(-s)

    def psi_oracle(self, z: Array) -> Array:
        """The general formula with `scipy.special.kv`."""
        import numpy as np
        from scipy import special

        s = np.maximum(np.sqrt(2 * self.nu) * np.abs(z), 1e-12)
        factor = 2 ** (1 - self.nu) / special.gamma(self.nu)
        psi: Array = factor * s**self.nu * special.kv(self.nu, s)
        return psi
