"""Wendland's compactly supported function."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LocationScaleBasis, register_basis


@register_basis("wendland")
@dataclass(frozen=True)
class Wendland(LocationScaleBasis):
    r"""Wendland's $C^2$ function: local and smooth.

    $$\psi(z) = (1 - r)_+^4 (4r + 1), \qquad r = |z| / 3$$

    The bandwidth counts in thirds of the support, so that one over the spacing covers three
    neighbours on each side.

    Reference: Wendland, *Piecewise polynomial, positive definite and compactly supported radial
    functions of minimal degree* (1995), table 1.
    """

    parity: ClassVar[str | None] = "even"
    support: ClassVar[float] = 3.0
    smoothness: ClassVar[float] = 2
    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.BOUNDED, Claim.NON_NEGATIVE})
    formula: ClassVar[str] = r"\psi(z) = (1 - r)_+^4\,(4r + 1),\ r = |z|/3"
    reference: ClassVar[str] = "Wendland (1995), table 1"

    def kinks(self) -> tuple[float, ...]:
        """The center and both ends of the support."""
        return (-3.0, 0.0, 3.0)

    def psi(self, z: Tensor) -> Tensor:
        """The function; clamped before the power, so that nothing overflows far outside."""
        # |z| with slope 1 at 0: abs has slope 0 there, which makes second derivatives wrong
        r = torch.where(z < 0, -z, z).clamp(max=3.0) / 3
        return (1 - r).pow(4) * (4 * r + 1)

    def psi_oracle(self, z: Array) -> Array:
        """`numpy.polyval` of the expanded polynomial."""
        import numpy as np

        r = np.abs(z) / 3
        return np.where(r < 1, np.polyval([4, -15, 20, -10, 0, 1], np.minimum(r, 1)), 0.0)
