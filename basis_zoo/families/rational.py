"""Rational functions without poles."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Basis, register_basis


@register_basis("rational")
@dataclass(frozen=True)
class Rational(Basis):
    r"""A safe Pade function: a polynomial over one that has no real root.

    $$\phi(x) = \frac{2 \sum_{i=0}^{m} a_i u^i}{1 + \left(1 + \sum_{j=1}^{n} b_j u^j\right)^2},
    \qquad u \in [-1, 1]$$

    The denominator is at least one half of its value at $b = 0$, smooth, and moves with $b$ at
    $b = 0$. The usual $1 + |S|$ and $1 + S^2$ do not: there $b = 0$ is never left.

    Reference: Molina et al., *Pade Activation Units* (2020), equation 3, with the square shifted.
    """

    num_basis: int = 8
    """m + 1 + n: all coefficients, $a$ then $b$."""
    denominator: int = 2
    """n: the denominator has degree 2n."""

    variants: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"num_basis": 6, "denominator": 1})
    formula: ClassVar[str] = r"\phi = 2\,\sum_i a_i u^i\ /\ (1 + (1 + \sum_j b_j u^j)^2)"
    reference: ClassVar[str] = "Molina et al., Pade Activation Units (2020), 3"

    def __post_init__(self) -> None:
        if self.denominator < 0:
            raise ValueError(f"`denominator` must be at least 0, got {self.denominator}")
        super().__post_init__()

    @property
    def min_basis(self) -> int:
        """A line above the denominator."""
        return self.denominator + 2

    def phi(self, x: Tensor, amplitude: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The quotient, both parts by Horner's rule."""
        u = self.unit(x)
        above = self.num_basis - self.denominator
        top = _horner(u, amplitude[..., :above])
        bottom = u * _horner(u, amplitude[..., above:])
        return 2 * top / (1 + (1 + bottom).square())

    def phi_oracle(self, x: Array, amplitude: Array, grid: Array, bandwidth: Array) -> Array:
        """`numpy.polynomial.Polynomial`."""
        import numpy as np

        low, high = self.interval
        u = (x - (low + high) / 2) / ((high - low) / 2)
        above = self.num_basis - self.denominator
        top = np.polynomial.Polynomial(amplitude[:above])
        bottom = np.polynomial.Polynomial(np.r_[1.0, amplitude[above:]])
        return 2 * top(u) / (1 + bottom(u) ** 2)


def _horner(u: Tensor, coefficients: Tensor) -> Tensor:
    value = torch.zeros_like(u)
    for c in reversed(coefficients.unbind(-1)):
        value = value * u + c[..., None]
    return value
