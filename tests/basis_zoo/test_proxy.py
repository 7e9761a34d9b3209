"""Proxies against phi in float64: values, slopes, gradients, certificates and plans."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from basis_zoo import get_basis, get_grid, get_start, stack_parameters
from basis_zoo.nonlinearity import Nonlinearity
from basis_zoo.proxy import (
    ChebyshevProxy,
    ExactProxy,
    ProxyFitter,
    TableProxy,
    fit_proxy,
    range_radius,
)

FLOAT32 = 8e-6
"""What a bound may count for the rounding of float32, beside the tolerance."""


def made(name: str, seed: int = 0, **options):
    torch.manual_seed(seed)
    basis = get_basis(name, **options)
    module = Nonlinearity(basis, get_grid("uniform"), get_start("anchored"), bandwidth="spacing")
    torch.nn.init.normal_(module.amplitude)
    return module.phi, module.parameters_in_force()


def error_of(proxy, phi, numbers, radius: float) -> float:
    x = torch.linspace(-1, 1, 10_001, dtype=torch.float64) * radius * 0.9999
    want = phi(x, numbers.double())
    return float((proxy.value(x) - want).detach().abs().max() / want.detach().abs().max())


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-6])
@pytest.mark.parametrize(
    ("name", "radius", "kind"),
    [
        ("sinc", 0.01, ChebyshevProxy),
        ("sinc", 1.0, ChebyshevProxy),
        ("fourier", 2.9, ChebyshevProxy),
        ("hat", 0.5, TableProxy),
        ("relu", 2.9, TableProxy),
    ],
)
def test_the_bound_holds_and_meets_the_tolerance(name, radius, kind, tolerance):
    phi, numbers = made(name)
    fit = fit_proxy(phi, numbers, torch.tensor(radius), tolerance)
    assert isinstance(fit.proxy, kind)
    assert fit.bound <= 3 * tolerance + FLOAT32  # three times what was measured
    assert error_of(fit.proxy, phi, numbers, radius) <= fit.bound.item()


@pytest.mark.slow
@pytest.mark.parametrize(
    "count", [400, *(pytest.param(n, marks=pytest.mark.thorough) for n in (512, 600))]
)
def test_a_steep_table_is_no_worse_than_its_bound(count):
    """Middles of pieces that float32 rounds after the fit made it 15 times as bad."""
    phi, numbers = made("sinc", num_basis=count)
    fit = fit_proxy(phi, numbers, torch.tensor(2.7), tolerance=1e-5)
    assert isinstance(fit.proxy, TableProxy)
    assert error_of(fit.proxy, phi, numbers, 2.7) <= fit.bound.item()


@pytest.mark.parametrize("name", ["sinc", "hat", "walsh"])
@pytest.mark.parametrize("radius", [1e-4, 0.3, 2.9, 40.0])
def test_value_slope_and_pullback_are_those_of_phi(name, radius):
    phi, numbers = made(name)
    numbers = numbers._replace(amplitude=numbers.amplitude.detach().double().requires_grad_())
    numbers = numbers.double()
    fit = fit_proxy(phi, numbers, torch.tensor(radius), tolerance=1e-6)
    g = torch.Generator().manual_seed(1)
    x = (2 * torch.rand(500, generator=g, dtype=torch.float64) - 1) * radius
    kinks = phi.breakpoints(numbers).detach()
    if len(kinks):
        x = x[(x[:, None] - kinks).abs().amin(dim=1) > 1e-5 * radius]
    grad = torch.randn(len(x), generator=g, dtype=torch.float64)
    point = x.clone().requires_grad_()
    y = phi(point, numbers)
    size = y.detach().abs().max().item()
    slope, pull = torch.autograd.grad(y, [point, numbers.amplitude], grad, materialize_grads=True)
    assert torch.allclose(fit.proxy.value(x), y, atol=1e-5 * size + 1e-12)
    steep = max(float((slope / grad).abs().max()), size / radius)
    assert float((fit.proxy.slope(x) - slope / grad).abs().max()) <= 2e-3 * steep
    moments = fit.proxy.pullback(x.float(), grad.float())
    (got,) = torch.autograd.grad(fit.proxy.coefficients, numbers.amplitude, moments)
    assert float((got - pull).norm()) <= 2e-3 * float(pull.norm()) + 1e-9


def test_phis_of_one_batch_keep_their_own_numbers():
    phi, first = made("gaussian_rbf", 0)
    second = made("gaussian_rbf", 1)[1]
    both = fit_proxy(phi, stack_parameters([first, second]), torch.tensor([0.1, 0.7]))
    for row, (numbers, radius) in enumerate([(first, 0.1), (second, 0.7)]):
        proxy = both.proxy.rebuilt(tuple(t[row] for t in both.proxy.tensors))
        assert error_of(proxy, phi, numbers, radius) <= 5e-6


@pytest.mark.parametrize("radius", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["sinc", "hat"])
def test_a_range_that_is_not_finite_gives_nan_not_a_wrong_number(name, radius):
    phi, numbers = made(name)
    fit = fit_proxy(phi, numbers, torch.tensor(radius))
    assert not fit.proxy.value(torch.tensor([0.0, 1.0])).isfinite().all()


def test_the_radius_is_never_exceeded_and_never_zero():
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        b, a = torch.randn(7, 3, generator=g), torch.randn(3, 9, generator=g)
        assert (b @ a).abs().max() <= range_radius(b, a)
    assert range_radius(torch.zeros(2, 3), torch.zeros(3, 2)) > 0


def test_the_degree_follows_the_range_up_and_down():
    phi, numbers = made("sinc")
    fitter = ProxyFitter(1e-6)
    degrees = [
        fitter.fit(phi, numbers, torch.tensor(radius)).proxy.degree
        for radius in (0.01, 0.3, 1.0, 1.0, 0.01, 0.01, 0.01)
    ]
    assert degrees[0] < degrees[1] < degrees[3]
    assert degrees[-1] == degrees[0]


@pytest.mark.thorough
@torch.no_grad()  # a graph of it all takes 8 GiB
def test_what_no_proxy_resolves_is_evaluated_exactly():
    phi, numbers = made("sinc", num_basis=2000)
    fit = fit_proxy(phi, numbers, torch.tensor(3.0), tolerance=1e-7)
    assert isinstance(fit.proxy, ExactProxy)
    x = torch.linspace(-3, 3, 50)
    want = phi(x.double(), numbers.double())
    error = float((fit.proxy.value(x).double() - want).detach().abs().max())
    assert error <= 1e-3 * float(want.detach().abs().max())  # that of x in float32, 2000 x 3 pi


def test_probes_resolve_what_zero_amplitudes_hide():
    phi, numbers = made("sinc")
    silent = numbers._replace(amplitude=torch.zeros_like(numbers.amplitude).requires_grad_())
    fit = fit_proxy(phi, silent, torch.tensor(1.0))
    x = torch.linspace(-0.99, 0.99, 100, dtype=torch.float64)
    want = phi.basis.design_matrix(x, numbers.grid.double(), numbers.bandwidth.double())
    moments = fit.proxy.pullback(x.float(), torch.ones(100))
    (got,) = torch.autograd.grad(fit.proxy.coefficients, silent.amplitude, moments)
    anchor = phi.basis.design_matrix(
        torch.zeros(1, dtype=torch.float64), numbers.grid.double(), numbers.bandwidth.double()
    )
    pull = (want - anchor).sum(0).detach()
    assert float((got.double() - pull).norm()) <= 1e-4 * float(pull.norm())


class _NoReading(TorchDispatchMode):
    """Refuses what would make the host wait for a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "is_nonzero", "nonzero"), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", ["sinc", "hat"])
def test_a_lagging_fit_reads_nothing_and_follows_the_range_a_fit_later(family, monkeypatch):
    phi, numbers = made(family)
    fitter = ProxyFitter(1e-6, waits=False)
    fitter.fit(phi, numbers, torch.tensor(0.01))
    wide = torch.tensor(0.3)
    monkeypatch.setattr(fitter, "_receive", lambda: None)  # reads the host's own copy
    with monkeypatch.context() as patch, _NoReading():
        patch.setattr(torch.Tensor, "tolist", lambda self: pytest.fail("a tensor was read"))
        first = fitter.fit(phi, numbers, wide)
    monkeypatch.undo()
    fits = [first] + [fitter.fit(phi, numbers, wide) for _ in range(6)]
    assert first.bound > 1e-6
    assert fits[-1].bound <= 1e-6 + FLOAT32
    assert error_of(fits[-1].proxy, phi, numbers, 0.3) <= 5e-6
