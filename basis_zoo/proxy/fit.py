"""Choose and fit a proxy of phi that meets a tolerance."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from basis_zoo.cuda_graphs import is_captured
from basis_zoo.phi import Phi, PhiParameters
from basis_zoo.proxy.chebyshev import ChebyshevProxy
from basis_zoo.proxy.exact import ExactProxy
from basis_zoo.proxy.plans import ChebyshevPlan, Fit, Plan, Proxy, TablePlan, first_plan
from basis_zoo.proxy.target import Target

SMALLEST_RADIUS = 1e-4
_LAGGED_AIM = 0.5
"""`ProxyFitter.aim` of fits that follow each other."""
_RETRY_EVERY = 64
"""Fits after which a cheaper kind of proxy is tried again."""
_HIGHEST = ChebyshevPlan(128)


@torch.no_grad()
def range_radius(b: Tensor, a: Tensor) -> Tensor:
    """A radius that no entry of `b @ a` exceeds (Cauchy-Schwarz), without forming the product.

    Of b (*batch, out, r) and a (*batch, r, in) it is (*batch,), at least `SMALLEST_RADIUS`; not
    finite where a factor is not.
    """
    radius: Tensor = b.norm(dim=-1).amax(-1) * a.norm(dim=-2).amax(-1)
    return (radius * (1 + 1e-5)).clamp_min(SMALLEST_RADIUS)


def fit_proxy(phi: Phi, parameters: PhiParameters, radius: Tensor, tolerance: float = 1e-6) -> Fit:
    """The cheapest proxy of phi on [-radius, radius] within `tolerance` of max |phi|.

    Rounding to float32 adds some 1e-6, which `Fit.bound` includes.

    This waits for the device; `ProxyFitter` is for training loops.

    Args:
        phi: What is evaluated.
        parameters: Its numbers, stacked along the batch of `radius`.
        radius: (*batch,), positive.
        tolerance: Largest error as a share of max |phi| (and of a probe's, see `Target`).
    """
    return ProxyFitter(tolerance, waits=True).fit(phi, parameters, radius)


class CapturedFit(NamedTuple):
    """A fit inside a CUDA graph: each replay makes it anew, by the same plan."""

    phi: Phi
    plan: Plan
    report: Tensor
    """What `plan` reports; each replay writes it anew."""

    def falls_short(self, report: list[float], tolerance: float) -> bool:
        """Whether a replay that has left `report` would have needed a costlier plan."""
        return _price(self.plan.after(report, tolerance, self.phi)) > _price(self.plan)


class ProxyFitter:
    """Fits one proxy after the other while phi and the range change slowly.

    Where it waits, every fit meets the tolerance or falls back to phi itself. Else no fit but the
    first waits for the device: the error of a fit is copied to the host in the background and
    decides a later one. `bound` and `plan` follow the last measurement.

    Args:
        tolerance: Largest error as a share of max |phi|, beside that of float32.
        waits: Whether to wait for the device at every fit; by default on a CPU only.
    """

    def __init__(self, tolerance: float = 1e-6, *, waits: bool | None = None) -> None:
        self.tolerance = tolerance
        self.waits = waits
        self.bound = 0.0
        """Largest error of the last measured fit, as a share of max |phi|."""
        self.plan: Plan | None = None
        """What the next fit makes."""
        self.aim = _LAGGED_AIM
        """Share of the tolerance aimed at where the measurement is of an earlier fit: the less, the
        longer a plan does while the range grows."""
        self.captured: CapturedFit | None = None
        """The last fit that was made inside a CUDA graph."""
        self._fits = 0
        self._last_plan: Plan | None = None
        self._pending: tuple[Phi, Plan, Tensor, torch.cuda.Event | None] | None = None

    def __getstate__(self) -> dict[str, object]:
        """Copies and files carry no measurement that is under way."""
        return {**self.__dict__, "_pending": None, "captured": None}

    def fit(self, phi: Phi, parameters: PhiParameters, radius: Tensor) -> Fit:
        """A proxy of phi on [-radius, radius]; the arguments are those of `fit_proxy`."""
        target = Target.of(phi, parameters, radius)
        self._fits += 1
        if not radius.is_cuda if self.waits is None else self.waits:
            return self._fit_waiting(target)
        if is_captured(radius):
            # a plan that was made before: what it needs once cannot be made within a capture
            plan = self._last_plan or self.plan or first_plan(phi, math.inf)
            draft = plan.draft(target)
            self.captured = CapturedFit(phi, plan, draft.report)
            return draft.own()
        if self.plan is None:
            return self._fit_waiting(target)
        self._receive()
        draft, self._last_plan = self.plan.draft(target), self.plan
        if self._pending is None:
            if self._fits % _RETRY_EVERY == 0 and self._could_be_polynomial(target.phi):
                with torch.no_grad():
                    self._send(phi, _HIGHEST, _HIGHEST.draft(target).report)
            else:
                self._send(phi, self.plan, draft.report)
        return draft.own()

    def forget(self) -> None:
        """A measurement that is under way is out of date: steps were replayed since."""
        self._pending = None

    def learn(self, captured: CapturedFit, report: list[float]) -> None:
        """Choose the plan of the next fit by `report`, which a replay has left."""
        self.bound = captured.plan.error(report)
        self.plan = captured.plan.after(report, self.tolerance * self.aim, captured.phi)

    def _fit_waiting(self, target: Target) -> Fit:
        if self.plan is None or self._fits % _RETRY_EVERY == 0:
            self.plan = first_plan(target.phi, float(target.radius.max()))
        plans: set[Plan] = set()
        best: tuple[float, Plan, Fit] | None = None
        while True:
            plans.add(self.plan)
            draft = self.plan.draft(target)
            report = draft.report.tolist()
            self.bound = self.plan.error(report)
            following = self.plan.after(report, self.tolerance, target.phi)
            better = draft.fit(following)
            if better is not None:
                self.plan, self.bound = following, following.error(report)
                return better
            fit = draft.own()
            if best is None or self.bound <= max(self.tolerance, best[0]):
                best = (self.bound, self.plan, fit)
            if following in plans:
                self.bound, self.plan, fit = best
                return fit
            self.plan = following  # cheaper if this fit is good enough, else better
            if self.bound <= self.tolerance and self._fits > 1:
                return fit

    def _could_be_polynomial(self, phi: Phi) -> bool:
        return not _is_plain(self.plan) and phi.smooth_within(0.0)

    def _send(self, phi: Phi, plan: Plan, report: Tensor) -> None:
        host = torch.empty(report.shape, dtype=report.dtype, pin_memory=report.is_cuda)
        host.copy_(report, non_blocking=True)
        event = None
        if report.is_cuda:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(report.device))
        self._pending = (phi, plan, host, event)

    def _receive(self) -> None:
        if self._pending is None:
            return
        phi, plan, host, event = self._pending
        if event is not None and not event.query():
            return
        self._pending = None
        report = host.tolist()
        following = plan.after(report, self.tolerance * self.aim, phi)
        if plan == self.plan:
            self.bound = plan.error(report)
            self.plan = following
        elif _is_plain(following):
            self.plan = following


def _price(plan: Plan) -> tuple[int, ...]:
    """Orders plans by what they cost, and by what they can fit."""
    if isinstance(plan, ChebyshevPlan):
        return 0, plan.by_slope, plan.degree
    return (1, plan.pieces, plan.room) if isinstance(plan, TablePlan) else (2,)


def _is_plain(plan: Plan | None) -> bool:
    """Whether `plan` is the cheapest of its kind."""
    return isinstance(plan, ChebyshevPlan) and not plan.by_slope


def proxy_size(proxy: Proxy) -> int:
    """Degree of a polynomial, pieces of a table, 0 for phi itself."""
    if isinstance(proxy, ChebyshevProxy):
        return proxy.degree
    return 0 if isinstance(proxy, ExactProxy) else proxy.pieces
