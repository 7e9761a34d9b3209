"""Defects met in other libraries, each as a test that fails on the defect.

The families' own code is tested against them in `test_conformance`; here the defect is named, and
where the defective formula is short it is shown to fail.
"""

import math

import numpy as np
import pytest
import torch

from basis_zoo import Nonlinearity, get_basis, get_grid, get_start, list_bases

NONE = torch.empty(0, dtype=torch.float64)


def psi(name: str, z: torch.Tensor) -> torch.Tensor:
    return get_basis(name, num_basis=4).psi(z)


def derivative(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def test_second_derivative_of_sinc_at_zero() -> None:
    """pytorch #196703: torch.sinc's is NaN."""
    z = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    second = derivative(derivative(psi("sinc", z), z), z)
    assert second.item() == pytest.approx(-(math.pi**2) / 3, rel=1e-12)


def test_derivative_of_sinc_near_zero_in_float32() -> None:
    """torch.sinc's float32 derivative loses all digits below |z| = 3e-5."""
    z = torch.logspace(-8, 1, 400).requires_grad_()
    exact = z.detach().double().requires_grad_()
    want = derivative(psi("sinc", exact), exact)
    series = -(math.pi**2) / 3 * exact.detach()
    got = derivative(psi("sinc", z), z)
    torch.testing.assert_close(got.double(), want, rtol=2e-4, atol=1e-6)
    small = exact.detach() < 1e-3
    torch.testing.assert_close(want[small], series[small], rtol=1e-5, atol=0)
    torch.testing.assert_close(got[small].double(), series[small], rtol=1e-5, atol=0)


def test_chebyshev_gradient_at_large_x_is_not_nan() -> None:
    """ChebyKAN: acos(tanh x) has an infinite derivative where tanh saturates, |x| > 9."""
    x = torch.tensor([-1e4, -20.0, -9.5, 3.0, 9.5, 1e4], requires_grad=True)
    peer = torch.cos(3 * torch.acos(torch.tanh(x)))
    assert derivative(peer, x).isnan().any()
    module = Nonlinearity(get_basis("chebyshev"), get_grid("uniform"), get_start("random", seed=0))
    assert derivative(module(x), x).isfinite().all()


def test_gradients_are_not_off_by_a_factor() -> None:
    """faster-kan's RSWAF: the forward pass ignores a width that the backward pass multiplies by."""
    for name in ("tanh", "gaussian_rbf"):
        basis = get_basis(name, num_basis=3)
        draw = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)).double()
        x, a, g, w = (t.clone().requires_grad_() for t in draw)
        assert torch.autograd.gradcheck(basis.phi, (x, a, g, 0.5 * w + 0.5))


def test_the_sign_of_a_spline_derivative() -> None:
    """FlashKAN adds where de Boor subtracts."""
    from scipy.interpolate import BSpline

    basis = get_basis("bspline", num_basis=9)
    grid = get_grid("uniform").place(basis.num_points, basis.interval)
    x = torch.linspace(-2.9, 2.9, 41, dtype=torch.float64, requires_grad=True)
    a = torch.arange(9, dtype=torch.float64).sin()
    got = derivative(basis.phi(x, a, grid, NONE), x)
    g = grid.numpy()
    want = BSpline(np.r_[[g[0]] * 3, g, [g[-1]] * 3], a.numpy(), 3)(x.detach().numpy(), nu=1)
    np.testing.assert_allclose(got.detach().numpy(), want, atol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("knots", ["clamped", "extended"])
def test_the_last_breakpoint_is_inside(degree: int, knots: str) -> None:
    """Half-open pieces: with clamped knots the value at the right end is 0 in many libraries."""
    basis = get_basis("bspline", num_basis=10, degree=degree, knots=knots)
    grid = get_grid("uniform").place(basis.num_points, basis.interval)
    design = basis.design_matrix(torch.tensor([-3.0, 3.0]).double(), grid, NONE)
    torch.testing.assert_close(design.sum(-1), torch.ones(2).double())


@pytest.mark.parametrize("name", ["hat", "bspline", "walsh", "haar"])
def test_the_end_of_a_table_is_the_end_of_the_interval(name: str) -> None:
    """LUT-KAN 2.2.0: samples at l / L, looked up at l / (L - 1)."""
    basis = get_basis(name, num_basis=16)
    grid = get_grid("uniform").place(basis.num_points, basis.interval)
    ends = torch.tensor([3.0, math.nextafter(3.0, 0.0)], dtype=torch.float64)
    at, before = basis.design_matrix(ends, grid, NONE)
    torch.testing.assert_close(at, before)


def test_float32_chebyshev_is_as_good_as_its_recurrence() -> None:
    """jaxKAN's hard-coded monomials are off by 0.87 at T_20."""
    basis = get_basis("chebyshev", num_basis=50)
    x = torch.linspace(-3, 3, 999)
    got = basis.design_matrix(x, NONE, NONE)
    want = basis.design_matrix(x.double(), NONE, NONE)
    assert (got - want).abs().max() < 1e-4
    coefficients = np.polynomial.chebyshev.cheb2poly(np.eye(21)[20]).astype(np.float32)
    u = (x / 3).numpy()
    monomials = sum(c * u**k for k, c in enumerate(coefficients))
    assert abs(monomials - want[:, 20].numpy()).max() > 0.1


def test_the_mexican_hat_points_up() -> None:
    """Wav-KAN and X-KANeRF: psi(0) = -0.867."""
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64, requires_grad=True)
    value = psi("mexican_hat", z)
    assert value.max().item() == pytest.approx(0.8673250705840776, rel=1e-12)
    gaussian = psi("gaussian_rbf", z)
    second = derivative(derivative(gaussian, z), z)
    want = -2 / (math.sqrt(3) * math.pi**0.25) * second
    torch.testing.assert_close(value, want)


def test_a_difference_of_gaussians_is_even() -> None:
    """X-KANeRF's DoG is the first derivative of a Gaussian, which is odd."""
    z = torch.linspace(0.1, 5, 50, dtype=torch.float64)
    assert torch.equal(psi("difference_of_gaussians", z), psi("difference_of_gaussians", -z))


def test_compact_families_have_finite_gradients_at_the_edge() -> None:
    """X-KANeRF's bump: exp(-1 / (1 - x^2)) is evaluated before it is masked, NaN at |x| = 1."""
    x = torch.tensor([0.9, 1.0, 1.0001, 2.0], requires_grad=True)
    bump = torch.where(x.abs() < 1, torch.exp(-1 / (1 - x * x)), 0)
    assert derivative(bump, x).isnan().any()
    z = torch.tensor([-4.0, -3.0, -2.9999, 0.0, 2.9999, 3.0, 3.0001, 1e30], requires_grad=True)
    first = derivative(psi("wendland", z), z)
    assert first.isfinite().all()
    assert derivative(first, z).isfinite().all()


def test_no_family_looks_at_its_neighbours() -> None:
    """X-KANeRF's Shannon wavelet multiplies a window over the feature axis."""
    for name in list_bases():
        module = Nonlinearity(
            get_basis(name), get_grid("uniform"), get_start("random", seed=0), bandwidth="spacing"
        )
        x = torch.linspace(-2.7, 2.6, 6)
        torch.testing.assert_close(module(x.reshape(2, 3)).T, module(x.reshape(2, 3).T))


def test_no_coefficient_of_the_rational_family_is_stuck() -> None:
    """Pade units with 1 + |b u|: the gradient to b is zero at b = 0, for ever."""
    basis = get_basis("rational")
    amplitude = torch.zeros(8, dtype=torch.float64)
    amplitude[1] = 1  # b = 0
    amplitude.requires_grad_()
    x = torch.linspace(-3, 3, 33, dtype=torch.float64)
    grad = derivative(basis.phi(x, amplitude, NONE, NONE) * (x + x * x), amplitude)
    assert (grad[6:].abs() > 1e-3).all()


def test_the_rational_family_has_no_pole() -> None:
    """rational_activations #23: NaN on large runs."""
    basis = get_basis("rational")
    x = torch.linspace(-3, 3, 10_001)
    for seed in range(20):
        amplitude = 30 * torch.randn(8, generator=torch.Generator().manual_seed(seed))
        top = amplitude.clone()
        top[6:] = 0
        assert basis.phi(x, amplitude, NONE, NONE).abs().max() <= (
            2 * basis.phi(x, top.abs(), NONE, NONE).abs().max() + 1e-3
        )


def test_functions_do_not_fade_inside_the_interval() -> None:
    """efficient-kan: the sum of the functions is 0.02 at x = 2 on a grid of [-1, 1], silently."""
    basis = get_basis("bspline", num_basis=8, interval=(-1.0, 1.0))
    grid = get_grid("uniform").place(basis.num_points, basis.interval)
    module = Nonlinearity(basis, get_grid("uniform"), get_start("identity"))
    assert basis.design_matrix(torch.tensor([2.0]).double(), grid, NONE).sum() == pytest.approx(1)
    torch.testing.assert_close(module(torch.tensor([2.3])), torch.tensor([2.3]))


def test_hermite_does_not_overflow_float32() -> None:
    """Hermite polynomials overflow float32 near degree 30."""
    module = Nonlinearity(
        get_basis("hermite", num_basis=200), get_grid("uniform"), get_start("random", seed=0)
    )
    x = torch.linspace(-3, 3, 501, requires_grad=True)
    y = module(x)
    assert y.isfinite().all() and derivative(y, x).isfinite().all()
    torch.testing.assert_close(y, module(x.double()).float(), atol=1e-4, rtol=1e-4)
