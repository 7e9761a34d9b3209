"""Plans: which proxy is fitted, what is measured of its error, and which plan comes next.

A plan's `draft` measures a report: the largest radius, then what `after` reads to name the plan
of the next fit. The report is a tensor, so that a fit on a GPU need not wait for it.
"""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from basis_zoo.phi import Phi
from basis_zoo.proxy.chebyshev import (
    HORNER_DEGREE,
    ChebyshevProxy,
    analysis_matrix,
    integral_matrix,
    points,
    rounding_weights,
    synthesis_matrix,
)
from basis_zoo.proxy.constants import constant
from basis_zoo.proxy.exact import ExactProxy, float64_error
from basis_zoo.proxy.table import (
    TableProxy,
    count_breakpoints,
    fit_cubics,
    inner_breakpoints,
    rounding_error,
    table_edges,
)
from basis_zoo.proxy.target import Target, share

Proxy = ChebyshevProxy | TableProxy | ExactProxy
"""What `value`, `slope` and `pullback` can be asked of."""

DEGREES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_LEVELS = (3, 6, 10)
"""Degrees served by one evaluation of phi: the first 3, 6 or 10."""
PIECES = (1, 4, 16, 64, 256, 1024, 4096)
ROOMS = (0, 3, 7, 15, 63, 255, 1023, 4095)
"""Breakpoints that a table has room for."""
_ROUNDING = 2.0**-18
"""What powers may lose in float32 where the tolerance is smaller; past it, Clenshaw's rule."""
_UNSEEN = 3.0
"""Factor from a measured error to a bound: ripples finer than the points look smaller than they
are."""
_NOISY = 16.0
"""Factor on the estimate of float64's noise: smaller errors are noise, not a lack of pieces."""
_FEWER_PIECES = 1024.0
"""A table goes one size down if its error is this much below the tolerance: at 4 times the width
of a piece the error of a cubic is 256 times as large."""


class Fit(NamedTuple):
    """A proxy and what is known of its error."""

    proxy: Proxy
    bound: Tensor
    """(*batch,) largest error on the range, that of float32 included, as a share of max |phi|; not
    what rounding x to float32 does to a steep phi."""


class Draft(NamedTuple):
    """phi evaluated for a plan."""

    report: Tensor
    """A vector whose first entry is the largest radius."""
    own: Callable[[], Fit]
    """The fit of the plan that drafted."""
    fit: Callable[["Plan"], Fit | None]
    """The fit of any plan; None where that plan needs phi at other points."""


@dataclass(frozen=True)
class ChebyshevPlan:
    """A polynomial of one of `DEGREES`."""

    degree: int = 12
    kinked: bool = False
    """Whether phi has breakpoints, so that they must be counted: none may be in the range."""
    by_slope: bool = False
    """Whether the slope of phi is fitted and integrated from 0: exact for an anchored phi on a
    range so small that phi(x) - phi(0) cancels in float64; at three times the cost."""

    @property
    def _degrees(self) -> tuple[int, ...]:
        """The degrees that the evaluation for this one can judge."""
        return _degrees_with(self.degree)

    def draft(self, target: Target) -> Draft:
        """Report: radius, breakpoints in the range; of every degree that the nodes serve, what
        dropping higher ones costs; then what float32 costs."""
        degrees = self._degrees
        count = _nodes_for(degrees[-1])
        device, radius = target.radius.device, target.radius.double()[..., None]
        nodes = radius * points(count, device)
        if self.by_slope:
            samples, matrix = radius * target.slopes(nodes), integral_matrix(count, device)
        else:
            samples, matrix = target.values(nodes), analysis_matrix(count, device)
        coefficients = samples[0] @ matrix.T
        with torch.no_grad():
            both = samples @ matrix.T
            values = both @ synthesis_matrix(count, device).T if self.by_slope else samples
            size = torch.linalg.vector_norm(values, torch.inf, -1, keepdim=True)
            costs = both.abs() @ _cost_matrix(degrees, count, device)
            dropped, rounded = costs.split(len(degrees), dim=-1)
            dropped = dropped if self.by_slope else target.noisy(dropped)
            dropped = (dropped / size.clamp_min(torch.finfo(size.dtype).tiny)).amax(0)
            visible = target.resolves(radius * _spacings(degrees, device))
            dropped = torch.where(visible, dropped, torch.inf)
            rounded = share(rounded[0], size[0])
            inside = torch.zeros((), dtype=torch.float64, device=device)
            if self.kinked:
                inside = _count(inner_breakpoints(target.phi, target.own, target.radius), target)
                dropped = torch.where(inside[..., None] > 0, torch.inf, dropped)
                inside = inside.max()
            worst = torch.cat([dropped, rounded], dim=-1).reshape(-1, 2 * len(degrees)).amax(0)
            report = torch.cat([target.reach()[None], inside[None], worst])
            bounds = torch.add(rounded, dropped, alpha=_UNSEEN)

        def of_degree(degree: int) -> Fit:
            proxy = ChebyshevProxy.of(coefficients[..., : degree + 1], target.radius)
            return Fit(proxy, bounds[..., degrees.index(degree)])

        def fit(plan: "Plan") -> Fit | None:
            if not isinstance(plan, ChebyshevPlan) or plan._degrees != degrees:
                return None
            if plan.by_slope != self.by_slope:
                return None
            return of_degree(plan.degree)

        return Draft(report, lambda: of_degree(self.degree), fit)

    def after(self, report: list[float], tolerance: float, phi: Phi) -> "Plan":
        """The lowest degree within the tolerance; past the highest, or with kinks, a table."""
        radius, inside, *_ = report
        if not math.isfinite(radius):
            return self
        if inside:
            return TablePlan(PIECES[0], _room(inside)) if inside <= ROOMS[-1] else ExactPlan()
        for degree in self._degrees:
            dropped, rounded = self._costs(report, degree)
            powers = degree <= HORNER_DEGREE
            if dropped <= tolerance and not (powers and rounded > max(tolerance, _ROUNDING)):
                return replace(self, degree=degree)
        if self._degrees != DEGREES:
            level = _LEVELS[_LEVELS.index(len(self._degrees)) + 1]
            return replace(self, degree=DEGREES[level - 1])
        if phi.anchored and not self.by_slope:
            return ChebyshevPlan(kinked=self.kinked, by_slope=True)
        return TablePlan(PIECES[3], ROOMS[0])

    def error(self, report: list[float]) -> float:
        """The error of this degree."""
        dropped, rounded = self._costs(report, self.degree)
        return rounded + _UNSEEN * dropped

    def _costs(self, report: list[float], degree: int) -> tuple[float, float]:
        index = 2 + DEGREES.index(degree)
        return report[index], report[index + (len(report) - 2) // 2]


def _degrees_with(degree: int) -> tuple[int, ...]:
    index = DEGREES.index(degree)
    return DEGREES[: next(level for level in _LEVELS if index < level)]


def _nodes_for(degree: int) -> int:
    highest = _degrees_with(degree)[-1]
    return highest + highest // 2 + 1


@constant
def _spacings(degrees: tuple[int, ...], device: torch.device) -> Tensor:
    """The largest distance of the nodes that serve each degree, as a share of R, float64."""
    shares = [math.pi / _nodes_for(degree) for degree in degrees]
    return torch.tensor(shares, dtype=torch.float64, device=device)


@constant
def _cost_matrix(degrees: tuple[int, ...], count: int, device: torch.device) -> Tensor:
    """|coefficients| to what is dropped past each degree, then to what float32 loses up to it."""
    q = torch.arange(count, device=device)
    dropped = [(q > degree).double() for degree in degrees]
    rounded = [rounding_weights(degree, count, device) for degree in degrees]
    return torch.stack(dropped + rounded, dim=-1)


@dataclass(frozen=True)
class TablePlan:
    """A table of cubics with `pieces` equal pieces and room for `room` breakpoints."""

    pieces: int = PIECES[0]
    room: int = ROOMS[1]

    def draft(self, target: Target) -> Draft:
        """Report: radius, breakpoints in the range, error at points of the pieces, that and
        float32's, and how much of it is float64's, which no plan would do without."""
        kinks = inner_breakpoints(target.phi, target.own, target.radius)
        edges = table_edges(kinks, target.radius, self.pieces, self.room)
        cubics = fit_cubics(target.values, edges)
        proxy = TableProxy.of(cubics.powers[0], edges)
        with torch.no_grad():
            size = cubics.size.clamp_min(torch.finfo(cubics.size.dtype).tiny)[..., None]
            visible = target.resolves(2 / self.pieces * target.radius.double()[..., None])
            noise = (target.noisy(torch.zeros_like(size)) / size).amax(0)
            errors = torch.where(visible, (cubics.off[..., None] / size).amax(0) + noise, torch.inf)
            errors, noise = errors[..., 0], torch.where(visible, noise, 0.0).max()
            inside = _count(kinks, target)
            rounding = rounding_error(proxy, cubics.powers[0], edges)
            rounded = share(rounding, cubics.size[0])
            bound = torch.add(rounded, errors, alpha=_UNSEEN)
            bound = torch.where(inside <= self.room, bound, torch.inf)
            report = torch.stack([target.reach(), inside.max(), errors.max(), bound.max(), noise])
        fit = Fit(proxy, bound)
        return Draft(report, lambda: fit, lambda plan: fit if plan == self else None)

    def after(self, report: list[float], tolerance: float, phi: Phi) -> "Plan":
        """More or fewer pieces by the error, room by the count; past the largest, exact."""
        radius, inside, error, _, noise = report
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
        if error <= max(tolerance, _NOISY * noise):
            spare = level and error * _FEWER_PIECES <= tolerance
            return TablePlan(PIECES[level - 1] if spare else self.pieces, room)
        if level + 1 == len(PIECES):
            return ExactPlan()
        return TablePlan(PIECES[level + 1], room)

    def error(self, report: list[float]) -> float:
        """Infinite where breakpoints had no room."""
        return report[3]


def _count(kinks: Tensor, target: Target) -> Tensor:
    return count_breakpoints(kinks, target.phi, target.own, target.radius)


def _room(inside: float) -> int:
    return ROOMS[bisect.bisect_left(ROOMS, inside)]


@dataclass(frozen=True)
class ExactPlan:
    """phi itself, in float64."""

    def draft(self, target: Target) -> Draft:
        """Report: radius, error."""
        with torch.no_grad():
            bound = share(*float64_error(target.phi, target.own, target.radius))
            report = torch.stack([target.reach(), bound.max()])
        fit = Fit(ExactProxy.of(target.phi, target.own), bound)
        return Draft(report, lambda: fit, lambda plan: fit if plan == self else None)

    def after(self, report: list[float], tolerance: float, phi: Phi) -> "Plan":
        """Itself: whoever keeps plans over many steps tries a cheaper one now and then."""
        return self

    def error(self, report: list[float]) -> float:
        """What float64 loses."""
        return report[1]


Plan = ChebyshevPlan | TablePlan | ExactPlan
"""One way to make a proxy."""


def first_plan(phi: Phi, radius: float) -> Plan:
    """Where to begin for phi on [-radius, radius]."""
    return ChebyshevPlan(kinked=not phi.smooth_within(radius))
