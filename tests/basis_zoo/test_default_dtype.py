"""`torch.set_default_dtype` changes no number: before making a phi, after, and while fitting."""

import contextlib

import pytest
import torch

from basis_zoo import (
    InputScale,
    Nonlinearity,
    get_basis,
    get_grid,
    get_start,
    list_bases,
    list_grids,
    list_starts,
)
from basis_zoo.accuracy import oracle_errors
from basis_zoo.conformance import Subject, format_outcomes, run_checks
from basis_zoo.gallery import measure
from basis_zoo.proxy import ProxyFitter, chebyshev, fit_proxy, plans, target

OTHERS = [torch.bfloat16, torch.float16, torch.float64]


@contextlib.contextmanager
def default(dtype: torch.dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def make(basis: str, grid: str = "uniform", start: str = "constant", **options) -> Nonlinearity:
    seeded = {"seed": 0} if start == "random" else {}
    loose = {"tolerance": 1e9} if start.startswith("identity") else {}
    family = get_basis(basis, num_basis=max(9, get_basis(basis).min_basis))
    started = get_start(start, **seeded, **loose)
    options = {"bandwidth": "spacing", **options}
    return Nonlinearity(family, get_grid(grid), started, **options)


def used(module: Nonlinearity, radius: float = 0.3, tolerance: float = 1e-6) -> list[torch.Tensor]:
    """Everything that a phi is asked for while it trains."""
    x = torch.linspace(-radius, radius, 41, dtype=torch.float32, requires_grad=True)
    y = module(x)
    fit = fit_proxy(
        module.phi,
        module.parameters_in_force(),
        torch.tensor(radius, dtype=torch.float32),
        tolerance,
    )
    moments = fit.proxy.pullback(x.detach(), torch.ones_like(x))
    trained = [p for p in module.parameters() if p.requires_grad]
    pulls = torch.autograd.grad(fit.proxy.coefficients, trained, moments, materialize_grads=True)
    slopes = torch.autograd.grad(y.sum(), [x, *trained], materialize_grads=True)
    told = [fit.bound, fit.proxy.value(x.detach()), fit.proxy.slope(x.detach())]
    return [y.detach(), *module.numbers, *slopes, *pulls, *told, *fit.proxy.tensors]


def same(got: list[torch.Tensor], want: list[torch.Tensor]) -> None:
    for mine, its in zip(got, want, strict=True):
        assert mine.dtype == its.dtype
        assert torch.equal(mine.detach(), its.detach())


def forget_constants() -> None:
    for module in (chebyshev, plans, target):
        for kept in vars(module).values():
            if hasattr(kept, "cache_clear"):
                kept.cache_clear()


@pytest.fixture(params=OTHERS, ids=str)
def other(request):
    """Another default dtype; constants that are kept between calls are made anew under it."""
    forget_constants()
    return request.param


@pytest.mark.parametrize("other", [torch.bfloat16, torch.float64], ids=str, indirect=True)
@pytest.mark.parametrize("name", list_bases())
def test_families_are_made_and_used_alike(name, other):
    made = make(name)
    with default(other):
        got = used(make(name))
        same(used(made), got)
    same(used(made), got)


@pytest.mark.parametrize("radius", [1e-4, 0.01, 2.9, 40.0])
@pytest.mark.parametrize("name", ["sinc", "hat", "walsh", "tanh"])
def test_every_kind_of_proxy_is_alike(name, radius, other):
    module = make(name, start="anchored", bandwidth=1e-3 if name == "tanh" else "spacing")
    torch.nn.init.normal_(module.amplitude, generator=torch.Generator().manual_seed(0))
    want = used(module, radius)
    forget_constants()
    with default(other):
        same(used(module, radius), want)


def test_a_lagging_fitter_is_alike(other):
    module = make("sinc")
    fits = []
    for dtype in (torch.float32, other):
        with default(dtype):
            fitter = ProxyFitter(1e-6, waits=False)
            for radius in (0.01, 0.3, 0.3, 0.3, 1.0, 1.0, 1.0):
                at = torch.tensor(radius, dtype=torch.float32)
                fit = fitter.fit(module.phi, module.parameters_in_force(), at)
            fits.append([fit.bound, *fit.proxy.tensors])
    same(*fits)


@pytest.mark.parametrize("grid", list_grids())
def test_grids_are_alike(grid, other):
    def numbers() -> list[torch.Tensor]:
        module = make("gaussian_rbf", grid, "random", linear=True)
        told = used(module)
        module.refit_grid(torch.linspace(-1, 2, 50, dtype=torch.float32), bandwidth="spacing")
        return [*told, *module.numbers]

    with default(other):
        got = numbers()
    same(got, numbers())


@pytest.mark.parametrize("start", list_starts())
@pytest.mark.parametrize("linear", [False, True])
def test_starts_are_alike(start, linear, other):
    with default(other):
        got = make("gaussian_rbf", start=start, linear=linear).numbers
    same(got, make("gaussian_rbf", start=start, linear=linear).numbers)


@pytest.mark.parametrize("rule", ["exact", "clamp", "linear", "zero", "periodic"])
def test_extrapolation_is_alike(rule, other):
    with default(other):
        got = used(make("bspline", extrapolation=rule), 5.0)
    same(got, used(make("bspline", extrapolation=rule), 5.0))


@pytest.mark.parametrize("rule", ["fixed", "learned", "rms", "range"])
def test_input_scales_are_alike(rule, other):
    def factor() -> torch.Tensor:
        scale = InputScale(rule, 1.7)
        measured = torch.tensor(0.123, dtype=torch.float32)
        scale.observe(mean_square=measured, peak=measured)
        told = scale()
        return told if isinstance(told, torch.Tensor) else torch.tensor(told, dtype=torch.float64)

    with default(other):
        got = factor()
    same([got], [factor()])


@pytest.mark.parametrize("other", [torch.bfloat16], ids=str, indirect=True)
def test_checks_accuracy_and_gallery_are_alike(other):
    def told() -> list[object]:
        basis = get_basis("gaussian_rbf", num_basis=9)
        checks = format_outcomes(run_checks(basis, slow=False))
        x = torch.linspace(-3, 3, 50, dtype=torch.float64)
        points = measure.place(basis, "quantile")
        drawn = measure.functions(basis, x, points).tolist()
        return [checks, oracle_errors(Subject(basis)), points.tolist(), drawn]

    with default(other):
        got = told()
    assert got == told()
