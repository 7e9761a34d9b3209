"""The error that a fit tells is never smaller than the one it has: checked on random extremes."""

import random

import pytest
import torch

from basis_zoo import Nonlinearity, get_basis, get_grid, get_start, list_bases, list_grids
from basis_zoo.basis import LinearBasis, get_basis_class
from basis_zoo.phi import EXTRAPOLATIONS
from basis_zoo.proxy import ChebyshevProxy, ExactProxy, ProxyFitter, TableProxy, fit_proxy

STARTS = ("anchored", "small", "random", "constant", "identity", "identity_anchored")
DRAWS = 3


def drawn(name: str, rng: random.Random) -> tuple[Nonlinearity, float, float]:
    """A phi that the package accepts, a radius and a tolerance, all over many decades."""
    while True:
        half = 10 ** rng.uniform(-9, 7) if rng.random() < 0.6 else 3.0
        middle = 0.0 if rng.random() < 0.7 else half * rng.choice([-0.9, 0.5, 2])
        options = dict(rng.choice(get_basis_class(name).variants))
        if rng.random() < 0.7:
            options["num_basis"] = rng.choice([1, 2, 5, 10, 24])
        bandwidth = rng.choice(["spacing", 10 ** rng.uniform(-5, 5) / half])
        start = rng.choice(STARTS)
        loose = {"tolerance": 1e9} if start.startswith("identity") else {}
        try:
            module = Nonlinearity(
                get_basis(name, **{**options, "interval": (middle - half, middle + half)}),
                get_grid(rng.choice(list_grids())),
                get_start(start, **loose),
                bandwidth=bandwidth,
                linear=rng.random() < 0.2,
                extrapolation=rng.choice([None, None, None, *EXTRAPOLATIONS]),
            )
        except ValueError:  # refused: another draw
            continue
        radius = 10 ** rng.uniform(-5, 2) * rng.choice([1.0, half])
        return moved(module, rng), radius, rng.choice([1e-6, 1e-6, 1e-3, 1e-7, 0.05])


@torch.no_grad()
def moved(module: Nonlinearity, rng: random.Random) -> Nonlinearity:
    """`module` with numbers as training may leave them."""
    g = torch.Generator().manual_seed(rng.randrange(2**31))
    kind = rng.randrange(5)
    if kind:
        module.amplitude.copy_(torch.randn(module.amplitude.shape, generator=g))
    if kind == 2:
        module.amplitude.mul_(10 ** (4 * torch.rand(module.amplitude.shape, generator=g)))
    if kind == 3:
        module.raw_bandwidth.add_(torch.randn(module.raw_bandwidth.shape, generator=g))
    if kind == 4 and module.grid_is_learned:
        module.raw_grid[2:5] = -200.0  # points that meet
    return module


def places(module: Nonlinearity, radius: float) -> torch.Tensor:
    """Points of the range: even ones, near zero, and near the functions."""
    own = module.parameters_in_force().double()
    near = own.grid[:, None] + (own.grid.diff().mean() if len(own.grid) > 1 else 1.0) * (
        torch.linspace(-2, 2, 9, dtype=torch.float64)
    )
    tiny = radius * torch.logspace(-6, 0, 40, dtype=torch.float64)
    even = torch.linspace(-radius, radius, 501, dtype=torch.float64)
    x = torch.cat([even, tiny, near.flatten()[:400], torch.zeros(1, dtype=torch.float64)]).float()
    return x[x.abs() <= radius]


@torch.no_grad()
def error_and_bound(
    module: Nonlinearity, radius: float, tolerance: float, x: torch.Tensor | None = None
) -> tuple[float, float, object]:
    """Largest error that neither rounding x to float32 nor float64's own noise explains."""
    phi, own = module.phi, module.parameters_in_force().double()
    radius = float(torch.tensor(radius, dtype=torch.float32))
    fit = fit_proxy(phi, own, torch.tensor(radius), tolerance)
    x = places(module, radius) if x is None else x
    want = phi(x.double(), own)
    # rounding: one step of float32 at R, or of float64 at the ends of the interval
    step = max(2.0**-22 * radius, 2.0**-49 * max(map(abs, phi.basis.interval)))
    low = high = want
    for part in (-1, -0.5, -0.25, -0.1, 0.1, 0.25, 0.5, 1):
        moved_by = phi(x.double() + part * step, own)
        low, high = torch.minimum(low, moved_by), torch.maximum(high, moved_by)
    terms = phi.basis.phi(x.double(), own.amplitude, own.grid, own.bandwidth).abs()
    if isinstance(phi.basis, LinearBasis) and phi.extrapolation == "exact":
        design = phi.basis.design_matrix(x.double(), own.grid, own.bandwidth)
        terms = design.abs() @ own.amplitude.abs()
    got = fit.proxy.value(x).double()
    off = torch.maximum(got - high, low - got).nan_to_num(torch.inf)
    off = (off - 2.0**-48 * terms.nan_to_num(0).max()).clamp_min(0)
    share = off.max() / want.abs().max().clamp_min(1e-300)
    return share.item(), fit.bound.item(), fit.proxy


@pytest.mark.parametrize("name", list_bases())
def test_no_bound_is_smaller_than_the_error(name):
    rng = random.Random(name)
    for _ in range(DRAWS):
        module, radius, tolerance = drawn(name, rng)
        error, bound, proxy = error_and_bound(module, radius, tolerance)
        told = f"{module.phi} for |x| <= {radius:.3g}: {type(proxy).__name__}"
        assert error <= max(bound, tolerance), f"{told}: error {error:.1e}, bound {bound:.1e}"


def steps(half: float, bandwidth: float | str = "spacing") -> Nonlinearity:
    """An anchored sum of tanh, whose differences have a formula that does not cancel."""
    basis = get_basis("tanh", interval=(-half, half))
    module = Nonlinearity(basis, get_grid("uniform"), get_start("anchored"), bandwidth=bandwidth)
    torch.nn.init.normal_(module.amplitude, generator=torch.Generator().manual_seed(0))
    return module


def without_cancelling(module: Nonlinearity, x: torch.Tensor) -> torch.Tensor:
    """Every function at x less at 0: tanh u - tanh v = sinh(u - v) / (cosh u cosh v)."""
    own = module.parameters_in_force().double()
    u = own.bandwidth * (x.double()[:, None] - own.grid)
    v = -own.bandwidth * own.grid
    return torch.sinh(own.bandwidth * x.double()[:, None]) / (torch.cosh(u) * torch.cosh(v))


TINY = [(3.0, 1e-3, 1e-4), (3.0, 3e-6, 1e-2), (1e6, "spacing", 1e-4), (1e15, "spacing", 1e-4)]


@pytest.mark.parametrize(("half", "bandwidth", "radius"), TINY)
def test_an_anchored_phi_that_hardly_moves_is_exact(half, bandwidth, radius):
    """phi(x) - phi(0) was off by up to 1,000 times max |phi|, with a bound of 0."""
    module = steps(half, bandwidth)
    fit = fit_proxy(module.phi, module.parameters_in_force(), torch.tensor(radius))
    assert isinstance(fit.proxy, ChebyshevProxy)
    x = torch.linspace(-radius, radius, 101)
    design = without_cancelling(module, x)
    want = design @ module.amplitude.detach().double()
    error = (fit.proxy.value(x).double() - want).abs().max() / want.abs().max()
    assert error <= fit.bound <= 2e-6
    grad = torch.linspace(1, 2, 101)
    moments = fit.proxy.pullback(x, grad)
    (got,) = torch.autograd.grad(fit.proxy.coefficients, module.amplitude, moments)
    pull = design.T @ grad.double()
    assert (got - pull).norm() <= 1e-4 * pull.norm()


def test_a_lagging_fit_finds_it_too_and_comes_back():
    module = steps(1e6)
    fitter = ProxyFitter(1e-6, waits=False)
    numbers = module.parameters_in_force()
    for _ in range(8):
        fit = fitter.fit(module.phi, numbers, torch.tensor(1e-4))
    assert isinstance(fit.proxy, ChebyshevProxy) and fit.bound <= 2e-6
    assert fitter.plan.by_slope
    for _ in range(80):
        fitter.fit(module.phi, numbers, torch.tensor(1e5))
    assert not fitter.plan.by_slope


def test_noise_that_no_plan_can_mend_is_told_and_costs_no_exact_evaluation():
    basis = get_basis("matern", num_basis=51)  # a kink at 0: no polynomial
    module = Nonlinearity(basis, get_grid("uniform"), get_start("anchored"), bandwidth=1e-3)
    torch.nn.init.normal_(module.amplitude, generator=torch.Generator().manual_seed(0))
    error, bound, proxy = error_and_bound(module, 1e-4, 1e-6)
    assert isinstance(proxy, TableProxy)
    assert error <= bound and 1e-6 < bound < 1e-2


def test_powers_that_cancel_in_float32_are_not_taken():
    """T_12 in powers loses four digits: the bound said 1e-16 of an error of 1e-3."""
    module = plain("chebyshev", num_basis=13)
    error, bound, proxy = error_and_bound(module, 3.0, 1e-6)
    assert proxy.degree > 12
    assert error <= bound <= 2e-5


def plain(name: str, extrapolation: str | None = None, **options) -> Nonlinearity:
    module = Nonlinearity(
        get_basis(name, **options),
        get_grid("uniform"),
        get_start("constant"),
        bandwidth="spacing",
        extrapolation=extrapolation,
    )
    torch.nn.init.normal_(module.amplitude, generator=torch.Generator().manual_seed(0))
    return module


@pytest.mark.parametrize(("name", "count"), [("chebyshev", 3), ("sine", 1)])
def test_jumps_of_far_periods_are_not_missed(name, count):
    """Breakpoints are listed for two periods a side; a jump of the third lies just inside."""
    module = plain(name, "periodic", num_basis=count)
    x = torch.linspace(-21.02, 21.02, 20_001)
    error, bound, _ = error_and_bound(module, 21.02, 1e-3, x)
    assert error <= max(bound, 1e-3)


@pytest.mark.parametrize("scale", [1e-40, 1e39])
def test_what_float32_cannot_hold_has_no_finite_bound(scale):
    module = plain("sinc")
    own = module.parameters_in_force().double()
    own = own._replace(amplitude=own.amplitude * scale)
    assert fit_proxy(module.phi, own, torch.tensor(0.1)).bound > 1


def test_exact_evaluation_is_in_float64():
    module = plain("sinc", num_basis=40)
    with torch.no_grad():
        module.raw_bandwidth.fill_(1e5)  # narrower than any table resolves
    _, bound, proxy = error_and_bound(module, 3.0, 1e-6)
    assert isinstance(proxy, ExactProxy)
    own = module.parameters_in_force().double()
    x = places(module, 3.0)
    want = module.phi(x.double(), own)
    assert (proxy.value(x).double() - want).abs().max() <= bound * want.abs().max()
    assert 0 < bound <= 1e-6


def test_a_fit_is_not_left_at_a_plan_that_saw_nothing():
    """Points too far apart to see an interval of 5e-8 ended in a bound of inf."""
    module = plain("chebyshev", "exact", num_basis=3, interval=(2e-8, 7e-8))
    error, bound, _ = error_and_bound(module, 4e-7, 1e-3)
    assert error <= bound <= 1e-3


@pytest.mark.parametrize("half", [1e-6, 1e-12])
@pytest.mark.parametrize("name", ["hat", "bspline", "relu"])
def test_direct_evaluation_holds_on_tiny_intervals(name, half):
    """Hats counted gaps below 1e-7 as that: off by 66 %."""
    module = plain(name, num_basis=50, interval=(-half, half))
    x = torch.linspace(-half, half, 997)
    own = module.parameters_in_force()
    want = module.phi(x.double(), own.double())
    for got in (module(x), module.phi(x, own)):
        assert (got.double() - want).abs().max() <= 1e-4 * want.abs().max()


def test_a_large_line_does_not_drown_an_anchored_phi():
    module = steps(3.0)
    x = torch.linspace(-1, 1, 21)
    own = module.parameters_in_force()
    shifted = own._replace(offset=own.offset + 1e6)
    assert torch.equal(module.phi(x, shifted), module.phi(x, own))
    error = (module(1e-4 * x).double() - module(1e-4 * x.double())).abs().max()
    assert error <= 1e-6 * module(1e-4 * x).abs().max()


@torch.no_grad()
def test_ripples_from_beyond_the_range_are_counted():
    """Finer than the points that measure them, they look smaller there than they are."""
    module = plain("sinc", num_basis=2)
    for share in range(20):
        module.raw_bandwidth.copy_(torch.tensor([0.3, 2e4 * (1 + 0.037 * share)]))
        module.amplitude.copy_(torch.tensor([1.0, 2e2]))
        x = torch.linspace(-0.1, 0.1, 4001)
        error, bound, proxy = error_and_bound(module, 0.1, 0.05, x)
        assert isinstance(proxy, ChebyshevProxy)
        assert error <= bound
