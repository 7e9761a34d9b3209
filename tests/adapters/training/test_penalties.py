"""Penalties: their formulas against scipy and numpy, their gradients, and that they work."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from scipy.integrate import quad
from scipy.interpolate import BSpline
from torch import nn

import adapters
from adapters import BasisConfig
from adapters.training import penalties
from adapters.training.penalties import Penalty, curvature_integral, register_penalty
from adapters.training.stable_rank import stable_rank_by_power
from basis_zoo import Nonlinearity, get_basis, get_grid, get_start

NAMES = ("amplitude_l1", "orthogonality", "roughness", "stable_rank")


class Two(nn.Module):
    """Two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 16), nn.Linear(16, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def adapted(**options: Any) -> nn.Module:
    """Two adapted layers, B and the amplitudes random."""
    torch.manual_seed(0)
    options = {"target_modules": ["first", "second"], "r": 3, "num_basis": 8, **options}
    return get_peft_model(Two(), BasisConfig(init_weights=False, b_std=0.5, **options))


def layers(model: nn.Module) -> list[adapters.BasisLayer]:
    return [layer for layer in model.modules() if isinstance(layer, adapters.BasisLayer)]


def made(family: str, **options: Any) -> Nonlinearity:
    torch.manual_seed(0)
    basis = get_basis(family, num_basis=9, **options)
    phi = Nonlinearity(basis, get_grid("uniform"), get_start("anchored"), bandwidth="spacing")
    nn.init.normal_(phi.amplitude)
    return phi


def test_all_that_ships_is_listed() -> None:
    assert tuple(penalties.list_penalties()) == NAMES


def test_the_roughness_of_gaussians_is_what_scipy_integrates() -> None:
    phi = made("gaussian_rbf")
    p = phi.parameters_in_force().double()
    a, c, w = (each.detach().numpy() for each in (p.amplitude, p.grid, p.bandwidth))

    def bend(x: float) -> float:  # psi(z) = exp(-z^2 / 2) with z = w (x - c)
        z = w * (x - c)
        return float(np.sum(a * w**2 * (z**2 - 1) * np.exp(-(z**2) / 2)) ** 2)

    wanted = sum(quad(bend, low, low + 1, epsrel=1e-12)[0] for low in range(-3, 3))
    assert curvature_integral(phi.phi, p).item() == pytest.approx(wanted, rel=1e-8)


def test_the_roughness_of_a_spline_is_exact() -> None:
    phi = made("bspline", degree=3)
    p = phi.parameters_in_force().double()
    a, t = p.amplitude.detach().numpy(), p.grid.detach().numpy()
    second = BSpline(np.r_[[t[0]] * 3, t, [t[-1]] * 3], a, 3).derivative(2)
    # phi'' is a line on each piece, so that Simpson's rule is exact for its square
    ends = np.stack([t[:-1] + 1e-12, (t[:-1] + t[1:]) / 2, t[1:] - 1e-12])
    wanted = (second(ends) ** 2 * [[1], [4], [1]]).sum(0) @ np.diff(t) / 6
    assert curvature_integral(phi.phi, p).item() == pytest.approx(wanted, rel=1e-8)


@pytest.mark.parametrize("family", ["sinc", "wendland", "rational", "matern", "fourier", "tanh"])
def test_the_roughness_is_that_of_second_differences(family: str) -> None:
    phi = made(family)
    p = phi.parameters_in_force().double()
    edges = {-3.0, 3.0, *(b for b in phi.phi.breakpoints(p).tolist() if abs(b) < 3)}
    wanted, h = 0.0, 1e-4
    with torch.no_grad():
        for low, high in zip(sorted(edges), sorted(edges)[1:], strict=False):
            nodes, weights = np.polynomial.legendre.leggauss(200)
            half = (high - low) / 2 - h
            x = torch.from_numpy((low + high) / 2 + half * nodes)
            y = [phi.phi(x + step, p) for step in (-h, 0.0, h)]
            bend = ((y[0] - 2 * y[1] + y[2]) / h**2).numpy()
            wanted += (bend**2) @ weights * (high - low) / 2
    assert curvature_integral(phi.phi, p).item() == pytest.approx(wanted, rel=2e-3)


def test_copies_of_a_phi_are_integrated_at_once() -> None:
    phi = made("sinc")
    one = phi.parameters_in_force().double()
    several = type(one)(*(torch.stack([each, 2 * each]) for each in one))
    several = several._replace(
        grid=torch.stack([one.grid] * 2), bandwidth=torch.stack([one.bandwidth] * 2)
    )
    first, second = curvature_integral(phi.phi, several)
    assert first.item() == pytest.approx(curvature_integral(phi.phi, one).item())
    assert second.item() == pytest.approx(4 * first.item())


def test_values_are_means_over_layers_of_what_numpy_finds() -> None:
    model = adapted()
    found = penalties.penalty_values(model, NAMES)
    each: dict[str, list[float]] = {name: [] for name in NAMES}
    for layer in layers(model):
        b, a = (t["default"].detach().double().numpy() for t in (layer.basis_B, layer.basis_A))
        phi = layer.basis_phi["default"]
        of_a, of_b = a @ a.T - np.eye(3), b.T @ b - np.eye(3)
        each["orthogonality"].append((of_a**2).sum() + (of_b**2).sum())
        each["amplitude_l1"].append(phi.amplitude.abs().sum().item())
        s = np.linalg.svd(phi(torch.from_numpy(b @ a)).detach().numpy(), compute_uv=False)
        each["stable_rank"].append((s**2).sum() / s[0] ** 2)
        p = phi.parameters_in_force().double()
        each["roughness"].append(curvature_integral(phi.phi, p).item())
    for name, values in each.items():
        rel = 2e-2 if name == "stable_rank" else 1e-5
        assert found[name].item() == pytest.approx(np.mean(values), rel=rel), name
        assert found[name].dtype == torch.float32 and found[name].shape == ()
    weights = dict(zip(NAMES, (0.1, 2.0, 3.0, 0.5), strict=True))
    wanted = sum(weights[name] * value.item() for name, value in found.items())
    assert adapters.penalty_loss(model, weights).item() == pytest.approx(wanted)
    assert adapters.penalty_loss(model, {}).item() == 0


@pytest.mark.parametrize("seed", range(4))
def test_the_stable_rank_is_never_too_small_and_seldom_much_too_large(seed: int) -> None:
    matrix = torch.randn(40, 25, generator=torch.Generator().manual_seed(seed))
    s = np.linalg.svd(matrix.numpy(), compute_uv=False)
    exact = float((s**2).sum() / s[0] ** 2)
    assert exact * (1 - 1e-5) <= stable_rank_by_power(matrix).item() <= 1.05 * exact
    assert stable_rank_by_power(1e-30 * matrix).item() == pytest.approx(
        stable_rank_by_power(matrix).item(), rel=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_differences(name: str) -> None:
    model = adapted(grid="learned")
    adapters.penalty_loss(model, {name: 1.0}).backward()
    trained = [p for p in model.parameters() if p.requires_grad and p.grad is not None]
    torch.manual_seed(1)
    ways = [torch.randn_like(p) for p in trained]
    wanted = sum((p.grad * way).sum().item() for p, way in zip(trained, ways, strict=True))

    def moved(by: float) -> float:
        with torch.no_grad():
            for p, way in zip(trained, ways, strict=True):
                p.add_(way, alpha=by)
            value = adapters.penalty_loss(model, {name: 1.0}).item()
            for p, way in zip(trained, ways, strict=True):
                p.sub_(way, alpha=by)
        return value

    h = 1e-3
    assert abs(wanted) > 1e-3
    assert (moved(h) - moved(-h)) / (2 * h) == pytest.approx(wanted, rel=3e-2)


@pytest.mark.parametrize("name", NAMES)
def test_a_penalty_lowers_what_it_penalises(name: str) -> None:
    model = adapted()
    x, y = torch.randn(32, 12), torch.randn(32, 9)
    optimizer = torch.optim.AdamW(adapters.parameter_groups(model, 1e-2))
    before = penalties.penalty_values(model, [name])[name].item()
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean() + adapters.penalty_loss(model, {name: 1.0})
        loss.backward()
        optimizer.step()
    assert penalties.penalty_values(model, [name])[name].item() < 0.9 * before


def test_autocast_and_an_earlier_backward_pass_change_nothing() -> None:
    model = adapted()
    plain = {name: value.item() for name, value in penalties.penalty_values(model, NAMES).items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(4, 12)).sum().backward()
        values = penalties.penalty_values(model, NAMES)
    sum(values.values()).backward()
    assert {name: value.item() for name, value in values.items()} == pytest.approx(plain, rel=1e-6)


def test_an_update_of_zero_has_rank_zero_and_no_gradient() -> None:
    model = get_peft_model(Two(), BasisConfig(target_modules=["first"]))
    value = penalties.penalty_values(model, ["stable_rank"])["stable_rank"]
    value.backward()
    assert value.item() == 0
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(grad.isfinite().all() and not grad.any() for grad in grads)


def test_what_cannot_be_penalised_is_refused_by_name() -> None:
    for name, options, why in (
        ("roughnes", {}, "Did you mean 'roughness'"),
        ("roughness", {"basis": "hat"}, "its functions have kinks or jumps"),
        ("amplitude_l1", {"train_amplitude": False, "linear": True}, "no trained amplitudes"),
    ):
        with pytest.raises(ValueError, match=why):
            adapters.penalty_loss(adapted(**options), {name: 1.0})
    with pytest.raises(ValueError, match=r"'stable_rank' cannot be computed.*no update"):
        adapters.penalty_loss(Two(), {"stable_rank": 1.0})
    model = adapted()
    model.add_adapter("other", BasisConfig(target_modules=["first", "second"], r=3))
    model.base_model.add_weighted_adapter(["default", "other"], [1.0, 1.0], "sum")
    model.base_model.set_adapter("sum")
    with pytest.raises(ValueError, match="'sum' is a weighted sum, which has no φ of its own"):
        adapters.penalty_loss(model, {"stable_rank": 1.0})
    with pytest.raises(ValueError, match=r"unknown need 'factor'\. Did you mean 'factors'"):
        register_penalty("mine", need="factor")


def test_one_of_your_own_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties._PENALTIES, "_members", dict(penalties._PENALTIES._members))
    monkeypatch.setattr(penalties._PENALTIES, "_foreign", set())

    @register_penalty("size_of_b", need="factors")
    def size_of_b(places):
        return [layer.basis_B[adapter].square().sum() for layer, adapter in places]

    assert isinstance(penalties.get_penalty("size_of_b"), Penalty)
    model = adapted()
    wanted = np.mean([layer.basis_B["default"].square().sum().item() for layer in layers(model)])
    assert math.isclose(adapters.penalty_loss(model, {"size_of_b": 1}).item(), wanted, rel_tol=1e-5)
