"""Proxies of phis whose numbers training has moved to extremes."""

import pytest
import torch

from basis_zoo import get_basis, get_grid, get_start, stack_parameters
from basis_zoo.nonlinearity import Nonlinearity
from basis_zoo.proxy import fit_proxy

NARROW = ["gaussian_rbf", "mexican_hat", "morlet", "difference_of_gaussians", "matern", "tanh"]


def made(name, extrapolation=None):
    torch.manual_seed(0)
    basis = get_basis(name, num_basis=10)
    options = {"bandwidth": "spacing", "extrapolation": extrapolation}
    phi = Nonlinearity(basis, get_grid("learned"), get_start("anchored"), **options)
    with torch.no_grad():
        phi.amplitude.normal_()
    return phi


@torch.no_grad()
def require_right(phi, radius, tolerance=1e-6, slack=3e-3):
    """Nowhere off by more than float32 makes of steep functions: not blind to any of them."""
    own = phi.parameters_in_force()
    fit = fit_proxy(phi.phi, stack_parameters([own]), torch.tensor([radius]), tolerance)
    proxy = fit.proxy.rebuilt(tuple(t[0] for t in fit.proxy.tensors))
    own = own.double()
    near = (own.grid[:, None] + torch.linspace(-3, 3, 61) / own.bandwidth[:, None]).flatten()
    x = torch.cat([torch.linspace(-radius, radius, 4001), near[near.abs() < radius].float()])
    want = phi.phi(x.double(), own)
    error = (proxy.value(x) - want).abs().max() / want.abs().max()
    assert error < slack, f"{type(proxy).__name__} is off by {error:.1e}, bound {fit.bound.item()}"


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("radius", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("extrapolation", [None, "clamp"])
@pytest.mark.parametrize("omega", [200.0, 1e4])
def test_narrow_functions_are_not_missed_between_points(name, radius, extrapolation, omega):
    phi = made(name, extrapolation)
    with torch.no_grad():
        phi.raw_bandwidth.fill_(omega)
    require_right(phi, radius)


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("radius", [1.5, 8.0])
def test_one_narrow_function_among_wide_ones_is_not_missed(name, radius):
    phi = made(name)
    with torch.no_grad():
        phi.amplitude.zero_()
        phi.amplitude[3], phi.raw_bandwidth[3] = 1.0, 1e4
    require_right(phi, radius)


@pytest.mark.parametrize("name", ["hat", "bspline", "gaussian_rbf"])
@pytest.mark.parametrize("extrapolation", [None, "clamp", "linear"])
@pytest.mark.parametrize("radius", [0.1, 3.0])
def test_learned_points_that_meet_leave_phi_finite(name, extrapolation, radius):
    phi = made(name, extrapolation)
    with torch.no_grad():
        phi.raw_grid[4:7] = -200.0  # softplus is zero
    own = phi.parameters_in_force()
    fit = fit_proxy(phi.phi, stack_parameters([own]), torch.tensor([radius]))
    assert all(t.isfinite().all() for t in fit.proxy.tensors)
    fit.proxy.coefficients.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in phi.parameters() if p.grad is not None)
