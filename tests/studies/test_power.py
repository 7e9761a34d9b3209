"""Power against statsmodels, and its inverses against itself."""

import math

import pytest
from statsmodels.stats.power import TTestPower

from studies.engine.reporting.power import detectable, power, seeds_needed

LEVELS = (0.05, 0.05 / 3, 0.0017)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n", [2, 3, 5, 10, 40, 160])
@pytest.mark.parametrize("effect", [-0.3, 0.0, 0.2, 1.0, 2.0])
def test_power_is_statsmodels(n, effect, level):
    wanted = TTestPower().power(effect, n, level, alternative="larger")
    assert power(n, effect, level) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("effect", [0.1, 0.5, 1.5, 5.0])
def test_seeds_needed_are_the_fewest(effect, level):
    n = seeds_needed(effect, level)
    assert power(n, effect, level) >= 0.8 > power(n - 1, effect, level)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_what_is_detectable_is_found(n):
    effect = detectable(n, 0.05)
    assert power(n, effect, 0.05) == pytest.approx(0.8, abs=1e-6)
    wanted = TTestPower().solve_power(None, n, 0.05, 0.8, alternative="larger")
    assert effect == pytest.approx(wanted, rel=1e-4)


def test_of_no_effect_and_of_one_seed():
    assert seeds_needed(0.0, 0.05) is None
    assert seeds_needed(1e-6, 0.05) is None
    assert detectable(1, 0.05) == math.inf
    assert power(1, 9.0, 0.05) == 0.0


def test_large_effects_stay_finite():
    assert power(1000, 40.0, 0.05) == pytest.approx(1.0)
    assert power(1000, -40.0, 0.05) == pytest.approx(0.0)
