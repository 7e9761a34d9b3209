"""A basis family of your own, in one file: `python -m basis_zoo check examples/my_basis.py`."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from basis_zoo import Claim, LocationScaleBasis, register_basis


@register_basis("sech")  # the word a study's YAML uses: adapter.basis: sech
@dataclass(frozen=True)
class Sech(LocationScaleBasis):
    r"""The hyperbolic secant, a soliton's envelope.

    $$\psi(z) = \frac{1}{\cosh z}$$
    """

    parity: ClassVar[str | None] = "even"
    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.BOUNDED, Claim.NON_NEGATIVE})
    formula: ClassVar[str] = r"\psi(z) = \frac{1}{\cosh z}"
    reference: ClassVar[str] = "DLMF 4.28"

    def psi(self, z: Tensor) -> Tensor:
        """One over cosh z; z is clamped where cosh would overflow float32."""
        return 1 / torch.cosh(z.clamp(-40, 40))

    def psi_oracle(self, z: np.ndarray) -> np.ndarray:
        """The same from numpy, written another way."""
        return 2 * np.exp(-np.abs(z)) / (1 + np.exp(-2 * np.abs(z)))
