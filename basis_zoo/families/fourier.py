"""Fourier series."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LinearBasis, register_basis


@register_basis("fourier")
@dataclass(frozen=True)
class Fourier(LinearBasis):
    r"""The constant, sines and cosines: $1, \sin\theta, \cos\theta, \sin 2\theta, \dots$

    $$\theta = \frac{2\pi}{P} \left(x - \frac{a + b}{2}\right), \qquad P = p\,(b - a)$$

    With period $P$ equal to the interval (`period` $p$ = 1) a function whose ends differ shows
    Gibbs oscillations at the ends; twice the interval ($p$ = 2, the default) avoids them.

    Reference: Boyd, *Chebyshev and Fourier Spectral Methods* (2001), section 17 (extensions).
    """

    period: float = 2.0
    """The period in units of the interval's length."""

    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.BOUNDED, Claim.ORTHOGONAL})
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"period": 1.0})
    formula: ClassVar[str] = r"\psi_{2k}(x) = \sin k\theta,\ \psi_{2k+1}(x) = \cos k\theta"
    reference: ClassVar[str] = "Boyd, Chebyshev and Fourier Spectral Methods (2001), 17"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.period > 0:
            raise ValueError(f"`period` must be positive, got {self.period}")

    @property
    def order(self) -> float | None:
        """Faster than any power where the period is longer than the interval."""
        return math.inf if self.period > 1 else None

    @property
    def orthogonality_interval(self) -> tuple[float, float]:
        """One period."""
        low, high = self.interval
        beyond = (self.period - 1) * (high - low) / 2
        return low - beyond, high + beyond

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The constant and the harmonics 1 to G // 2."""
        low, high = self.interval
        theta = 2 * math.pi / (self.period * (high - low)) * (x - (low + high) / 2)
        harmonic = torch.arange(1, self.num_basis // 2 + 1, device=x.device, dtype=x.dtype)
        angle = theta[..., None] * harmonic
        waves = torch.stack([torch.sin(angle), torch.cos(angle)], dim=-1).flatten(-2)
        return torch.cat([torch.ones_like(x)[..., None], waves], dim=-1)[..., : self.num_basis]

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """Real and imaginary parts of complex exponentials."""
        import numpy as np

        low, high = self.interval
        k = np.arange(self.num_basis // 2 + 1)
        wave = np.exp(2j * np.pi * np.outer((x - (low + high) / 2) / (high - low), k) / self.period)
        pairs = np.stack([wave.imag, wave.real], axis=-1).reshape(len(x), -1)
        return pairs[:, 1 : self.num_basis + 1]
