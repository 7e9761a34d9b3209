"""Walsh functions."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, register_basis
from basis_zoo.dyadic import Dyadic


@register_basis("walsh")
@dataclass(frozen=True)
class Walsh(Dyadic):
    r"""Walsh functions in order of their sign changes on $t \in [0, 1]$.

    $$\psi_{i+1}(t) = \prod_j r_j(t)^{g_j(i)}, \qquad r_j(t) = (-1)^{\lfloor 2^{j+1} t \rfloor}$$

    with $g_j(i)$ the bits of the Gray code $i \oplus \lfloor i/2 \rfloor$ and $r_j$ Rademacher's
    functions.

    Reference: Beauchamp, *Applications of Walsh and Related Functions* (1984), chapter 2.
    """

    formula: ClassVar[str] = r"\psi_{i+1}(t) = \prod_j\,r_j(t)^{g_j(i)},\ r_j = \pm 1"
    reference: ClassVar[str] = "Beauchamp, Applications of Walsh Functions (1984), 2"

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The first G functions as products of Rademacher's."""
        i = torch.arange(self.num_basis, device=x.device)
        gray = i ^ (i >> 1)
        walsh = torch.ones_like(x)[..., None].expand(*x.shape, self.num_basis)
        for level, piece in enumerate(self.pieces(x)):
            rademacher = 1 - 2 * torch.remainder(piece, 2)
            walsh = walsh * torch.where((gray >> level) & 1 == 1, rademacher, 1)
        return walsh

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """`scipy.linalg.hadamard`, its rows sorted by sign changes and looked up."""
        import numpy as np
        from scipy import linalg

        rows = linalg.hadamard(2**self.levels)
        rows = rows[np.argsort((np.diff(rows, axis=1) != 0).sum(axis=1))]
        design: Array = rows[: self.num_basis, self.finest(x)].T.astype(float)
        return design
