"""What the families share that are constant on the dyadic pieces of their interval."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LinearBasis


@dataclass(frozen=True)
class Dyadic(LinearBasis):
    """Orthogonal step functions on $2^L$ equal pieces, with $L$ as small as G allows.

    The end of the interval belongs to the last piece, and both end pieces go on outside. The
    derivative is zero: A and B are not trained through phi, only the amplitudes are.
    """

    claims: ClassVar[frozenset[Claim]] = frozenset(
        {Claim.ORTHOGONAL, Claim.BOUNDED, Claim.ZERO_GRADIENT}
    )
    order: ClassVar[float | None] = 1
    smoothness: ClassVar[float] = -1

    @property
    def levels(self) -> int:
        """How often the interval is halved."""
        return (self.num_basis - 1).bit_length()

    def breakpoints(self, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The inner dyadic points of the finest level."""
        low, high = self.interval
        count: int = 2**self.levels + 1
        points = torch.linspace(low, high, count, dtype=grid.dtype, device=grid.device)
        return points[1:-1].expand(*grid.shape[:-1], -1)

    def pieces(self, x: Tensor) -> Iterator[Tensor]:
        """For each level, from coarse to fine, which of its pieces each `x` is in; (..., 1)."""
        t = (1 + self.unit(x))[..., None] / 2
        for level in range(self.levels):
            count = 2 ** (level + 1)
            yield torch.floor(t * count).clamp(0, count - 1)  # floor: a zero derivative

    def finest(self, x: Array) -> Array:
        """The same by `numpy.searchsorted`, for the finest level."""
        import numpy as np

        ends = np.linspace(*self.interval, 2**self.levels + 1)[1:-1]
        cell: Array = np.searchsorted(ends, x, side="right")
        return cell
