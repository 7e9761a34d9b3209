"""Gaussian radial basis functions."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LocationScaleBasis, register_basis


@register_basis("gaussian_rbf")
@dataclass(frozen=True)
class GaussianRBF(LocationScaleBasis):
    r"""The Gaussian, with the bandwidth as the inverse standard deviation.

    $$\psi(z) = e^{-z^2 / 2}$$

    Reference: Fasshauer, *Meshfree Approximation Methods with MATLAB* (2007), section 2.1, with
    shape parameter $\varepsilon = \omega / \sqrt 2$.
    """

    parity: ClassVar[str | None] = "even"
    claims: ClassVar[frozenset[Claim]] = frozenset({Claim.BOUNDED, Claim.NON_NEGATIVE})
    formula: ClassVar[str] = r"\psi(z) = e^{-z^2/2}"
    reference: ClassVar[str] = "Fasshauer, Meshfree Approximation Methods with MATLAB (2007), 2.1"

    def psi(self, z: Tensor) -> Tensor:
        """The Gaussian of z."""
        return torch.exp(-z.square() / 2)

    def psi_oracle(self, z: Array) -> Array:
        """`scipy.stats.norm.pdf`, rescaled."""
        import numpy as np
        from scipy import stats

        psi: Array = np.sqrt(2 * np.pi) * stats.norm.pdf(z)
        return psi
