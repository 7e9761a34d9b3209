"""What float32 cannot hold, or what can never learn, is refused when it is made."""

import pytest
import torch

from basis_zoo import InputScale, Nonlinearity, get_basis, get_grid, get_start


def make(basis: str = "sinc", start: str = "anchored", **options) -> Nonlinearity:
    own = options.pop("basis_options", {})
    started = get_start(start, **options.pop("start_options", {}))
    return Nonlinearity(get_basis(basis, **own), get_grid("uniform"), started, **options)


@pytest.mark.parametrize("bandwidth", [1e38, 1e20, 3e6, 1e-6, 1e-45])
@pytest.mark.parametrize("basis", ["sinc", "sine"])
def test_bandwidths_of_spikes_and_of_constants_are_refused(basis, bandwidth):
    """1e38 gave NaN, 1e-45 became 0."""
    with pytest.raises(ValueError, match=r"`bandwidth` must be from 2\.5e-06 to 2\.8e\+06.*got"):
        make(basis, bandwidth=bandwidth)


@pytest.mark.parametrize("bandwidth", [1e-5, 1.0, 1e6, "spacing"])
def test_every_other_bandwidth_gives_finite_numbers(bandwidth):
    module = make(start="random", bandwidth=bandwidth)
    x = torch.tensor([-3.0, -1e-4, 0.0, 0.37, 3.0, 40.0], requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert all(t.isfinite().all() for t in (y, x.grad, *[p.grad for p in module.parameters()]))


def test_refitting_a_grid_refuses_them_too():
    with pytest.raises(ValueError, match="`bandwidth` must be from"):
        make().refit_grid(torch.zeros(3), bandwidth=1e20)


@pytest.mark.parametrize(
    ("interval", "message"),
    [
        ((1e6, 1e6 + 1), "too far from 0 for 50 functions"),
        ((-1e31, 1e31), "from 1e-30 to 1e30"),
        ((0.0, 1e-31), "from 1e-30 to 1e30"),
    ],
)
def test_intervals_that_float32_cannot_divide_are_refused(interval, message):
    with pytest.raises(ValueError, match=message):
        get_basis("hat", num_basis=50, interval=interval)


@pytest.mark.parametrize("interval", [(-1e-29, 1e-29), (-1e29, 1e29), (99.0, 101.0)])
def test_other_intervals_keep_their_points_apart(interval):
    module = make("hat", basis_options={"num_basis": 50, "interval": interval})
    assert (module.grid.diff() > 0).all()


@pytest.mark.parametrize(
    ("start", "options", "message"),
    [
        ("constant", {"value": 1e39}, "finite in float32"),
        ("constant", {"value": float("nan")}, "finite in float32"),
        ("constant", {"value": 1e-46}, "not vanish in float32"),
        ("random", {"scale": 1e39, "seed": 0}, "finite in float32"),
        ("random", {"scale": 1e-50, "seed": 0}, "not vanish in float32"),
    ],
)
def test_amplitudes_that_float32_cannot_hold_are_refused(start, options, message):
    with pytest.raises(ValueError, match=f"`amplitude` must (be )?{message}"):
        make(start=start, start_options=options)


@pytest.mark.parametrize("value", [1e39, 1e-46, float("inf")])
def test_input_scales_that_float32_cannot_hold_are_refused(value):
    with pytest.raises(ValueError, match="float32"):
        InputScale("learned", value)


@pytest.mark.parametrize(
    "basis", ["polynomial", "chebyshev", "legendre", "fourier", "haar", "walsh"]
)
def test_one_constant_function_cannot_be_anchored(basis):
    """phi(x) - phi(0) of a constant is 0, whatever its amplitude."""
    one = {"num_basis": 1}
    with pytest.raises(ValueError, match=r"can never change: with start 'anchored'.*Take more"):
        make(basis, basis_options=one)
    assert make(basis, basis_options=one, linear=True).learns_at(torch.tensor([0.5]))
    assert make(basis, "small", basis_options=one).learns_at(torch.tensor([0.0]))
    assert make(basis, basis_options={"num_basis": 2}).learns_at(torch.tensor([0.5, -0.5]))


def test_zero_amplitudes_that_are_not_trained_are_refused():
    with pytest.raises(ValueError, match="can never change"):
        make(train_amplitude=False)
    fixed = make(start="constant", train_amplitude=False, train_bandwidth=False)
    assert fixed.learns_at(torch.tensor([0.3]))  # B and A do


def test_what_learns_is_asked_at_given_points():
    module = make("haar", "random", basis_options={"num_basis": 8})
    assert not module.learns_at(torch.zeros(1))  # where B is zero
    assert module.learns_at(torch.tensor([1.0]))
    with torch.inference_mode():
        assert make().learns_at(torch.ones(1))
    assert module.to("meta").learns_at(torch.zeros(1))


def test_a_start_fits_the_numbers_that_are_stored():
    """The residual is that of the points and widths as float32 holds them."""
    for grid in ("uniform", "learned"):
        basis = get_basis("gaussian_rbf", num_basis=20, interval=(50.0, 50.5))
        start = get_start("identity", tolerance=10.0)
        module = Nonlinearity(basis, get_grid(grid), start, bandwidth="spacing")
        x = torch.linspace(50.0, 50.5, 1001, dtype=torch.float64)
        error = (module(x) - x).abs().max().item()
        assert error == pytest.approx(module.start_residual, rel=1e-6)
