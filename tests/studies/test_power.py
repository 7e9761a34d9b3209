"""Power against statsmodels, scipy and simulated studies, and its inverses against itself."""

import math

import numpy as np
import pytest
from scipy import integrate, stats
from statsmodels.stats.power import TTestPower

from studies.engine.verdicts.power import (
    boundable,
    detectable,
    power,
    power_of_bound,
    seeds_needed,
    seeds_to_bound,
)

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


def _tost(n, margin, level):
    """The same by adaptive quadrature over the chi-square distribution."""
    t = stats.t.ppf(1 - level, n - 1)

    def inside(q):
        u = np.sqrt(q / (n - 1))
        both = 2 * stats.norm.cdf(np.sqrt(n) * margin - t * u) - 1
        return max(both, 0.0) * stats.chi2.pdf(q, n - 1)

    top = (n - 1) * (np.sqrt(n) * margin / t) ** 2
    middle = [q for q in stats.chi2.ppf([0.01, 0.5, 0.99], n - 1) if q < top]
    return integrate.quad(inside, 0, min(top, stats.chi2.isf(1e-14, n - 1)), points=middle)[0]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n", [3, 5, 10, 40, 160])
@pytest.mark.parametrize("margin", [0.2, 1.0, 2.0])
def test_power_of_a_bound_is_the_integral(n, margin, level):
    assert power_of_bound(n, margin, level) == pytest.approx(_tost(n, margin, level), abs=1e-7)


@pytest.mark.parametrize(("n", "margin"), [(2, 9.0), (5, 2.0), (20, 0.8), (40, 0.5)])
def test_power_of_a_bound_is_the_share_of_studies(n, margin):
    d = np.random.default_rng(n).normal(size=(40_000, n))
    above = stats.ttest_1samp(d, -margin, axis=1, alternative="greater").pvalue
    below = stats.ttest_1samp(d, margin, axis=1, alternative="less").pvalue
    share = float(np.mean(np.maximum(above, below) <= 0.05))
    error = 4 * np.sqrt(share * (1 - share) / len(d))
    assert power_of_bound(n, margin, 0.05) == pytest.approx(share, abs=error)


def test_power_of_a_bound_is_that_of_two_tests_where_they_exclude_each_other():
    both = 2 * power(40, 0.6, 0.05) - 1  # of 40 seeds hardly any study lets both tests fail
    assert power_of_bound(40, 0.6, 0.05) == pytest.approx(both, abs=1e-6)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("margin", [0.1, 0.5, 2.0, 6.0])
def test_seeds_to_bound_are_the_fewest(margin, level):
    n = seeds_to_bound(margin, level)
    assert power_of_bound(n, margin, level) >= 0.8 > power_of_bound(n - 1, margin, level)
    assert boundable(n, level) <= margin < boundable(n - 1, level)


def test_nothing_is_bounded_by_nothing():
    assert seeds_to_bound(0.0, 0.05) is None
    assert seeds_to_bound(1e-6, 0.05) is None
    assert boundable(1, 0.05) == math.inf
    assert power_of_bound(1, 9.0, 0.05) == 0.0
