"""Settings from which nothing would be trained are refused."""

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


@pytest.mark.parametrize("bandwidth", [1e38, 1e-45])
def test_a_bandwidth_that_float32_cannot_hold_is_refused(bandwidth):
    with pytest.raises(ValueError, match="`bandwidth` must be from"):
        BasisConfig(target_modules=["q"], bandwidth=bandwidth)
