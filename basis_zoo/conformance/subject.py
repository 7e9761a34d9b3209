"""A family with numbers: what checks run on."""

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from basis_zoo.basis import Basis, LinearBasis, LocationScaleBasis
from basis_zoo.grids import Grid, get_grid
from basis_zoo.nonlinearity import Nonlinearity, spacing_bandwidth
from basis_zoo.phi import Phi, PhiParameters
from basis_zoo.starts import get_start


def resized(basis: Basis, count: int) -> Basis:
    """The family with `count` functions, or as many as it needs at least."""
    return dataclasses.replace(basis, num_basis=max(count, basis.min_basis))


@dataclass(frozen=True)
class Subject:
    """A family on a grid, with reproducible numbers; float64 unless told otherwise."""

    basis: Basis
    grid: Grid = field(default_factory=lambda: get_grid("uniform"))

    @property
    def small(self) -> "Subject":
        """With few functions, for checks whose cost grows with their square."""
        count = min(self.basis.num_basis, max(self.basis.min_basis + 3, 7))
        return Subject(resized(self.basis, count), self.grid)

    @property
    def medium(self) -> "Subject":
        """With at most 32 functions."""
        return Subject(resized(self.basis, min(self.basis.num_basis, 32)), self.grid)

    @property
    def half(self) -> float:
        """Half the length of the interval."""
        low, high = self.basis.interval
        return (high - low) / 2

    @property
    def natural(self) -> PhiParameters:
        """The numbers under which claims are made: uniform grid, bandwidth 1 / spacing."""
        points = get_grid("uniform").place(self.basis.num_points, self.basis.interval)
        return self._numbers(points, spacing_bandwidth(self.basis, points))

    @functools.cached_property
    def numbers(self) -> PhiParameters:
        """The grid's points and bandwidths near 1 / spacing, that float32 holds exactly."""
        generator = torch.Generator().manual_seed(1)
        low, high = self.basis.interval
        samples = (low + high) / 2 + self.half / 2 * torch.randn(
            500, generator=generator, dtype=torch.float32
        )
        points = self.grid.place(self.basis.num_points, self.basis.interval, samples)
        omega = spacing_bandwidth(self.basis, points)
        draw = torch.rand(omega.shape, generator=generator, dtype=torch.float32)
        omega = omega * (0.8 + 0.4 * draw)
        return self._numbers(points.float().double(), omega.float().double())

    def _numbers(self, points: Tensor, omega: Tensor) -> PhiParameters:
        generator = torch.Generator().manual_seed(0)
        count = self.basis.num_amplitudes
        amplitude = torch.randn(count, generator=generator, dtype=torch.float32).double()
        zero = torch.zeros((), dtype=torch.float64)
        return PhiParameters(amplitude, omega, points, zero, zero)

    @property
    def kinks(self) -> Tensor:
        """Breakpoints, sorted, each once."""
        p = self.numbers
        kinks: Tensor = self.basis.breakpoints(p.grid, p.bandwidth).unique()
        return kinks

    def inside(self, count: int, margin: float = 0.0) -> Tensor:
        """Points spread over the interval, wider by `margin` of it on each side, off kinks."""
        low, high = self.basis.interval
        beyond = margin * (high - low)
        x = torch.linspace(low - beyond, high + beyond, count, dtype=torch.float64)
        x = x + 0.0123 * (high - low) / count  # off the places that grids like
        if len(self.kinks):
            distance = (x[:, None] - self.kinks).abs().amin(dim=1)
            x = torch.where(distance < 1e-3 * self.half, x + 3.1e-3 * self.half, x)
        return x

    def phi(self, x: Tensor, p: PhiParameters | None = None) -> Tensor:
        """The family's own phi, without line, anchor or extrapolation."""
        p = self.numbers if p is None else p
        return self.basis.phi(x, p.amplitude, p.grid, p.bandwidth)

    def design(self, x: Tensor, p: PhiParameters | None = None) -> Tensor:
        """The design matrix of a linear family; checks that call it run for no other."""
        p = self.numbers if p is None else p
        return cast(LinearBasis, self.basis).design_matrix(x, p.grid, p.bandwidth)

    def psi(self, z: Tensor) -> Tensor:
        """psi of a location-scale family; checks that call it run for no other."""
        return cast(LocationScaleBasis, self.basis).psi(z)

    def scale(self, x: Tensor, p: PhiParameters | None = None) -> float:
        """What errors are measured against: the largest sum of magnitudes of terms at `x`."""
        p = self.numbers if p is None else p
        terms = getattr(self.basis, "design_matrix", None)
        if terms is None:
            return max(self.phi(x, p).abs().max().item(), 1.0)
        sizes = terms(x, p.grid, p.bandwidth).abs() @ p.amplitude.abs()
        largest: float = sizes.max().item()
        return max(largest, 1e-30)

    def module(self, start: str = "random", **options: Any) -> Nonlinearity:
        """A module with this family, `start` (seeded where it draws) and bandwidth 1 / spacing."""
        seeded = {"seed": 0} if start == "random" else {}
        drawn_start = get_start(start, **seeded)
        return Nonlinearity(
            self.basis, self.grid, drawn_start, **{"bandwidth": "spacing", **options}
        )

    @property
    def rule(self) -> Phi:
        """phi as a value, with the family's own extrapolation."""
        return Phi(self.basis, extrapolation=self.basis.extrapolation)
