r"""The nonlinearity as a value: its definition without its numbers.

$$\phi(x) = \alpha x + \beta + \sum_i a_i \psi_i(x)
\quad [\, - \text{the same at } x = 0 \text{, when anchored} \,]$$

Modules whose `Phi` is equal are evaluated together: their numbers are stacked along a leading
dimension and one call serves them all.

Outside the ends of the family (its interval; for families made of pieces, the grid's own ends) the
sum goes on by one of five rules; the line always goes on as itself:

- `exact`: the functions as they are;
- `clamp`: the value at the nearer end, so that A and B get no gradient through the sum;
- `linear`: a straight line of the slope at the nearer end;
- `zero`: nothing, with a jump;
- `periodic`: the interval repeated.
"""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from basis_zoo.basis import Basis
from basis_zoo.registry import did_you_mean

EXTRAPOLATIONS = ("exact", "clamp", "linear", "zero", "periodic")
PERIODS = 2
"""Periods on each side over which `Phi.breakpoints` repeats those of a periodic phi."""


class PhiParameters(NamedTuple):
    """The numbers of one phi, or of several stacked along `*batch`."""

    amplitude: Tensor
    """(*batch, num_amplitudes)"""
    bandwidth: Tensor
    """(*batch, num_bandwidths), positive"""
    grid: Tensor
    """(*batch, num_points), increasing"""
    slope: Tensor
    """(*batch,), alpha"""
    offset: Tensor
    """(*batch,), beta"""

    def double(self) -> "PhiParameters":
        """The same numbers in float64."""
        return PhiParameters(*(p.double() for p in self))


@dataclass(frozen=True)
class Phi:
    """What phi is made of; callable at `(*batch, n)` points with `PhiParameters`."""

    basis: Basis
    anchored: bool = False
    """Subtract phi(0), so that a zero product BA leaves the weight alone."""
    extrapolation: str = "exact"
    """How the sum goes on outside the interval: one of `EXTRAPOLATIONS`."""

    def __post_init__(self) -> None:
        if self.extrapolation not in EXTRAPOLATIONS:
            raise ValueError(
                f"unknown extrapolation {self.extrapolation!r}."
                f"{did_you_mean(self.extrapolation, EXTRAPOLATIONS)} "
                f"Known: {', '.join(EXTRAPOLATIONS)}"
            )

    def __call__(self, x: Tensor, parameters: PhiParameters) -> Tensor:
        """phi at the points `x`, of the shape of `x`, in the dtype of `x`."""
        line = parameters.slope[..., None] * x
        if not self.anchored or not x.shape[-1]:
            return self._sum(x, parameters) + line + parameters.offset[..., None]
        # the origin is one more point: a second evaluation would double the calls; the line stays
        # out of the difference, which a large one would drown
        y = self._sum(torch.cat([x, torch.zeros_like(x[..., :1])], dim=-1), parameters)
        return y[..., :-1] - y[..., -1:] + line

    def _sum(self, x: Tensor, p: PhiParameters) -> Tensor:
        def inside(points: Tensor) -> Tensor:
            return self.basis.phi(points, p.amplitude, p.grid, p.bandwidth)

        if self.extrapolation == "exact":
            return inside(x)
        ends = self.basis.ends(p.grid)
        low, high = ends[..., :1], ends[..., 1:]
        if self.extrapolation == "periodic":
            return inside(low + torch.remainder(x - low, high - low))
        near = torch.clamp(x, low, high)
        if self.extrapolation == "clamp":
            return inside(near)
        if self.extrapolation == "zero":
            return torch.where(x == near, inside(near), 0)
        if self.basis.smoothness < 1:  # at a kink the slope is the one just inside
            step = 1e-4 * (high - low)
            ends = torch.cat([low + step, high - step], dim=-1)
        slope: Tensor = torch.func.jvp(inside, (ends,), (torch.ones_like(ends),))[1]
        return inside(near) + torch.where(x < low, slope[..., :1], slope[..., 1:]) * (x - near)

    @property
    def smooth(self) -> bool:
        """Whether phi is smooth everywhere, so that a Chebyshev proxy converges fast."""
        return self.smooth_within(math.inf)

    def smooth_within(self, radius: float) -> bool:
        """Whether phi is smooth for |x| up to `radius`."""
        low, high = self.basis.interval
        reaches_end = self.extrapolation != "exact" and radius > min(-low, high)
        return self.basis.smoothness == math.inf and not reaches_end

    def breakpoints(self, parameters: PhiParameters) -> Tensor:
        """Where phi is less than smooth, `(*batch, k)`; two periods a side where it repeats."""
        points = self.basis.breakpoints(parameters.grid, parameters.bandwidth)
        if self.extrapolation == "exact":
            return points
        ends = self.basis.ends(parameters.grid)
        points = torch.cat([points, ends], dim=-1)
        if self.extrapolation == "periodic":
            dtype, device = points.dtype, points.device
            periods = torch.arange(-PERIODS, PERIODS + 1, dtype=dtype, device=device)
            length = ends[..., 1:] - ends[..., :1]
            points = (points[..., None] + length[..., None] * periods).flatten(-2)
        return points

    def __str__(self) -> str:
        """The family with the fields that differ from its defaults, and the rules."""
        basis = self.basis
        changed = [
            f"{f.name}={getattr(basis, f.name)!r}"
            for f in fields(basis)
            if getattr(basis, f.name) != f.default
        ]
        rules = [self.extrapolation] + ["anchored"] * self.anchored
        return f"{basis.name}({', '.join(changed)}), {', '.join(rules)}"


def stack_parameters(parameters: list[PhiParameters]) -> PhiParameters:
    """The numbers of several equal phis along a new leading dimension."""
    return PhiParameters(*(torch.stack(group) for group in zip(*parameters, strict=True)))
