"""phi as a value: extrapolation, anchoring, breakpoints, smoothness."""

import math

import pytest
import torch

from basis_zoo import Nonlinearity, get_basis, get_grid, get_start
from basis_zoo.phi import EXTRAPOLATIONS, Phi, stack_parameters


def make(basis: str, extrapolation: str | None = None, start: str = "random", **options):
    module = Nonlinearity(
        get_basis(basis, num_basis=12, **options),
        get_grid("uniform"),
        get_start(start, **({"seed": 0} if start == "random" else {})),
        bandwidth="spacing",
        extrapolation=extrapolation,
    )
    return module.phi, module.parameters_in_force().double()


def test_the_rule_is_the_familys_own_unless_told_otherwise() -> None:
    assert make("chebyshev")[0].extrapolation == "clamp"
    assert make("sinc")[0].extrapolation == "exact"
    assert make("chebyshev", "linear")[0].extrapolation == "linear"
    assert Phi(get_basis("chebyshev")).extrapolation == "exact"


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="Did you mean 'clamp'"):
        Phi(get_basis("sinc"), extrapolation="clmp")


@pytest.mark.parametrize("basis", ["chebyshev", "bspline", "sinc", "hat"])
def test_linear_goes_on_with_the_slope_at_the_end(basis: str) -> None:
    phi, p = make(basis, "linear")
    inner = torch.tensor([-3 + 3e-4, 3 - 3e-4], dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(phi(inner, p).sum(), inner)[0]
    end = torch.tensor([-3.0, 3.0], dtype=torch.float64)
    far = torch.tensor([-7.0, 7.0], dtype=torch.float64, requires_grad=True)
    y = phi(far, p)
    want = phi(end, p) + slope * (far - end)
    torch.testing.assert_close(y, want, rtol=2e-2, atol=1e-3)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), far)[0], slope, rtol=2e-2, atol=1e-3)


def test_clamp_gives_no_gradient_outside() -> None:
    phi, p = make("chebyshev", "clamp")
    x = torch.tensor([-5.0, 0.4, 5.0], dtype=torch.float64, requires_grad=True)
    grad = torch.autograd.grad(phi(x, p).sum(), x)[0]
    assert grad[0] == 0 and grad[2] == 0 and grad[1] != 0


def test_the_line_goes_on_under_every_rule() -> None:
    for rule in EXTRAPOLATIONS:
        phi, p = make("sinc", rule, start="constant")
        p = p._replace(amplitude=p.amplitude * 0, slope=p.slope + 2, offset=p.offset + 1)
        x = torch.tensor([-9.0, 0.0, 9.0], dtype=torch.float64)
        torch.testing.assert_close(phi(x, p), 2 * x + 1)


@pytest.mark.parametrize("rule", EXTRAPOLATIONS)
def test_anchored_phi_is_zero_at_zero(rule: str) -> None:
    phi, p = make("hat", rule)
    anchored = Phi(phi.basis, anchored=True, extrapolation=rule)
    assert anchored(torch.zeros(4).double(), p).abs().max() == 0


@pytest.mark.parametrize("rule", EXTRAPOLATIONS)
@pytest.mark.parametrize("basis", ["chebyshev", "bspline", "hat"])
def test_kinks_that_a_rule_makes_are_breakpoints(basis: str, rule: str) -> None:
    phi, p = make(basis, rule)
    points = set(phi.breakpoints(p).tolist())
    own = set(phi.basis.breakpoints(p.grid, p.bandwidth).tolist())
    ends = {-3.0, 3.0}
    assert own <= points
    if rule == "exact":
        assert points == own
    elif rule == "periodic":
        assert points >= {k + 6 * n for k in own | ends for n in (-2, -1, 0, 1, 2)}
    else:
        assert points == own | ends


@pytest.mark.parametrize("rule", EXTRAPOLATIONS)
def test_smooth_says_where(rule: str) -> None:
    phi, _ = make("fourier", rule)
    assert phi.smooth == (rule == "exact")
    assert phi.smooth_within(2.9)
    assert phi.smooth_within(3.1) == (rule == "exact")
    assert not make("hat", rule)[0].smooth_within(0.1)
    assert phi.smooth == phi.smooth_within(math.inf)


def test_stacked_phis_extrapolate_each_with_its_own_numbers() -> None:
    phi, p = make("bspline", "linear")
    q = p._replace(amplitude=p.amplitude.flip(0))
    x = torch.linspace(-6, 6, 21, dtype=torch.float64)
    both = phi(torch.stack([x, x]), stack_parameters([p, q]))
    torch.testing.assert_close(both, torch.stack([phi(x, p), phi(x, q)]))
    points = phi.breakpoints(stack_parameters([p, q]))
    assert points.shape == (2, *phi.breakpoints(p).shape)


def test_phi_prints_what_differs_from_the_defaults() -> None:
    phi = Phi(get_basis("bspline", degree=2), anchored=True, extrapolation="linear")
    assert str(phi) == "bspline(degree=2), linear, anchored"
