"""Several families as one: the functions of all of them side by side."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Basis, LinearBasis

if TYPE_CHECKING:
    from basis_zoo.grids import Grid


@dataclass(frozen=True)
class SumBasis(LinearBasis):
    r"""$\sum_j \phi_j$ of families on one interval, each with its own amplitudes. Made by `of`.

    Grid points and bandwidths stand one family after the other, in the order of `parts`.
    """

    parts: tuple[Basis, ...] = ()

    name: ClassVar[str] = "sum"

    @classmethod
    def of(cls, *parts: Basis) -> "SumBasis":
        """The sum of `parts`.

        Raises:
            ValueError: A family's phi is not linear in its amplitudes, or intervals differ.
        """
        for part in parts:
            if not isinstance(part, LinearBasis) or type(part).phi is not LinearBasis.phi:
                raise ValueError(
                    f"family {part.name!r} cannot be part of a sum: its phi is not linear in its "
                    "amplitudes; take a family of fixed functions, as `fourier` or `sinc` is"
                )
            if part.interval != parts[0].interval:
                raise ValueError(
                    f"families of a sum share one interval, got {parts[0].interval} and "
                    f"{part.interval}: give both the same"
                )
        return cls(sum(part.num_basis for part in parts), parts[0].interval, parts)

    @property
    def extrapolation(self) -> str:  # type: ignore[override]  # a family's own is a constant
        """The rule that all parts have; `clamp` where they differ."""
        rules = {part.extrapolation for part in self.parts}
        return rules.pop() if len(rules) == 1 else "clamp"

    @property
    def num_points(self) -> int:
        """Those of all parts."""
        return sum(part.num_points for part in self.parts)

    @property
    def num_bandwidths(self) -> int:
        """Those of all parts."""
        return sum(part.num_bandwidths for part in self.parts)

    @property
    def smoothness(self) -> float:
        """That of the least smooth part."""
        return min((part.smoothness for part in self.parts), default=math.inf)

    def split(self, grid: Tensor, bandwidth: Tensor) -> list[tuple[Basis, Tensor, Tensor]]:
        """Every part with its grid points and its bandwidths."""
        grids = grid.split([part.num_points for part in self.parts], dim=-1)
        bandwidths = bandwidth.split([part.num_bandwidths for part in self.parts], dim=-1)
        return list(zip(self.parts, grids, bandwidths, strict=True))

    def breakpoints(self, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The breakpoints of all parts."""
        parts = self.split(grid, bandwidth)
        return torch.cat([part.breakpoints(g, w) for part, g, w in parts], dim=-1)

    def place(self, grid: "Grid", samples: Tensor | None = None) -> Tensor:
        """The points of each part, placed by itself.

        Raises:
            ValueError: The grid is learned, and several parts have points: these would have to
                keep one order.
        """
        if grid.learned and sum(part.num_points > 0 for part in self.parts) > 1:
            raise ValueError(
                f"grid {grid.name!r} is learned, and a sum of several families with grid points "
                "has none of one order: take a fixed grid, as `uniform`"
            )
        return torch.cat([part.place(grid, samples) for part in self.parts])

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """Every function at every point, those of the first part first."""
        designs = []
        for part, points, omega in self.split(grid, bandwidth):
            assert isinstance(part, LinearBasis), "checked by `of`"
            designs.append(part.design_matrix(x, points, omega))
        batch = torch.broadcast_shapes(*(design.shape[:-1] for design in designs))
        return torch.cat([design.expand(*batch, -1) for design in designs], dim=-1)

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """The oracles of the parts side by side."""
        import numpy as np

        columns = []
        for part in self.parts:
            assert isinstance(part, LinearBasis), "checked by `of`"
            columns.append(
                part.oracle(x, grid[: part.num_points], bandwidth[: part.num_bandwidths])
            )
            grid, bandwidth = grid[part.num_points :], bandwidth[part.num_bandwidths :]
        return np.concatenate(columns, axis=-1)
