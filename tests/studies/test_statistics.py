import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from studies.engine.verdicts.statistics import compare, compare_arms, holm, summarize


def test_the_interval_by_hand():
    # mean 0.82, s = 0.02, t(2, 0.975) = 4.302653: 0.82 -+ 4.302653 * 0.02 / sqrt(3)
    found = summarize([0.80, 0.82, 0.84])
    assert found.mean == pytest.approx(0.82)
    assert found.std == pytest.approx(0.02)
    assert (found.low, found.high) == pytest.approx((0.7703172, 0.8696828), abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_interval_and_test_agree_with_two_libraries(n):
    rng = np.random.default_rng(n)
    arm, base = rng.normal(0.8, 0.02, n), rng.normal(0.78, 0.02, n)
    found = compare(dict(enumerate(arm)), dict(enumerate(base)))
    oracle = DescrStatsW(arm - base)
    assert (found.low, found.high) == pytest.approx(oracle.tconfint_mean())
    assert found.difference == pytest.approx(oracle.mean)
    assert found.p == pytest.approx(oracle.ttest_mean()[1])
    assert found.p == pytest.approx(stats.ttest_rel(arm, base).pvalue)


@pytest.mark.slow
@pytest.mark.parametrize(
    "m", [0, 2, *(pytest.param(m, marks=pytest.mark.thorough) for m in (1, 7, 30))]
)
def test_holm_agrees_with_statsmodels(m):
    rng = np.random.default_rng(m)
    for _ in range(3):  # the oracle collects garbage at every call: slow
        p = [*rng.beta(0.3, 1, m), 0.0, 1.0, 0.5, 0.5][: m + 4 * (m % 2)]  # with ties and ends
        want = multipletests(p, method="holm")[1] if p else []
        assert holm(p) == pytest.approx(list(want))


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


def test_pairs_are_matched_by_seed_not_by_place():
    found = compare({2: 0.9, 0: 0.7, 1: 0.8}, {0: 0.6, 1: 0.75, 2: 0.8, 9: 0.1})
    assert found.seeds == (0, 1, 2)
    assert found.difference == pytest.approx(0.25 / 3)


def test_holm_counts_only_the_arms_that_were_tested():
    base = {0: 0.70, 1: 0.72, 2: 0.74}
    a = {0: 0.75, 1: 0.78, 2: 0.78}
    found = compare_arms({"lora": base, "a": a, "one seed": {0: 0.9}, "none": {}}, "lora")
    assert list(found) == ["a", "one seed", "none"]
    assert found["a"].p_holm == found["a"].p
    assert found["one seed"].p_holm is None


def test_more_arms_make_a_finding_harder():
    base = {s: 0.7 + 0.01 * s for s in range(5)}
    a = {s: v + 0.05 + 0.01 * (s % 2) for s, v in base.items()}
    b = {s: v + 0.02 * (-1) ** s for s, v in base.items()}
    alone = compare_arms({"lora": base, "a": a}, "lora")["a"]
    beside = compare_arms({"lora": base, "a": a, "b": b}, "lora")["a"]
    assert beside.p == alone.p
    assert beside.p_holm == pytest.approx(2 * alone.p)


@pytest.mark.parametrize(
    ("arm", "base", "note"),
    [
        ({}, {0: 0.5}, "no seed in common"),
        ({1: 0.5}, {0: 0.5}, "no seed in common"),
        ({0: 0.5}, {0: 0.4}, "one seed in common"),
        ({0: 0.5, 1: 0.6}, {0: 0.5, 1: 0.6}, "same for every seed"),
        ({0: 0.81, 1: 0.71, 2: 0.61}, {0: 0.8, 1: 0.7, 2: 0.6}, "same for every seed"),
    ],
)
def test_what_cannot_be_tested_says_why(arm, base, note):
    found = compare(arm, base)
    assert found.p is None and found.low is None
    assert note in found.note
    assert found.words("maximize").startswith("not testable: ")


def test_the_rounding_of_two_accuracies_is_no_spread():
    right = [30082, 30059, 30316, 30247, 30601]  # of 40,000 rows, and one row more on every seed
    base = {seed: k / 40_000 for seed, k in enumerate(right)}
    found = compare({seed: (k + 1) / 40_000 for seed, k in enumerate(right)}, base)
    assert found.p is None and "same for every seed" in found.note
    assert found.difference == pytest.approx(1 / 40_000)


def test_one_seed_and_no_variance_have_no_interval():
    assert (summarize([0.7]).mean, summarize([0.7]).low) == (0.7, None)
    stuck = summarize([0.48, 0.48, 0.48])
    assert (stuck.mean, stuck.low, stuck.std) == (0.48, None, 0.0)
    assert summarize([]).mean is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        summarize([0.5, bad])


def test_a_large_p_is_never_called_equal():
    near = compare({0: 0.70, 1: 0.72, 2: 0.71}, {0: 0.71, 1: 0.71, 2: 0.72})
    assert near.words("maximize") == "no evidence of a difference"


def test_direction_decides_what_better_means():
    base = {s: 0.7 + 0.001 * s for s in range(5)}
    above = compare({s: v + 0.1 + 0.001 * (s % 2) for s, v in base.items()}, base)
    assert above.words("maximize") == "better"
    assert above.words("minimize") == "worse"
