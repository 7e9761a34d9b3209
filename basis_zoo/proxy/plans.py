"""Plans: which proxy is fitted, what is measured of its error, and which plan comes next.

A plan's `draft` measures a report: the largest radius, then what `after` reads to name the plan
of the next fit. The report is a tensor, so that a fit on a GPU need not wait for it.
"""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from basis_zoo.basis import Basis, LinearBasis, LocationScaleBasis
from basis_zoo.phi import Phi, PhiParameters
from basis_zoo.proxy.chebyshev import ChebyshevProxy, analysis_matrix, points
from basis_zoo.proxy.constants import constant
from basis_zoo.proxy.exact import ExactProxy
from basis_zoo.proxy.table import (
    TableProxy,
    count_breakpoints,
    fit_cubics,
    inner_breakpoints,
    table_edges,
)

Proxy = ChebyshevProxy | TableProxy | ExactProxy
"""What `value`, `slope` and `pullback` can be asked of."""

DEGREES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_LEVELS = (3, 6, 10)
"""Degrees served by one evaluation of phi: the first 3, 6 or 10."""
PIECES = (1, 4, 16, 64, 256, 1024, 4096)
ROOMS = (0, 3, 7, 15, 63, 255, 1023, 4095)
"""Breakpoints that a table has room for."""
_SEEN = 2.0
"""Points this many widths of a function apart see it: one of them lies within its width."""
_FEWER_PIECES = 1024.0
"""A table goes one size down if its error is this much below the tolerance: at 4 times the width
of a piece the error of a cubic is 256 times as large."""


class Fit(NamedTuple):
    """A proxy and what is known of its error."""

    proxy: Proxy
    bound: Tensor
    """(*batch,) estimated largest error of phi on the range, as a share of max |phi|."""


class Target(NamedTuple):
    """What is fitted: phi with its numbers in float64, a probe, and the range.

    The proxy must also serve the gradient with respect to the amplitudes: at the start, where
    these are zero, phi itself says nothing, so a probe with fixed random amplitudes is resolved
    too.
    """

    phi: Phi
    own: PhiParameters
    """(*batch, ...), differentiable."""
    both: PhiParameters
    """`own` and the probe: amplitudes and slopes are (2, *batch, ...)."""
    radius: Tensor
    """(*batch,)"""

    @classmethod
    def of(cls, phi: Phi, parameters: PhiParameters, radius: Tensor) -> "Target":
        """The target for phi's numbers in any dtype."""
        own = parameters.double()
        probe = _probe(own.amplitude.shape[-1], own.amplitude.device)
        amplitude = torch.stack([own.amplitude, probe.expand_as(own.amplitude)])
        slope = torch.stack([own.slope, torch.zeros_like(own.slope)])
        both = own._replace(amplitude=amplitude, slope=slope)
        if not _shares_functions(phi.basis):
            both = PhiParameters(*(p if p is amplitude else p.expand(2, *p.shape) for p in both))
            both = both._replace(slope=slope)
        return cls(phi, own, both, radius)

    def values(self, x: Tensor) -> Tensor:
        """phi and the probe at the points `x` (*batch, n), in one evaluation: (2, *batch, n)."""
        if not _shares_functions(self.phi.basis):
            x = x.expand(2, *x.shape)
        return self.phi(x, self.both)

    def unless_blind(self, errors: Tensor, spacing: Tensor) -> Tensor:
        """`errors`, infinite where points at this distance could miss all that phi does.

        Args:
            errors: (*batch,) or (*batch, n).
            spacing: (*batch,).
        """
        low, high = self.phi.basis.interval
        seen = (spacing <= (high - low) / 4) & (spacing <= _SEEN * self._narrowest())
        seen = seen if errors.ndim == seen.ndim else seen[..., None]
        return torch.where(seen, errors, torch.inf)

    def _narrowest(self) -> Tensor:
        """The width 1 / omega of the narrowest function in the range, (*batch,); inf for none.

        Functions of bounded support do not count: tables are cut where that ends.
        """
        basis, own = self.phi.basis, self.own
        if not isinstance(basis, LocationScaleBasis) or math.isfinite(basis.support):
            return torch.full_like(self.radius, torch.inf)
        width = 1 / own.bandwidth.detach()
        inside = own.grid.detach().abs() <= self.radius[..., None] + width
        return torch.where(inside, width, torch.inf).amin(-1)

    @torch.no_grad()
    def reach(self) -> Tensor:
        """The largest radius, (); NaN where that or a number of phi is not finite."""
        zero = sum((p * 0).sum() for p in (self.own.amplitude, self.own.bandwidth))
        return self.radius.double().max() + zero


def _shares_functions(basis: Basis) -> bool:
    """Whether the functions are evaluated once for several vectors of amplitudes."""
    return isinstance(basis, LinearBasis) and type(basis).phi is LinearBasis.phi


@constant
def _probe(count: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, generator=generator, dtype=torch.float64) - 0.5).to(device)


@constant
def _first_dropped(degrees: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor([degree + 1 for degree in degrees], device=device)


class Draft(NamedTuple):
    """phi evaluated for a plan."""

    report: Tensor
    """A vector whose first entry is the largest radius."""
    fit: Callable[["Plan"], Fit | None]
    """The fit of a plan; None where that plan needs phi at other points."""


class Plan(Protocol):
    """One way to make a proxy."""

    def draft(self, target: Target) -> Draft:
        """Evaluate phi where this plan needs it."""

    def after(self, report: list[float], tolerance: float) -> "Plan":
        """The plan for the next fit; itself where this one is right."""

    def error(self, report: list[float]) -> float:
        """The largest error that the report tells, as a share of max |phi|."""


@dataclass(frozen=True)
class ChebyshevPlan:
    """A polynomial of one of `DEGREES`."""

    degree: int = 12
    kinked: bool = False
    """Whether phi has breakpoints, so that they must be counted: none may be in the range."""

    @property
    def _served(self) -> tuple[int, ...]:
        """The degrees that the evaluation for this one can judge."""
        index = DEGREES.index(self.degree)
        return DEGREES[: next(level for level in _LEVELS if index < level)]

    def draft(self, target: Target) -> Draft:
        """Report: radius, breakpoints in the range, error at every degree that the nodes serve."""
        served = self._served
        count = served[-1] + served[-1] // 2 + 1
        device = target.radius.device
        nodes = target.radius.double()[..., None] * points(count, device)
        matrix = analysis_matrix(count, device).T
        values = target.values(nodes)
        coefficients = values[0] @ matrix
        with torch.no_grad():
            errors = _tails(values @ matrix, values, served).amax(0)
            errors = target.unless_blind(errors, math.pi / count * target.radius)
            if self.kinked:
                kinks = inner_breakpoints(target.phi, target.own, target.radius)
                inside = count_breakpoints(kinks, target.radius)
                errors = torch.where(inside[..., None] > 0, torch.inf, errors)
                inside = inside.max().double()
            else:
                inside = torch.zeros((), dtype=torch.float64, device=device)
            worst = errors.reshape(-1, len(served)).amax(0)
            report = torch.cat([target.reach()[None], inside[None], worst])

        def fit(plan: Plan) -> Fit | None:
            if not isinstance(plan, ChebyshevPlan) or plan._served != served:
                return None
            proxy = ChebyshevProxy.of(coefficients[..., : plan.degree + 1], target.radius)
            return Fit(proxy, errors[..., served.index(plan.degree)])

        return Draft(report, fit)

    def after(self, report: list[float], tolerance: float) -> Plan:
        """The lowest degree within the tolerance; past the highest, or with kinks, a table."""
        radius, inside, *errors = report
        if not math.isfinite(radius):
            return self
        if inside:
            return TablePlan(PIECES[0], _room(inside)) if inside <= ROOMS[-1] else ExactPlan()
        for degree, error in zip(self._served, errors, strict=True):
            if error <= tolerance:
                return ChebyshevPlan(degree, self.kinked)
        if self._served == DEGREES:
            return TablePlan(PIECES[3], ROOMS[0])
        level = _LEVELS[_LEVELS.index(len(self._served)) + 1]
        return ChebyshevPlan(DEGREES[level - 1], self.kinked)

    def error(self, report: list[float]) -> float:
        """That of this degree."""
        return report[2 + DEGREES.index(self.degree)]


def _tails(coefficients: Tensor, values: Tensor, served: tuple[int, ...]) -> Tensor:
    """For each degree, the sum of |c_q| beyond it over the largest |value|, (*batch, degrees)."""
    sums = coefficients.abs().flip(-1).cumsum(-1).flip(-1)
    cut = sums[..., _first_dropped(served, sums.device)]
    return cut / values.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(sums.dtype).tiny)


@dataclass(frozen=True)
class TablePlan:
    """A table of cubics with `pieces` equal pieces and room for `room` breakpoints."""

    pieces: int = PIECES[0]
    room: int = ROOMS[1]

    def draft(self, target: Target) -> Draft:
        """Report: radius, breakpoints inside the range, error at the middles of the pieces."""
        kinks = inner_breakpoints(target.phi, target.own, target.radius)
        edges = table_edges(kinks, target.radius, self.pieces, self.room)
        cubics, at_middles = fit_cubics(target.values, edges)
        with torch.no_grad():
            errors = _middle_error(cubics, at_middles).amax(0)
            errors = target.unless_blind(errors, 2 * target.radius / self.pieces)
            inside = count_breakpoints(kinks, target.radius)
            bound = torch.where(inside <= self.room, errors, torch.inf)
            report = torch.stack([target.reach(), inside.max().double(), errors.max()])
        fit = Fit(TableProxy.of(cubics[0], edges), bound)
        return Draft(report, lambda plan: fit if plan == self else None)

    def after(self, report: list[float], tolerance: float) -> Plan:
        """More or fewer pieces by the error, room by the count; past the largest, exact."""
        radius, inside, error = report
        if not math.isfinite(radius):
            return self
        if inside > ROOMS[-1]:
            return ExactPlan()
        if inside == 0 and error <= tolerance and self.pieces <= PIECES[1]:
            return ChebyshevPlan(kinked=True)  # few cubics: low degree will do
        room = _room(inside)
        if room > self.room:
            return TablePlan(self.pieces, room)
        level = PIECES.index(self.pieces)
        if error <= tolerance:
            spare = level and error * _FEWER_PIECES <= tolerance
            return TablePlan(PIECES[level - 1] if spare else self.pieces, room)
        if level + 1 == len(PIECES):
            return ExactPlan()
        return TablePlan(PIECES[level + 1], room)

    def error(self, report: list[float]) -> float:
        """Infinite where breakpoints had no room."""
        return report[2] if report[1] <= self.room else math.inf


def _room(inside: float) -> int:
    return ROOMS[bisect.bisect_left(ROOMS, inside)]


def _middle_error(cubics: Tensor, want: Tensor) -> Tensor:
    """Largest error at the middles of the pieces over the largest |value|, (*batch,)."""
    off = (cubics[..., 0] - want).abs().amax(-1)
    even, odd = cubics[..., 0] + cubics[..., 2], cubics[..., 1] + cubics[..., 3]
    size = torch.maximum(want.abs(), even.abs() + odd.abs()).amax(-1)  # the middles and the ends
    return off / size.clamp_min(1e-300)


@dataclass(frozen=True)
class ExactPlan:
    """phi itself."""

    def draft(self, target: Target) -> Draft:
        """Report: radius."""
        own = PhiParameters(*(p.float() for p in target.own))
        bound = torch.zeros_like(target.radius, dtype=torch.float64)
        fit = Fit(ExactProxy.of(target.phi, own), bound)
        return Draft(target.reach()[None], lambda plan: fit if plan == self else None)

    def after(self, report: list[float], tolerance: float) -> Plan:
        """Itself: whoever keeps plans over many steps tries a cheaper one now and then."""
        return self

    def error(self, report: list[float]) -> float:
        """Zero."""
        return 0.0


def first_plan(phi: Phi, radius: float) -> Plan:
    """Where to begin for phi on [-radius, radius]."""
    return ChebyshevPlan(kinked=not phi.smooth_within(radius))
