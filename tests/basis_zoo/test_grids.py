"""Grids: where points lie, what is kept when they move."""

import numpy as np
import pytest
import torch

from basis_zoo import Nonlinearity, get_basis, get_grid, get_start, list_grids
from basis_zoo.grids import Grid

INTERVAL = (-3.0, 2.0)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("name", list_grids())
def test_points_increase_inside_the_interval(name: str, count: int) -> None:
    points = get_grid(name).place(count, INTERVAL)
    assert points.dtype == torch.float64
    assert points.shape == (count,)
    assert (points.diff() > 0).all()
    assert (points >= -3).all()
    assert (points <= 2).all()


def test_uniform_overhang_puts_points_beyond_both_ends() -> None:
    points = get_grid("uniform", overhang=2).place(9, (0.0, 4.0))
    assert points.tolist() == [-2, -1, 0, 1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="overhang"):
        get_grid("uniform", overhang=3).place(7, (0.0, 4.0))


def test_noise_moves_the_inner_points_by_at_most_its_share_of_the_spacing() -> None:
    exact = get_grid("uniform").place(50, INTERVAL)
    state = torch.get_rng_state()
    noisy = get_grid("uniform", noise=0.1, seed=3).place(50, INTERVAL)
    assert torch.equal(noisy, get_grid("uniform", noise=0.1, seed=3).place(50, INTERVAL))
    assert torch.equal(state, torch.get_rng_state())
    moved = (noisy - exact) / (5 / 49)
    assert moved[0] == moved[-1] == 0
    assert 0.09 < moved.abs().max() <= 0.1 and moved.min() < -0.08 and moved.max() > 0.08
    assert not torch.equal(noisy, get_grid("uniform", noise=0.1, seed=4).place(50, INTERVAL))
    assert (get_grid("uniform", noise=0.49).place(500, INTERVAL).diff() > 0).all()
    with pytest.raises(ValueError, match=r"`noise` must lie in \[0, 0.5\), got 0.5"):
        get_grid("uniform", noise=0.5)


@pytest.mark.parametrize(
    ("kind", "oracle"),
    [(1, np.polynomial.chebyshev.chebpts1), (2, np.polynomial.chebyshev.chebpts2)],
)
def test_chebyshev_points_are_numpys(kind: int, oracle) -> None:
    points = get_grid("chebyshev", kind=kind).place(9, (-1.0, 1.0))
    np.testing.assert_allclose(points.numpy(), oracle(9), atol=1e-15)


def test_random_points_depend_on_the_seed_alone() -> None:
    first = get_grid("random", seed=3).place(20, INTERVAL)
    torch.rand(5)
    state = torch.get_rng_state()
    assert torch.equal(first, get_grid("random", seed=3).place(20, INTERVAL))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, get_grid("random", seed=4).place(20, INTERVAL))


def test_quantile_points_hold_equally_many_samples() -> None:
    samples = torch.randn(20_001, generator=torch.Generator().manual_seed(0)) * 0.5
    points = get_grid("quantile", mix=1e-6).place(11, (-3.0, 3.0), samples)
    counts = np.histogram(samples.numpy(), points.numpy())[0]
    assert points[0] == -3 and points[-1] == 3
    assert (abs(counts - 2000) <= 25).all()


def test_quantile_points_stay_apart_when_samples_coincide() -> None:
    points = get_grid("quantile").place(11, INTERVAL, torch.zeros(100))
    assert (points.diff() > 1e-3).all()
    assert (points[0], points[-1]) == INTERVAL


def test_quantile_leaves_out_samples_that_are_not_finite() -> None:
    samples = torch.tensor([float("nan"), float("inf"), 1.0, 1.5])
    assert get_grid("quantile").place(4, INTERVAL, samples).isfinite().all()
    with pytest.raises(ValueError, match="at least one finite sample"):
        get_grid("quantile").place(4, INTERVAL, samples[:2])


def test_a_learned_grid_keeps_its_order_under_any_update() -> None:
    module = Nonlinearity(get_basis("hat", num_basis=20), get_grid("learned"), get_start("random"))
    want = get_grid("uniform").place(20, (-3.0, 3.0)).float()
    torch.testing.assert_close(module.grid.detach(), want, atol=1e-5, rtol=0)
    with torch.no_grad():
        module.raw_grid.add_(5 * torch.randn(20, generator=torch.Generator().manual_seed(0)))
    assert (module.grid.diff() > 0).all()


@pytest.mark.parametrize("placed", ["uniform", "chebyshev"])
def test_a_learned_grid_is_trained(placed: str) -> None:
    grid = get_grid("learned", placed=placed)
    module = Nonlinearity(get_basis("gaussian_rbf", num_basis=8), grid, get_start("random", seed=0))
    module(torch.linspace(-2, 2, 30)).square().sum().backward()
    assert module.raw_grid.grad.abs().min() > 0


def test_no_grid_inherits_from_another() -> None:
    for name in list_grids():
        assert type(get_grid(name)).__bases__ == (Grid,)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("chebyshev", {"kind": 3}, "1 or 2"),
        ("quantile", {"mix": 0.0}, "mix"),
        ("uniform", {"overhang": -1}, "overhang"),
        ("unifrom", {}, "Did you mean 'uniform'"),
        ("random", {"sede": 1}, "Did you mean 'seed'"),
    ],
)
def test_wrong_grids_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_grid(name, **options)


@pytest.mark.parametrize("basis", ["bspline", "hat", "gaussian_rbf"])
def test_refitting_the_grid_keeps_phi(basis: str) -> None:
    family = get_basis(basis, num_basis=40)
    start = get_start("identity", tolerance=0.5)
    module = Nonlinearity(family, get_grid("quantile"), start, bandwidth="spacing")
    x = torch.linspace(-2.5, 2.5, 101)
    before, grid = module(x).detach(), module.grid.clone()
    samples = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    residual = module.refit_grid(samples, bandwidth="spacing")
    assert (module.grid - grid).abs().max() > 0.3
    assert residual < 0.3
    assert (module(x) - before).abs().max() <= residual + 1e-4


def test_refitting_an_anchored_phi_keeps_it_too() -> None:
    start = get_start("identity_anchored")
    module = Nonlinearity(get_basis("bspline", num_basis=30), get_grid("quantile"), start)
    x = torch.linspace(-2.5, 2.5, 101)
    before = module(x).detach()
    module.refit_grid(torch.randn(3000, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(module(x), before, atol=1e-4, rtol=0)
