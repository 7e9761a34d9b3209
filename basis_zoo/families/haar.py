"""Haar wavelets."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LinearBasis, register_basis


@register_basis("haar")
@dataclass(frozen=True)
class Haar(LinearBasis):
    r"""The constant and Haar wavelets, from coarse to fine, on $t \in [0, 1]$.

    $$\psi_1 = 1, \qquad \psi_{2^j + k + 1}(t) = [t \in I_{2k}] - [t \in I_{2k+1}], \qquad
    I_m = \left[\tfrac{m}{2^{j+1}}, \tfrac{m+1}{2^{j+1}}\right)$$

    The end of the interval belongs to the last piece, and both end pieces go on outside. The
    derivative is zero: A and B are not trained through phi, only the amplitudes are.

    Reference: Haar (1910); Daubechies, *Ten Lectures on Wavelets* (1992), section 1.3.3.
    """

    claims: ClassVar[frozenset[Claim]] = frozenset(
        {Claim.ORTHOGONAL, Claim.BOUNDED, Claim.ZERO_GRADIENT}
    )
    order: ClassVar[float | None] = 1
    smoothness: ClassVar[float] = -1
    formula: ClassVar[str] = r"\psi_{j,k}(t) = \psi(2^j t - k),\ \psi = [0, .5) - [.5, 1)"
    reference: ClassVar[str] = "Daubechies, Ten Lectures on Wavelets (1992), 1.3.3"

    @property
    def _levels(self) -> int:
        return (self.num_basis - 1).bit_length()

    def breakpoints(self, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The inner dyadic points of the finest level."""
        low, high = self.interval
        count: int = 2**self._levels + 1
        points = torch.linspace(low, high, count, dtype=grid.dtype, device=grid.device)
        return points[1:-1].expand(*grid.shape[:-1], -1)

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The constant and the first G - 1 wavelets."""
        t = (1 + self.unit(x))[..., None] / 2
        columns = [torch.ones_like(t)]
        for level in range(self._levels):
            pieces = 2 ** (level + 1)
            piece = torch.floor(t * pieces).clamp(0, pieces - 1)  # floor: a zero derivative
            left = torch.arange(0, pieces, 2, device=x.device, dtype=x.dtype)
            columns.append(_is(piece - left) - _is(piece - left - 1))
        return torch.cat(columns, dim=-1)[..., : self.num_basis]

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """Kronecker products of the 2-point transform, looked up."""
        import numpy as np

        rows = np.ones((1, 1))
        for _ in range(self._levels):
            rows = np.vstack([np.kron(rows, [1, 1]), np.kron(np.eye(len(rows)), [1, -1])])
        cell = np.searchsorted(np.linspace(*self.interval, len(rows) + 1)[1:-1], x, side="right")
        return rows[: self.num_basis, cell].T


def _is(distance: Tensor) -> Tensor:
    """1 where a whole number is 0, else 0; differentiable, with derivative zero behind `floor`."""
    return (1 - distance.abs()).clamp(min=0)
