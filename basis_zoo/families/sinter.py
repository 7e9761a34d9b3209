"""A line with a growing ripple, the family of LoRAN."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Basis, register_basis


@register_basis("sinter")
@dataclass(frozen=True)
class Sinter(Basis):
    r"""The identity plus ripples that grow with $x$ (LoRAN's Sinter).

    $$\phi(x) = x + \sum_{i=1}^{G} a_i\, x \sin(i\, \omega_i x)$$

    The identity is part of the family: zero amplitudes are plain LoRA. LoRAN has $G = 1$ (the
    default), $a$ from 5e-5 to 5e-4 and $\omega$ from 1e3 to 1e4.

    Reference: Li et al., *LoRAN* (arXiv 2509.21870).
    """

    num_basis: int = 1

    variants: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"num_basis": 3})
    formula: ClassVar[str] = r"\phi(x) = x + \sum_i a_i\,x\,\sin(i\,\omega_i x)"
    reference: ClassVar[str] = "Li et al., LoRAN (arXiv 2509.21870)"

    @property
    def num_bandwidths(self) -> int:
        """One frequency for each ripple."""
        return self.num_basis

    def phi(self, x: Tensor, amplitude: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The identity and the ripples."""
        harmonic = torch.arange(1, self.num_basis + 1, device=x.device, dtype=x.dtype)
        sines = torch.sin(x[..., None] * (harmonic * bandwidth)[..., None, :])
        return x * (1 + torch.einsum("...ng,...g->...n", sines, amplitude))

    def phi_oracle(self, x: Array, amplitude: Array, grid: Array, bandwidth: Array) -> Array:
        """The imaginary part of complex exponentials."""
        import numpy as np

        waves = np.exp(1j * np.outer(x, np.arange(1, self.num_basis + 1) * bandwidth))
        phi: Array = x + x * (waves.imag @ amplitude)
        return phi
