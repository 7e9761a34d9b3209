"""The module that owns phi's numbers."""

import numpy as np
import pytest
import torch

from basis_zoo import Nonlinearity, get_basis, get_grid, get_start
from basis_zoo.nonlinearity import inverse_softplus, spacing_bandwidth

UNIFORM = get_grid("uniform")


def make(name: str = "gaussian_rbf", **options) -> Nonlinearity:
    return Nonlinearity(
        get_basis(name, num_basis=13), UNIFORM, get_start("random", seed=0), **options
    )


def test_softplus_is_inverted_over_the_whole_range() -> None:
    y = torch.logspace(-6, 6, 50, dtype=torch.float64)
    torch.testing.assert_close(torch.nn.functional.softplus(inverse_softplus(y)), y)


def test_bandwidth_is_a_number_or_one_over_the_spacing() -> None:
    assert make(bandwidth=2.5).bandwidth.allclose(torch.tensor(2.5))
    assert make(bandwidth="spacing").bandwidth.allclose(torch.tensor(2.0))
    for wrong in (0.0, -1.0, "wide"):
        with pytest.raises(ValueError, match="`bandwidth` must be"):
            make(bandwidth=wrong)


def test_one_over_the_spacing_is_what_sampling_theory_gives_a_sinc() -> None:
    """psi(omega (x - c)) vanishes where omega (x - c) is a whole number but 0: at all other centers
    of a uniform grid if omega is one over its spacing. Then amplitudes are samples."""
    sinc, start = get_basis("sinc", num_basis=50, interval=(-3.0, 3.0)), get_start("anchored")
    phi = Nonlinearity(sinc, UNIFORM, start, bandwidth="spacing")
    grid = UNIFORM.place(50, (-3.0, 3.0))
    torch.testing.assert_close(phi.bandwidth, torch.full((50,), 49 / 6))
    exact = torch.full((50,), 49 / 6, dtype=torch.float64)
    samples = sinc.design_matrix(grid, grid, exact)
    torch.testing.assert_close(samples, torch.eye(50, dtype=torch.float64), atol=1e-13, rtol=0)
    neighbour = 6 / 49
    for other in (0.1, 0.5, 1.0, 2.0, 5.0):  # the published values: none is
        assert abs(np.sinc(other * neighbour)) > 0.4
        apart = sinc.design_matrix(grid, grid, torch.full((50,), other, dtype=torch.float64))
        np.testing.assert_allclose(apart[0, 1], np.sinc(other * neighbour), atol=1e-13)


def test_spacing_is_local_and_points_that_coincide_make_no_spike() -> None:
    basis = get_basis("gaussian_rbf", num_basis=4)
    omega = spacing_bandwidth(basis, torch.tensor([0.0, 1.0, 3.0, 3.0 + 1e-9]).double())
    torch.testing.assert_close(omega, torch.tensor([1, 1 / 1.5, 1, 4.0]).double())
    sine = get_basis("sine", num_basis=4)
    assert spacing_bandwidth(sine, torch.empty(0)).tolist() == [0.5] * 4


def test_what_is_not_trained_is_a_buffer() -> None:
    assert {n for n, _ in make().named_parameters()} == {"amplitude", "raw_bandwidth"}
    fixed = make(train_amplitude=False, train_bandwidth=False, linear=True)
    assert {n for n, _ in fixed.named_parameters()} == {"line"}
    assert {n for n, _ in make("chebyshev").named_parameters()} == {"amplitude"}


def test_the_line_is_added() -> None:
    module = make(linear=True)
    x = torch.linspace(-2, 2, 9)
    before = module(x)
    with torch.no_grad():
        module.line.add_(torch.tensor([0.5, 0.25]))
    # anchored: phi(0) is subtracted, so the offset has no effect
    torch.testing.assert_close(module(x), before + 0.5 * x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    module = make()
    x = torch.linspace(-2, 2, 50).to(dtype)
    want = module(x.double()).to(dtype)
    torch.testing.assert_close(module(x), want, atol=1e-6, rtol=2 * torch.finfo(dtype).eps)


def test_phi_of_a_product_is_not_the_product_of_phis() -> None:
    """phi acts on the entries of BA: phi(BA) x, not phi(B A x) (the Sine-DoRA mistake)."""
    module = make()
    b, a, x = torch.randn(6, 2), torch.randn(2, 5), torch.randn(5)
    assert not torch.allclose(module(b @ a) @ x, module(b @ (a @ x)), atol=1e-2)


@pytest.mark.parametrize("grid", ["uniform", "learned"])
def test_it_is_trained_to_fit_a_curve(grid: str) -> None:
    torch.manual_seed(0)
    module = Nonlinearity(
        get_basis("gaussian_rbf", num_basis=16),
        get_grid(grid),
        get_start("anchored"),
        bandwidth="spacing",
        linear=True,
    )
    x = torch.linspace(-3, 3, 200)
    y = torch.sin(2 * x) * x
    optimiser = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        loss = (module(x) - y).square().mean()
        loss.backward()
        optimiser.step()
    assert loss.item() < 1e-2 * y.square().mean().item()


def test_refit_says_what_it_could_not_keep() -> None:
    module = make("gaussian_rbf", bandwidth="spacing")
    x = torch.linspace(-3, 3, 301)
    before = module(x)
    residual = module.refit_grid(torch.zeros(10) + 0.5)  # uniform takes no notice of samples
    assert residual < 1e-4
    torch.testing.assert_close(module(x), before, atol=1e-4, rtol=0)
