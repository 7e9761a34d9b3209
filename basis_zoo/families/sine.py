"""Sines of learned frequency, the family of SineLoRA."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LinearBasis, register_basis


@register_basis("sine")
@dataclass(frozen=True)
class Sine(LinearBasis):
    r"""Sines through the origin with a frequency of their own each.

    $$\psi_i(x) = \sin(i\, \omega_i x)$$

    One function ($G = 1$, the default) with amplitude $1/s$ is SineLoRA's $\sin(\omega x) / s$.

    Reference: Ji et al., *Efficient Learning with Sine-Activated Low-Rank Matrices* (ICLR 2025,
    arXiv 2403.19243), equation 3.
    """

    num_basis: int = 1

    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.BOUNDED})
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"num_basis": 4})
    formula: ClassVar[str] = r"\psi_i(x) = \sin(i\,\omega_i x)"
    reference: ClassVar[str] = "Ji et al., Sine-Activated Low-Rank Matrices (arXiv 2403.19243), 3"

    @property
    def num_bandwidths(self) -> int:
        """One frequency for each sine."""
        return self.num_basis

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """All G sines."""
        harmonic = torch.arange(1, self.num_basis + 1, device=x.device, dtype=x.dtype)
        return torch.sin(x[..., None] * (harmonic * bandwidth)[..., None, :])

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """The imaginary part of complex exponentials."""
        import numpy as np

        return np.exp(1j * np.outer(x, np.arange(1, self.num_basis + 1) * bandwidth)).imag
