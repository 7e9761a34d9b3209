"""Haar wavelets."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, register_basis
from basis_zoo.dyadic import Dyadic


@register_basis("haar")
@dataclass(frozen=True)
class Haar(Dyadic):
    r"""The constant and Haar wavelets, from coarse to fine, on $t \in [0, 1]$.

    $$\psi_1 = 1, \qquad \psi_{2^j + k + 1}(t) = [t \in I_{2k}] - [t \in I_{2k+1}], \qquad
    I_m = \left[\tfrac{m}{2^{j+1}}, \tfrac{m+1}{2^{j+1}}\right)$$

    Reference: Haar (1910); Daubechies, *Ten Lectures on Wavelets* (1992), section 1.3.3.
    """

    formula: ClassVar[str] = r"\psi_{j,k}(t) = \psi(2^j t - k),\ \psi = [0, .5) - [.5, 1)"
    reference: ClassVar[str] = "Daubechies, Ten Lectures on Wavelets (1992), 1.3.3"

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The constant and the first G - 1 wavelets."""
        columns = [torch.ones_like(x)[..., None]]
        for level, piece in enumerate(self.pieces(x)):
            left = torch.arange(0, 2 ** (level + 1), 2, device=x.device, dtype=x.dtype)
            columns.append(_is(piece - left) - _is(piece - left - 1))
        return torch.cat(columns, dim=-1)[..., : self.num_basis]

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """Kronecker products of the 2-point transform, looked up."""
        import numpy as np

        rows = np.ones((1, 1))
        for _ in range(self.levels):
            rows = np.vstack([np.kron(rows, [1, 1]), np.kron(np.eye(len(rows)), [1, -1])])
        return rows[: self.num_basis, self.finest(x)].T


def _is(distance: Tensor) -> Tensor:
    """1 where a whole number is 0, else 0; differentiable, with derivative zero behind `floor`."""
    return (1 - distance.abs()).clamp(min=0)
