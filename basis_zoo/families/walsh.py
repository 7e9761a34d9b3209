"""Walsh functions."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LinearBasis, register_basis


@register_basis("walsh")
@dataclass(frozen=True)
class Walsh(LinearBasis):
    r"""Walsh functions in order of their sign changes on $t \in [0, 1]$.

    $$\psi_{i+1}(t) = \prod_j r_j(t)^{g_j(i)}, \qquad r_j(t) = (-1)^{\lfloor 2^{j+1} t \rfloor}$$

    with $g_j(i)$ the bits of the Gray code $i \oplus \lfloor i/2 \rfloor$ and $r_j$ Rademacher's
    functions. The end of the interval belongs to the last piece, and both end pieces go on
    outside. The derivative is zero: A and B are not trained through phi.

    Reference: Beauchamp, *Applications of Walsh and Related Functions* (1984), chapter 2.
    """

    claims: ClassVar[frozenset[Claim]] = frozenset(
        {Claim.ORTHOGONAL, Claim.BOUNDED, Claim.ZERO_GRADIENT}
    )
    order: ClassVar[float | None] = 1
    smoothness: ClassVar[float] = -1
    formula: ClassVar[str] = r"\psi_{i+1}(t) = \prod_j\,r_j(t)^{g_j(i)},\ r_j = \pm 1"
    reference: ClassVar[str] = "Beauchamp, Applications of Walsh Functions (1984), 2"

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
        """The first G functions as products of Rademacher's."""
        t = (1 + self.unit(x))[..., None] / 2
        i = torch.arange(self.num_basis, device=x.device)
        gray = i ^ (i >> 1)
        walsh = torch.ones_like(t).expand(*x.shape, self.num_basis)
        for level in range(self._levels):
            pieces = 2 ** (level + 1)
            piece = torch.floor(t * pieces).clamp(0, pieces - 1)  # floor: a zero derivative
            rademacher = 1 - 2 * torch.remainder(piece, 2)
            walsh = walsh * torch.where((gray >> level) & 1 == 1, rademacher, 1)
        return walsh

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """`scipy.linalg.hadamard`, its rows sorted by sign changes and looked up."""
        import numpy as np
        from scipy import linalg

        rows = linalg.hadamard(2**self._levels)
        rows = rows[np.argsort((np.diff(rows, axis=1) != 0).sum(axis=1))]
        cell = np.searchsorted(np.linspace(*self.interval, len(rows) + 1)[1:-1], x, side="right")
        design: Array = rows[: self.num_basis, cell].T.astype(float)
        return design
