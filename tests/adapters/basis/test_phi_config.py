"""The options of phi are those of the adapter's settings, as one value."""

import dataclasses

import pytest

from adapters import BasisConfig
from adapters.basis.phi_config import PHI_OPTIONS


def test_it_holds_what_the_settings_say():
    config = BasisConfig(basis="gaussian_rbf", num_basis=7, interval=[-1, 1], linear=True)
    assert {name: getattr(config, name) for name in PHI_OPTIONS} == dataclasses.asdict(config.phi)
    config.num_basis = 9  # settings may change until a layer is made
    assert config.phi.build_nonlinearity().amplitude.shape == (9,)


def test_settings_that_mean_the_same_phi_are_equal():
    assert BasisConfig(r=2, interval=(-3, 3)).phi == BasisConfig(r=8, interval=[-3.0, 3.0]).phi
    assert BasisConfig(num_basis=8).phi != BasisConfig(num_basis=9).phi


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_basis": "8"}, "`num_basis` must be int, got '8'"),
        ({"interval": (-1.0, 0.0, 1.0)}, "`interval` must be two ends"),
        ({"b_std": 0.0}, "`b_std` must be positive, got 0.0"),
    ],
)
def test_a_wrong_value_is_refused_wherever_it_stands(options, said):
    for given in (options, {"phi_pattern": {"query": options}}):
        with pytest.raises(ValueError, match=said):
            BasisConfig(**given)
