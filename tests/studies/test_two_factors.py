"""Means, effects and intervals of two-factor sweeps against statsmodels, and what is a sweep."""

import json

import numpy as np
import pandas
import pytest
import statsmodels.api
import statsmodels.formula.api

from studies.engine.reporting import two_factor_report
from studies.engine.reporting.outcome import collect
from studies.engine.reporting.two_factors import ABSENT, cochran_limit, two_factors

RATES, STARTS, SEEDS = (1e-4, 1e-3, 4e-3), ("paper", "small", "anchored", "identity"), range(5)
MODEL = "y ~ C(start, Sum) * C(rate, Sum) + C(seed, Sum)"


def design(noise=0.01):
    """Arms of a 4 x 3 sweep with main effects and an interaction; the seeds shift all of them."""
    draw = np.random.default_rng(3)
    swept, values = {}, {}
    for i, start in enumerate(STARTS):
        for j, rate in enumerate(RATES):
            arm = f"start={start} learning_rate={rate:g}"
            swept[arm] = {"adapter.start": start, "train.learning_rate": rate}
            at = 0.7 + 0.01 * i - 0.02 * j + 0.005 * i * j
            values[arm] = {s: at + 0.05 * s + noise * draw.normal() for s in SEEDS}
    return swept, values


@pytest.fixture(scope="module")
def found():
    return two_factors(*design())


@pytest.fixture(scope="module")
def fitted():
    swept, values = design()
    rows = [
        {"start": own["adapter.start"], "rate": own["train.learning_rate"], "seed": seed, "y": y}
        for arm, own in swept.items()
        for seed, y in values[arm].items()
    ]
    return statsmodels.formula.api.ols(MODEL, pandas.DataFrame(rows)).fit()


def test_levels_and_means(found):
    _, values = design()
    assert found.factors == ("adapter.start", "train.learning_rate")
    assert found.rows == STARTS and found.columns == ("0.0001", "0.001", "0.004")
    assert found.arms[1][2] == "start=small learning_rate=0.004"
    assert found.seeds == tuple(SEEDS) and found.freedom == 44
    assert found.means[1][2] == pytest.approx(np.mean(list(values[found.arms[1][2]].values())))


def test_tests_are_those_of_statsmodels(found, fitted):
    want = statsmodels.api.stats.anova_lm(fitted, typ=2)
    names = ("C(start, Sum)", "C(rate, Sum)", "C(start, Sum):C(rate, Sum)")
    for term, name in zip(found.terms, names, strict=True):
        assert (term.f, term.p) == pytest.approx(tuple(want.loc[name, ["F", "PR(>F)"]]), rel=1e-6)
        assert term.freedom == want.loc[name, "df"]
    assert found.freedom == fitted.df_resid


def test_effects_and_intervals_are_those_of_statsmodels(found, fitted):
    ends = fitted.conf_int()

    def same(estimate, name):
        want = (fitted.params[name], *ends.loc[name])
        assert estimate == pytest.approx(want, abs=1e-12), name

    ordered = sorted(STARTS)  # the order in which statsmodels names them; its last has no name
    for start in ordered[:-1]:
        i = STARTS.index(start)
        same(found.row_effects[i], f"C(start, Sum)[S.{start}]")
        for j, rate in enumerate(RATES[:-1]):
            name = f"C(start, Sum)[S.{start}]:C(rate, Sum)[S.{rate}]"
            same(found.interaction[i][j], name)
    for j, rate in enumerate(RATES[:-1]):
        same(found.column_effects[j], f"C(rate, Sum)[S.{rate}]")
    for effects in (found.row_effects, found.column_effects, *found.interaction):
        assert sum(effect for effect, *_ in effects) == pytest.approx(0, abs=1e-12)
        assert len({round(high - low, 12) for _, low, high in effects}) == 1


def test_only_seeds_of_every_cell_count():
    swept, values = design()
    del values[next(iter(values))][0]
    assert two_factors(swept, values).seeds == (1, 2, 3, 4)


def test_one_seed_or_no_noise_has_no_intervals():
    swept, values = design()
    one = two_factors(swept, {arm: {0: own[0]} for arm, own in values.items()})
    still = two_factors(*design(noise=0.0))
    for found, why in ((one, "one seed"), (still, "nothing to test with")):
        assert why in found.note and found.terms == ()
        assert found.interaction[0][0][1:] == (None, None)
        assert why in two_factor_report.markdown(found, "y")


def test_one_restless_cell_is_named(found):
    assert found.uneven == ""
    swept, values = design()
    arm = list(swept)[5]
    values[arm] = {seed: y + 0.2 * (-1) ** seed for seed, y in values[arm].items()}
    uneven = two_factors(swept, values)
    assert uneven.uneven == arm
    assert f"the seeds of `{arm}` spread" in two_factor_report.markdown(uneven, "y")


@pytest.mark.parametrize(("alpha", "seeds", "want"), [(0.05, 5, 0.6287), (0.01, 5, 0.7212),
                                                      (0.05, 3, 0.7679)])  # fmt: skip
def test_cochrans_limit_is_that_of_the_tables(alpha, seeds, want):
    assert cochran_limit(4, seeds, alpha) == pytest.approx(want, abs=2e-4)


def test_an_arm_that_leaves_a_factor_alone_is_a_level():
    swept = {"r=4": {"r": 4}, "r=8": {"r": 8}, "lora-8": {"method": "lora", "r": 8},
             "lora-4": {"method": "lora", "r": 4}}  # fmt: skip
    values = {arm: {0: 0.7, 1: 0.71 + 0.01 * i} for i, arm in enumerate(swept)}
    found = two_factors(swept, values)
    assert (found.factors, found.rows) == (("method", "r"), (ABSENT, "lora"))
    assert found.arms == (("r=4", "r=8"), ("lora-4", "lora-8"))


@pytest.mark.parametrize(
    "swept",
    [
        [{"a": 1}, {"a": 2}, {"a": 3}],  # one factor
        [{}, {"a": 1}, {"b": 1}],  # one at a time
        [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 1}],  # a hole
        [{"a": 1, "b": 1}, {"a": 2, "b": 1}],  # one level
    ],
)
def test_what_is_no_two_factor_sweep(swept):
    arms = {f"arm {i}": own for i, own in enumerate(swept)}
    assert two_factors(arms, {arm: {0: 0.5, 1: 0.6} for arm in arms}) is None


def test_an_arm_without_results_leaves_a_hole():
    swept, values = design()
    assert two_factors(swept, values | {next(iter(values)): {}}) is None


@pytest.mark.slow
def test_the_report_has_the_table_and_the_figure(fabricate):
    fabricate.study.published = None
    fabricate.add("lora", [0.70, 0.72, 0.74], {"adapter.method": "lora"})
    for i, start in enumerate(("paper", "small")):
        for j, rate in enumerate((1e-3, 4e-3)):
            fabricate.add(f"{start} {rate:g}", [0.7 + 0.1 * i * j, 0.72 + 0.1 * j, 0.74],
                          {"adapter.start": start, "train.learning_rate": rate})  # fmt: skip
    report = fabricate.report()
    text = report.markdown.read_text(encoding="utf-8")
    found = collect(fabricate.study, fabricate.pairs).two_factors
    row = next(line for line in text.splitlines() if line.startswith("| small | "))
    effect, low, high = found.row_effects[1]
    want = [f"{mean:.4f}" for mean in found.means[1]] + [f"{effect:+.4f} [{low:+.4f}, {high:+.4f}]"]
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["small", *want]
    assert "![two_factors.png](two_factors.png)" in text
    assert "### Interaction" in text and "| interaction | 1, 6 | " in text
    data = json.loads(report.json.read_text(encoding="utf-8"))["two_factors"]
    assert data["means"] == [list(row) for row in found.means]
