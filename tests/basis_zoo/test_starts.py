"""Starts: what phi is before training."""

import logging

import pytest
import torch

from basis_zoo import Nonlinearity, get_basis, get_grid, get_start, list_bases, list_starts
from basis_zoo.fit import fit_amplitudes

X = torch.linspace(-3, 3, 201)


def make(basis: str, start: str, grid: dict | None = None, linear: bool = False, **options):
    family = get_basis(basis, **options.pop("basis", {}))
    rule = get_grid("uniform", **(grid or {}))
    module = get_start(start, **options)
    return Nonlinearity(family, rule, module, bandwidth="spacing", linear=linear)


def test_the_starts_of_the_issue_are_registered() -> None:
    asked = {"paper", "small", "random", "anchored", "identity", "identity_anchored"}
    assert asked <= set(list_starts())


@pytest.mark.parametrize("start", ["paper", "small", "anchored"])
def test_zero_starts_are_zero(start: str) -> None:
    assert not make("sinc", start)(X).any()
    assert get_start(start).zero_b == (start == "paper")


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("start", sorted(set(list_starts()) - {"constant"}))
def test_the_model_before_the_first_step_is_the_base_model(start: str, linear: bool) -> None:
    """With the linear term, `anchored` and `small` were the identity of a random B A."""
    rule = get_start(start)
    for basis in list_bases():
        if basis == "sinter" and not rule.zero_b:
            continue  # x where its amplitudes are zero; adapters refuse it
        try:
            module = make(basis, start, {}, linear)
        except ValueError as refused:
            assert "cannot start as the identity" in str(refused) and not linear
            continue
        update = module(torch.zeros(1) if rule.zero_b else X).abs().max()
        assert update <= (1e-6 if start == "identity" else 0), basis


def test_the_line_learns_from_slope_zero() -> None:
    module = make("sinc", "anchored", linear=True)
    (0.3 * X - module(X)).square().mean().backward()
    assert module.line.grad[0] < 0


@pytest.mark.parametrize(
    ("basis", "grid", "bound"),
    [
        ("bspline", {}, 1e-6),
        ("hat", {}, 1e-6),
        ("chebyshev", {}, 1e-6),
        ("tanh", {}, 2e-3),
        ("gaussian_rbf", {"overhang": 2}, 3e-4),
        ("sinc", {"overhang": 2}, 4e-3),
        ("rational", {}, 1e-6),
        ("sinter", {}, 0.0),
    ],
)
def test_identity_reports_its_residual(basis: str, grid: dict, bound: float, caplog) -> None:
    with caplog.at_level(logging.INFO, logger="basis_zoo.starts"):
        module = make(basis, "identity", grid)
    assert module.start_residual <= bound
    assert (module(X) - X).abs().max() <= module.start_residual + 2e-5  # float32
    assert basis in caplog.text and "start as the identity" in caplog.text


@pytest.mark.parametrize("basis", ["sinc", "mexican_hat", "walsh", "gaussian_rbf"])
def test_identity_is_refused_where_it_cannot_be(basis: str) -> None:
    with pytest.raises(ValueError, match=r"cannot start as the identity.*Turn the linear term on"):
        make(basis, "identity")
    module = make(basis, "identity", linear=True)
    assert not module.amplitude.any()
    torch.testing.assert_close(module(X), X)
    assert make(basis, "identity", tolerance=10.0).start_residual > 0.01


def test_identity_of_a_family_that_contains_it_needs_no_slope() -> None:
    module = make("sinter", "identity", linear=True)
    assert module.line[0] == 0
    torch.testing.assert_close(module(X), X)


def test_anchored_identity_is_zero_at_zero_always() -> None:
    module = make("gaussian_rbf", "identity_anchored", {"overhang": 2})
    with torch.no_grad():
        module.amplitude.add_(0.3)
    assert module(torch.zeros(3)).abs().max() == 0


@pytest.mark.parametrize("scale", [0.01, 1.0])
@pytest.mark.parametrize("basis", ["sinc", "bspline", "fourier", "polynomial", "rational"])
def test_random_amplitudes_give_phi_the_deviation_asked_for(basis: str, scale: float) -> None:
    squares = []
    for seed in range(30):
        module = make(basis, "random", scale=scale, seed=seed)
        p = module.parameters_in_force()
        raw = module.phi.basis.phi(X, p.amplitude, p.grid, p.bandwidth)
        squares.append(raw.square().mean())
    assert 0.7 * scale < torch.stack(squares).mean().sqrt() < 1.4 * scale


def test_random_amplitudes_follow_their_seed_or_torchs() -> None:
    assert torch.equal(
        make("hat", "random", seed=1).amplitude, make("hat", "random", seed=1).amplitude
    )
    torch.manual_seed(0)
    first, second = make("hat", "random"), make("hat", "random")
    assert not torch.equal(first.amplitude, second.amplitude)
    torch.manual_seed(0)
    assert torch.equal(first.amplitude, make("hat", "random").amplitude)


def test_constant_start_is_sinelora() -> None:
    module = Nonlinearity(
        get_basis("sine"), get_grid("uniform"), get_start("constant", value=1 / 8), bandwidth=200.0
    )
    x = torch.linspace(-0.02, 0.02, 50)
    torch.testing.assert_close(module(x), torch.sin(200 * x) / 8, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"scael": 1.0}])
def test_wrong_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="scale"):
        get_start("random", **options)


def test_fit_reports_the_error_of_amplitudes_rounded_to_float32() -> None:
    basis = get_basis("chebyshev", num_basis=30)
    x = torch.linspace(-3, 3, 400, dtype=torch.float64)
    none = x[:0]
    fit = fit_amplitudes(basis, x, torch.exp(x), none, none)
    got = basis.phi(x, fit.amplitude, none, none)
    assert torch.equal(fit.amplitude, fit.amplitude.float().double())
    assert fit.residual == (got - torch.exp(x)).abs().max().item()
    assert 0 < fit.residual < 1e-5
