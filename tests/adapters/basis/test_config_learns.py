"""Settings from which nothing would be trained, or that change the model before, are refused."""

import pytest

from adapters import BasisConfig


@pytest.mark.parametrize(
    "options",
    [
        {"basis": "haar", "start": "random"},
        {"basis": "sine", "num_basis": 1, "start": "paper"},
        {"basis": "walsh", "start": "anchored", "phi_pattern": {"q": {"start": "random"}}},
    ],
)
def test_a_start_with_zero_b_and_no_gradient_there_is_refused(options):
    with pytest.raises(ValueError, match=r"nothing would be trained\. Take start 'anchored'"):
        BasisConfig(target_modules=["q"], **options)


@pytest.mark.parametrize(
    "options",
    [
        {"basis": "haar", "start": "anchored"},
        {"basis": "haar", "start": "random", "linear": True},
        {"basis": "sine", "num_basis": 1, "start": "constant"},
        {"basis": "sinc", "start": "paper"},
        {"basis": "sinc", "start": "random"},
    ],
)
def test_what_learns_is_taken(options):
    BasisConfig(target_modules=["q"], **options)


@pytest.mark.parametrize("start", ["anchored", "small"])
def test_a_random_b_needs_a_phi_that_is_zero(start):
    """sinter is x where its amplitudes are zero."""
    with pytest.raises(ValueError, match=r"'sinter'.*is not zero.*Take start 'identity'"):
        BasisConfig(target_modules=["q"], basis="sinter", num_basis=1, start=start)
    BasisConfig(target_modules=["q"], basis="sinter", num_basis=1, start="identity")


@pytest.mark.parametrize("bandwidth", [1e38, 1e-45])
def test_a_bandwidth_that_float32_cannot_hold_is_refused(bandwidth):
    with pytest.raises(ValueError, match="`bandwidth` must be from"):
        BasisConfig(target_modules=["q"], bandwidth=bandwidth)
