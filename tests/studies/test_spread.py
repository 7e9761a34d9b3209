"""Spreads against numpy and scipy, and their uncertainty against simulated studies."""

import math

import numpy as np
import pytest
from scipy import stats

from studies.engine.verdicts.spread import Spread, pooled


def _values(rng, arms, seeds):
    names = ["lora", *(f"a{i}" for i in range(arms))]
    return {name: dict(enumerate(rng.normal(size=seeds))) for name in names}


def test_the_interval_is_that_of_a_standard_deviation():
    x = np.random.default_rng(0).normal(size=7)
    low, high = Spread(float(x.std(ddof=1)), 6).interval
    quantiles = stats.chi2.ppf([0.975, 0.025], 6)
    assert (low, high) == pytest.approx(np.sqrt(((x - x.mean()) ** 2).sum() / quantiles))
    assert Spread(0.006).interval is None


def test_one_arm_is_its_own_spread():
    values = {"lora": {0: 0.70, 1: 0.72, 2: 0.71}, "a": {0: 0.72, 1: 0.73, 2: 0.745, 3: 0.1}}
    found = pooled(values, "lora")
    assert found.value == pytest.approx(np.std([0.02, 0.01, 0.035], ddof=1))
    assert found.freedom == pytest.approx(2)
    assert found.source == "of a minus lora, 3 seeds"


def test_arms_are_pooled_by_their_degrees_of_freedom():
    values = _values(np.random.default_rng(1), 2, 6)
    del values["a1"][5], values["a1"][4]
    found = pooled(values, "lora")
    variances = [
        np.var([values[arm][s] - values["lora"][s] for s in range(n)], ddof=1)
        for arm, n in (("a0", 6), ("a1", 4))
    ]
    assert found.value == pytest.approx(math.sqrt((5 * variances[0] + 3 * variances[1]) / 8))
    assert found.freedom == pytest.approx(8**2 / (8 + 2 * 3 / 4))
    assert "2 arms to lora, 4 to 6 seeds" in found.source


@pytest.mark.parametrize(("arms", "seeds"), [(1, 5), (3, 4), (8, 5)])
def test_the_pooled_spread_is_as_uncertain_as_it_says(arms, seeds):
    rng, inside, values = np.random.default_rng(arms), 0, []
    for _ in range(2000):
        found = pooled(_values(rng, arms, seeds), "lora")
        low, high = found.interval
        inside += low <= math.sqrt(2) <= high
        values.append(found.value**2)
    # the variance of s² is 2 σ⁴ / ν
    assert 2 * 4 / np.var(values) == pytest.approx(found.freedom, rel=0.15)
    assert 0.93 < inside / 2000 < 0.97


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"lora": {0: 0.5, 1: 0.6}},
        {"a": {0: 0.5, 1: 0.6}},
        {"lora": {0: 0.5, 1: 0.6}, "a": {0: 0.7}},
        {"lora": {0: 0.5, 1: 0.6}, "a": {0: 0.6, 1: 0.7}},
    ],
)
def test_there_may_be_no_spread(values):
    assert pooled(values, "lora") is None
