"""What a loop that replays captured steps is told: of proxies that no longer do, of what is old."""

import math
from typing import Any

import pytest
import torch

import adapters
from adapters.basis.fitting.model_state import AdapterState
from adapters.basis.fitting.tensor_versions import optimizer_steps
from adapters.training import capture
from adapters.training.capture import CapturedProxies
from basis_zoo import Nonlinearity, get_basis, get_grid, get_start
from basis_zoo.proxy import CapturedFit, ProxyFitter
from basis_zoo.proxy.plans import DEGREES, ChebyshevPlan, ExactPlan, TablePlan
from basis_zoo.proxy.target import Target

TOLERANCE = 1e-6


def made(family: str) -> Nonlinearity:
    torch.manual_seed(0)
    basis = get_basis(family, num_basis=8)
    phi = Nonlinearity(basis, get_grid("uniform"), get_start("anchored"), bandwidth="spacing")
    torch.nn.init.normal_(phi.amplitude)
    return phi


def report(plan: Any, phi: Nonlinearity, radius: float) -> torch.Tensor:
    """What a fit by `plan` reports on [-radius, radius]."""
    target = Target.of(phi.phi, phi.parameters_in_force(), torch.tensor(radius))
    return plan.draft(target).report


def test_a_range_that_grows_asks_for_a_higher_degree_and_one_that_shrinks_for_nothing() -> None:
    phi, plan = made("sinc"), ChebyshevPlan(4)
    small, large = (report(plan, phi, radius) for radius in (0.01, 3.0))
    fitter = ProxyFitter(TOLERANCE, waits=False)
    captured = CapturedFit(phi.phi, plan, small)
    proxies = CapturedProxies(((fitter, captured),))
    assert proxies.judge(small.tolist()) == "good" and fitter.plan == plan
    assert proxies.judge(large.tolist()) == "past"
    assert isinstance(fitter.plan, ChebyshevPlan) and fitter.plan.degree > plan.degree
    assert fitter.bound > TOLERANCE


def test_an_error_near_the_tolerance_is_told_before_it_is_past() -> None:
    phi, plan = made("sinc"), ChebyshevPlan(4)
    told = [0.0] * len(report(plan, phi, 1.0))
    fitter = ProxyFitter(TOLERANCE, waits=False)
    fitter.aim = capture.AIM
    proxies = CapturedProxies(((fitter, CapturedFit(phi.phi, plan, torch.tensor(told))),))
    for share, verdict in ((0.9, "good"), (1.1, "near"), (1.01 / capture.RENEW_AT, "past")):
        fitter.plan = None
        told[0], told[2] = 1.0, share * capture.RENEW_AT * TOLERANCE  # radius, what 4 drops
        assert proxies.judge(told) == verdict
        assert fitter.plan == ChebyshevPlan(DEGREES[1])  # better than it must be yet


def test_each_fit_is_judged_by_its_own_part_of_the_report() -> None:
    phi, plan = made("sinc"), ChebyshevPlan(4)
    small, large = (report(plan, phi, radius) for radius in (0.01, 3.0))
    fitters = [ProxyFitter(TOLERANCE, waits=False) for _ in range(2)]
    proxies = CapturedProxies(
        tuple((fitter, CapturedFit(phi.phi, plan, small)) for fitter in fitters)
    )
    assert torch.cat(proxies.report()).tolist() == [*small.tolist(), *small.tolist()]
    assert proxies.judge([*small.tolist(), *large.tolist()]) == "past"
    assert [fitter.plan == plan for fitter in fitters] == [True, False]


def test_breakpoints_without_room_fall_short_and_a_cheaper_plan_does_not() -> None:
    hat = made("hat")
    tight, roomy = TablePlan(64, 0), TablePlan(64, 63)
    for plan, short in ((tight, True), (roomy, False), (ExactPlan(), False)):
        told = report(plan, hat, 3.0)
        assert CapturedFit(hat.phi, plan, told).falls_short(told.tolist(), 1e-2) is short
    told = report(roomy, hat, 3.0)
    told[0] = math.inf  # no number: the loss will say so
    assert not CapturedFit(hat.phi, roomy, told).falls_short(told.tolist(), 1e-2)


def build(family: Any, **options: Any) -> torch.nn.Module:
    model = family("llama").model()
    config = options or {"method": "basis", "basis": "sinc", "num_basis": 8}
    return adapters.attach(model, {"target_modules": ["q_proj"], "r": 4, **config}).train()


def test_a_replay_makes_what_was_fitted_before_out_of_date(family: Any) -> None:
    model = build(family)
    batch = next(iter(AdapterState.of(model.get_base_model()).batches.values()))
    inputs = family("llama").batch()
    model(**inputs)
    model(**inputs)
    assert batch.fits == 1
    steps = optimizer_steps()
    CapturedProxies(()).replayed()
    assert optimizer_steps() == steps + 1
    model(**inputs)
    assert batch.fits == 2


def test_only_fits_inside_a_capture_are_reported(family: Any) -> None:
    model = build(family)
    model(**family("llama").batch())
    assert CapturedProxies.of(model).fits == () and CapturedProxies.of(model).report() == []
    assert CapturedProxies.of(model).judge([]) == "good"


def test_what_stands_against_replaying_is_told(family: Any, request: pytest.FixtureRequest) -> None:
    model = build(family)
    assert capture.obstacle(model) is None
    request.addfinalizer(lambda: torch.use_deterministic_algorithms(False))
    torch.use_deterministic_algorithms(True)
    assert "chosen anew at every step" in str(capture.obstacle(model))
    assert capture.obstacle(build(family, method="lora")) is None


def test_proxies_are_chosen_with_room_to_last(family: Any) -> None:
    model = build(family)
    batch = next(iter(AdapterState.of(model.get_base_model()).batches.values()))
    batch.lagging = ("cpu",)
    model(**family("llama").batch())
    [fitter] = batch._fitters.values()
    aim = fitter.aim
    capture.leave_room(model)
    assert fitter.aim < aim
    phi, plan = made("sinc"), ChebyshevPlan(12)
    told = report(plan, phi, 0.3)
    plans = []
    for fitter.aim in (aim, capture.AIM):
        fitter.learn(CapturedFit(phi.phi, plan, told), told.tolist())
        plans.append(fitter.plan.degree)
    assert plans[0] < plans[1]
    fitter._pending = ("of an earlier step",)
    CapturedProxies(((fitter, CapturedFit(phi.phi, plan, told)),)).replayed()
    assert fitter._pending is None
