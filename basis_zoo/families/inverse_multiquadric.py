"""Inverse multiquadrics."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from basis_zoo.basis import Array, Claim, LocationScaleBasis, register_basis


@register_basis("inverse_multiquadric")
@dataclass(frozen=True)
class InverseMultiquadric(LocationScaleBasis):
    r"""The inverse multiquadric, with the bandwidth as shape parameter.

    $$\psi(z) = \frac{1}{\sqrt{1 + z^2}}$$

    Decays like $1/|z|$: every amplitude is felt everywhere.

    Reference: Hardy (1990); Fasshauer, *Meshfree Approximation Methods with MATLAB* (2007),
    section 4.4.
    """

    parity: ClassVar[str | None] = "even"
    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.BOUNDED, Claim.NON_NEGATIVE})
    formula: ClassVar[str] = r"\psi(z) = \frac{1}{\sqrt{1 + z^2}}"
    reference: ClassVar[str] = "Fasshauer, Meshfree Approximation Methods with MATLAB (2007), 4.4"

    def psi(self, z: Tensor) -> Tensor:
        """One over the root of 1 + z^2."""
        return (1 + z.square()).rsqrt()

    def psi_oracle(self, z: Array) -> Array:
        """`numpy.hypot`."""
        import numpy as np

        psi: Array = 1 / np.hypot(1, z)
        return psi
