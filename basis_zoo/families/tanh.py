"""Smooth steps."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LocationScaleBasis, register_basis


@register_basis("tanh")
@dataclass(frozen=True)
class Tanh(LocationScaleBasis):
    r"""Smooth steps, one at every center.

    $$\psi(z) = \tanh z$$

    Positive amplitudes make phi increase; it is constant far outside.

    Reference: Cybenko, *Approximation by superpositions of a sigmoidal function* (1989).
    """

    parity: ClassVar[str | None] = "odd"
    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.BOUNDED})
    formula: ClassVar[str] = r"\psi(z) = \tanh z"
    reference: ClassVar[str] = "Cybenko (1989)"

    def psi(self, z: Tensor) -> Tensor:
        """The step."""
        return torch.tanh(z)

    def psi_oracle(self, z: Array) -> Array:
        """Through the logistic function of scipy: tanh z = 2 expit(2z) - 1."""
        from scipy import special

        psi: Array = 2 * special.expit(2 * z) - 1
        return psi
