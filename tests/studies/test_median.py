"""Claims about medians: the sign test, its interval, and what a collapsed run does to it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from studies.engine.definition.study import ClaimRule
from studies.engine.records import Cost, Result
from studies.engine.verdicts import sign_power
from studies.engine.verdicts.claims import judge
from studies.engine.verdicts.median import Median

NUMBERS = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=40)


@given(NUMBERS, st.integers(-6, 6))
def test_p_is_that_of_scipys_test_of_a_quantile(values: list[float], center: int) -> None:
    median = Median.of(values)
    above, below = (
        stats.quantile_test(values, q=center, p=0.5, alternative=which).pvalue
        for which in ("greater", "less")
    )
    # scipy gives numbers that equal `center` to the hypothesis as well
    assert median.p_above(center) == pytest.approx(above, abs=1e-12)
    assert median.p_below(center) == pytest.approx(below, abs=1e-12)


@given(NUMBERS, st.sampled_from([0.25, 0.1, 0.025, 0.001]))
def test_the_interval_is_what_the_tests_do_not_rule_out(values: list[float], level: float) -> None:
    median = Median.of(values)
    low, high = median.interval(level)
    if math.isinf(low):
        assert 0.5 ** len(values) > level
        return
    assert low <= median.center <= high
    for end, p, inwards in ((low, median.p_above, 1), (high, median.p_below, -1)):
        assert p(end) > level
        assert p(end - inwards * 1e-6) <= level


def test_it_errs_no_more_than_its_level_whatever_the_distribution() -> None:
    rng, level, n = np.random.default_rng(1), 0.05, 20
    for draw in (rng.normal, rng.exponential, rng.standard_cauchy):
        samples = draw(size=(2000, n))
        true = math.log(2) if draw == rng.exponential else 0.0
        ps = np.array([[m.p_above(true), m.p_below(true)] for m in map(Median.of, samples)])
        assert (ps <= level).mean(0).max() < level  # it is discrete: 0.021 at 20 seeds
        assert (ps <= level).mean(0).min() > 0.01


def test_numbers_that_equal_the_margin_but_for_rounding_speak_for_neither_side() -> None:
    resolution = [0.85 - 0.845, 0.005, 0.705 - 0.7]
    assert len(set(resolution)) > 1
    median = Median.of(resolution)
    assert median.p_above(0.005) == median.p_below(0.005) == 1.0


@pytest.mark.parametrize("n", [3, 4, 5, 8, 12, 40])
def test_of_normal_numbers_the_spread_is_their_standard_deviation(n: int) -> None:
    samples = np.random.default_rng(n).normal(3.0, 2.0, (8_000, n))
    assert np.mean([Median.of(s).spread for s in samples]) == pytest.approx(2.0, rel=0.03)


@pytest.mark.parametrize(("q", "level"), [(0.9, 0.0067), (0.95, 1e-4), (0.7, 0.05), (0.6, 0.01)])
def test_so_many_seeds_are_needed_as_decide_in_most_studies(q: float, level: float) -> None:
    n = sign_power.seeds_for(q, level)
    assert n is not None

    def power(n: int) -> float:
        counts = np.arange(n + 1)
        decides = stats.binom.sf(counts - 1, n, 0.5) <= level
        return float(stats.binom.pmf(counts, n, q)[decides].sum())

    assert power(n) >= 0.8 > max(map(power, range(1, n)))


def test_what_is_found_and_bounded_with_so_many_seeds() -> None:
    rng, n, level = np.random.default_rng(2), 30, 0.01
    found, bound = sign_power.detectable(n, level), sign_power.boundable(n, level)
    shifted = [Median.of(x) for x in rng.normal(found, 1.0, (2_000, n))]
    assert np.mean([m.p_above(0.0) <= level for m in shifted]) == pytest.approx(0.8, abs=0.03)
    still = [Median.of(x) for x in rng.normal(0.0, 1.0, (2_000, n))]
    inside = [max(m.p_above(-bound), m.p_below(bound)) <= level for m in still]
    assert 0.78 < np.mean(inside) < 0.84
    assert sign_power.seeds_to_bound(bound * 1.001, level) == n
    assert sign_power.seeds_needed(found * 1.001, level) <= n
    few = sign_power.fewest(level)
    assert sign_power.detectable(few - 1, level) == sign_power.boundable(few - 1, level) == math.inf
    assert math.isfinite(sign_power.detectable(few, level))
    assert sign_power.seeds_needed(0.0, level) is None
    assert sign_power.seeds_to_bound(0.0, level) is None


SEEDS = 20
COST = Cost(trainable_parameters=1, adapter_parameters=1, phi_parameters=1, total_parameters=1,
            train_seconds=1, step_seconds=1, peak_memory_bytes=1)  # fmt: skip


def results(**arms: list[float]) -> dict[str, dict[int, Result]]:
    return {
        arm: {
            seed: Result(key="k", status="done", metrics={"test/accuracy": value}, cost=COST)
            for seed, value in enumerate(values)
        }
        for arm, values in arms.items()
    }


def claim(**fields) -> ClaimRule:
    return ClaimRule(**({"claim": "c", "arm": "a", "than": "b"} | fields))


BASE = [0.70 + 0.002 * (seed % 5) for seed in range(SEEDS)]
BETTER = [base + 0.01 + 0.0005 * (seed % 7) for seed, base in enumerate(BASE)]
ONE_COLLAPSED = [0.5, *BETTER[1:]]


def test_a_collapsed_run_moves_the_mean_and_not_the_median() -> None:
    claims = [claim(expect="higher", statistic=which) for which in ("mean", "median")]
    mean, median = judge(claims, results(a=ONE_COLLAPSED, b=BASE), "test/accuracy")
    assert (mean.word, median.word) == ("not decided", "confirmed")
    assert median.difference == pytest.approx(0.0115) and mean.difference < 0.002
    assert median.over == "seeds alone: a median"
    assert median.rule == "test/accuracy, median over seeds: `a` − `b` is higher than 0"
    assert median.low is not None and median.low >= 0.01


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"expect": "lower"}, "refuted"),
        ({"expect": "not_lower"}, "confirmed"),
        ({"expect": "within", "margin": 0.02}, "confirmed"),
        ({"expect": "within", "margin": 0.005}, "refuted"),
        ({"expect": "higher", "margin": 0.012, "resolution": 0.005}, "bounded"),
        ({"expect": "higher", "margin": 0.0106}, "not decided"),
        ({"expect": "higher", "margin": 0.01, "relative": True}, "confirmed"),
    ],
)
def test_every_word_can_be_of_a_median(fields: dict, word: str) -> None:
    rule = claim(statistic="median", **fields)
    [verdict] = judge([rule], results(a=ONE_COLLAPSED, b=BASE), "test/accuracy")
    assert verdict.word == word
    if word == "not decided":
        assert verdict.seeds_needed is not None and verdict.seeds_needed > SEEDS


def test_too_few_seeds_for_an_interval_say_how_many_it_takes() -> None:
    rule = claim(statistic="median", expect="higher")
    [verdict] = judge([rule], results(a=BETTER[:4], b=BASE[:4]), "test/accuracy")
    assert (verdict.word, verdict.low, verdict.seeds_needed) == ("not decided", None, None)
    assert verdict.note == "no interval: at 90.0% one of a median takes 5 seeds"
    [verdict] = judge([rule], results(a=BETTER[:5], b=BASE[:5]), "test/accuracy")
    assert verdict.word == "confirmed"


def test_a_cost_without_chance_is_known_as_it_is_of_the_mean() -> None:
    rule = claim(statistic="median", expect="not_higher", metric="cost/phi_parameters")
    [verdict] = judge([rule], results(a=BETTER, b=BASE), "test/accuracy")
    assert (verdict.word, verdict.level) == ("confirmed", 1.0)


def test_a_median_that_is_the_margin_is_open_and_bounds_nothing() -> None:
    rule = claim(statistic="median", expect="higher")
    [verdict] = judge([rule], results(a=[0.7] * 19 + [0.71], b=[0.7] * 20), "test/accuracy")
    assert (verdict.word, verdict.difference, verdict.bound) == ("not decided", 0.0, None)
    near = claim(statistic="median", expect="higher", margin=0.01)
    [verdict] = judge([near], results(a=[0.71] * 19 + [0.72], b=[0.7] * 20), "test/accuracy")
    assert (verdict.word, verdict.bound) == ("not decided", None)


def test_the_statistic_is_said() -> None:
    claims = [claim(expect="higher", statistic=which) for which in ("mean", "median")]
    found = judge(claims, results(a=BETTER, b=BASE), "test/accuracy")
    assert [verdict.statistic for verdict in found] == ["mean", "median"]
