"""Claims about weighted sums: contrasts and trends are paired by seed, and decided both ways."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.multivariate.multivariate_ols import _MultivariateOLS

from studies.engine.definition.contrasts import weighted_sum
from studies.engine.definition.points import expand
from studies.engine.definition.schema import load_study
from studies.engine.definition.study import ClaimRule
from studies.engine.errors import StudyError
from studies.engine.planning.plan import plan
from studies.engine.records import Cost, Result
from studies.engine.reporting.report import draft
from studies.engine.verdicts.claims import Verdict, judge

RANKS = (4, 8, 16, 64)
STUDY = """\
name: s
question: Which?
adapter: {method: basis, basis: sinc, num_basis: 8}
sweep: {adapter.r: [4, 8, 16, 64]}
arms:
  - {name: lora-4, adapter: {method: lora, r: 4}}
  - {name: lora-8, adapter: {method: lora, r: 8}}
  - {name: lora-16, adapter: {method: lora, r: 16}}
  - {name: lora-64, adapter: {method: lora, r: 64}}
  - {name: wide, set: {adapter.num_basis: 16, adapter.r: 8}}
  - {name: bitfit, adapter: {method: bitfit}}
  - {name: decay-1, set: {train.weight_decay: 0.1}}
  - {name: decay-2, set: {train.weight_decay: 0.2}}
  - {name: query, set: {adapter.target_modules: [query], adapter.num_basis: 9}}
  - {name: key, set: {adapter.target_modules: [key], adapter.num_basis: 9}}
  - {name: value, set: {adapter.target_modules: [value], adapter.num_basis: 9}}
baseline: lora-8
objective: {metric: test/accuracy}
claims:
  - {claim: c, RULE}
"""
COST = Cost(
    **dict.fromkeys(set(Cost.model_fields) - {"tokens_per_second", "data_share"}, 1),
)
FORM = "arm: r=4, than: lora-4, expect: higher"


@pytest.fixture
def load(tmp_path: Path):
    def of(rule: str = FORM):
        path = tmp_path / "s.yaml"
        path.write_text(STUDY.replace("RULE", rule))
        return load_study(path)

    return of


def results(arms: dict[str, np.ndarray], metric: str = "test/accuracy") -> dict:
    return {
        arm: {
            seed: Result(key="k", status="done", metrics={metric: float(value)})
            for seed, value in enumerate(values)
        }
        for arm, values in arms.items()
    }


def noisy(**means: float) -> dict[str, np.ndarray]:
    """Arms with these means over six seeds, most of whose spread the arms of a seed share."""
    draw = np.random.default_rng(0)
    seeds = draw.normal(0, 0.05, 6)
    return {arm: mean + seeds + draw.normal(0, 0.002, 6) for arm, mean in means.items()}


def decide(rule: dict, arms: dict[str, np.ndarray], points=()) -> Verdict:
    claim = ClaimRule(claim="c", **rule)
    [verdict] = judge([claim], results(arms), "test/accuracy", points)
    return verdict


SUPERADDITIVE = {"all": 1, "attention": -1, "mlp": -1, "lora": 1}


@pytest.mark.parametrize(
    ("extra", "expect", "margin", "word"),
    [
        (0.05, "higher", 0.0, "confirmed"),
        (-0.05, "higher", 0.0, "refuted"),
        (0.0, "higher", 0.0, "not decided"),
        (0.05, "higher", 0.1, "refuted"),
        (-0.05, "lower", 0.0, "confirmed"),
        (0.05, "not_higher", 0.0, "refuted"),
        (0.0, "within", 0.02, "confirmed"),
        (0.05, "within", 0.02, "refuted"),
        (0.05, "not_within", 0.02, "confirmed"),
        (0.0, "not_within", 0.02, "refuted"),
    ],
)
def test_a_contrast_is_decided_both_ways(extra, expect, margin, word) -> None:
    arms = noisy(lora=0.70, attention=0.75, mlp=0.72, all=0.77 + extra)
    verdict = decide({"contrast": SUPERADDITIVE, "expect": expect, "margin": margin}, arms)
    assert verdict.word == word and verdict.n == 6
    assert verdict.difference == pytest.approx(extra, abs=0.005)
    assert "`all` − `attention` − `mlp` + `lora` is" in verdict.rule


@pytest.mark.parametrize(("share", "word"), [(0.36, "confirmed"), (0.6, "refuted")])
def test_a_share_of_a_gain_is_one_linear_statement(share: float, word: str) -> None:
    """Bandwidths are 36 % of the gain: (full - fixed) - 0.36 (full - lora) is 0."""
    arms = noisy(lora=0.70, fixed=0.80 - 0.1 * share, full=0.80)
    rule = {"contrast": {"full": 0.64, "fixed": -1, "lora": 0.36}, "expect": "within"}
    verdict = decide(rule | {"margin": 0.01}, arms)
    assert verdict.word == word
    assert "0.64 `full` − `fixed` + 0.36 `lora` is within ±0.01" in verdict.rule


@pytest.mark.parametrize(
    ("expect", "margin", "rule"),
    [
        ("higher", 0.0, "is higher than 0"),
        ("not_higher", 0.02, "is not higher than 0.02"),
        ("lower", 0.02, "is lower than −0.02"),
        ("not_lower", 0.0, "is not lower than 0"),
        ("within", 0.02, "is within ±0.02"),
        ("not_within", 0.02, "is not within ±0.02"),
    ],
)
def test_a_rule_names_the_bound_of_the_difference(expect: str, margin: float, rule: str) -> None:
    verdict = decide(
        {"arm": "a", "than": "b", "expect": expect, "margin": margin}, noisy(a=0.7, b=0.7)
    )
    assert verdict.rule == f"test/accuracy: `a` − `b` {rule}"


def test_a_sum_is_compared_with_a_number() -> None:
    arms = noisy(a=0.70, b=0.80)
    draw = np.random.default_rng(1)
    arms = {arm: values.mean() + draw.normal(0, 0.002, 6) for arm, values in arms.items()}
    rule = {"contrast": {"a": 0.5, "b": 0.5}, "expect": "higher"}
    assert decide(rule | {"than": 0.7}, arms).word == "confirmed"
    assert decide(rule | {"than": 0.8}, arms).word == "refuted"


def test_the_test_is_that_of_scipy_and_statsmodels() -> None:
    arms = noisy(lora=0.70, attention=0.75, mlp=0.72, all=0.775)
    rule = {"contrast": SUPERADDITIVE, "expect": "higher"}
    verdict = decide(rule, arms)
    y = np.column_stack([arms[arm] for arm in SUPERADDITIVE])
    weights = np.array(list(SUPERADDITIVE.values()), float)
    test = stats.ttest_1samp(y @ weights, 0.0)
    interval = test.confidence_interval(0.90)
    assert (verdict.low, verdict.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    # repeated measures: the arms are the columns, of which one contrast is tested
    fit = _MultivariateOLS(y, np.ones((len(y), 1))).fit()
    tested = fit.mv_test([("c", np.eye(1), weights[:, None])]).results["c"]["stat"]
    assert float(tested["F Value"].iloc[0]) == pytest.approx(test.statistic**2, rel=1e-9)
    assert float(tested["Pr > F"].iloc[0]) == pytest.approx(test.pvalue, rel=1e-9)


def test_beyond_is_the_contrast_of_its_four_arms() -> None:
    arms = noisy(a=0.8, b=0.7, c=0.75, d=0.7)
    short = {"arm": "a", "than": "b", "beyond": {"arm": "c", "than": "d"}, "expect": "higher"}
    long = {"contrast": {"a": 1, "b": -1, "c": -1, "d": 1}, "expect": "higher"}
    assert decide(short, arms) == decide(long, arms)


@pytest.mark.parametrize(
    ("metric", "word"),
    [
        ("after/spectra/all/rank", "confirmed"),
        ("after/spectra/all/stable_rank", "not decided"),
        ("test/accuracy", "not decided"),
    ],
)
def test_a_rank_that_is_the_same_for_every_seed_is_known(metric: str, word: str) -> None:
    found = results({"phi": np.full(3, 165.0), "lora": np.full(3, 8.0)}, metric)
    rule = ClaimRule(claim="c", arm="phi", than="lora", metric=metric, expect="higher")
    [verdict] = judge([rule], found, "test/accuracy")
    assert verdict.word == word and verdict.difference == 157


def test_only_seeds_that_all_arms_finished_count() -> None:
    arms = noisy(lora=0.70, attention=0.75, mlp=0.72, all=0.80)
    found = results(arms)
    for seed, arm in enumerate(("lora", "attention", "mlp")):
        del found[arm][seed]
    rule = ClaimRule(claim="c", contrast=SUPERADDITIVE, expect="higher")
    [verdict] = judge([rule], found, "test/accuracy")
    assert verdict.n == 3
    for seed in (3, 4, 5):
        del found["lora" if seed % 2 else "mlp"][seed]
    [verdict] = judge([rule], found, "test/accuracy")
    assert verdict.word == "not decided" and "no finished seed in common" in verdict.note


def changing(**by: float) -> dict[str, np.ndarray]:
    """An arm for each name and rank, each doubling of which changes its mean by so much."""
    return noisy(**{f"{name}{r}": 0.7 + b * np.log2(r) for name, b in by.items() for r in RANKS})


@pytest.mark.parametrize(
    ("by", "expect", "margin", "word"),
    [
        (-0.01, "lower", 0.0, "confirmed"),
        (0.01, "lower", 0.0, "refuted"),
        (0.0, "lower", 0.0, "not decided"),
        (0.01, "higher", 0.005, "confirmed"),
        (0.0, "within", 0.005, "confirmed"),
        (0.01, "within", 0.005, "refuted"),
    ],
)
def test_a_trend_is_decided_both_ways(load, by, expect, margin, word) -> None:
    points = expand(load())[0]
    rule = {"arm": "r=4", "trend": {"over": "adapter.r", "scale": "log2"}}
    verdict = decide(rule | {"expect": expect, "margin": margin}, changing(**{"r=": by}), points)
    assert verdict.word == word and verdict.difference == pytest.approx(by, abs=0.002)
    assert "slope of `r=4` … `r=64`, per doubling of adapter.r is" in verdict.rule


@pytest.mark.parametrize("scale", ["log2", "linear"])
def test_a_trend_is_the_least_squares_slope_of_each_seed(load, scale: str) -> None:
    points = expand(load())[0]
    arms = changing(**{"r=": 0.003})
    rule = {"arm": "r=16", "trend": {"over": "adapter.r", "scale": scale}, "expect": "higher"}
    x = np.array(RANKS, float) if scale == "linear" else np.log2(RANKS)
    slopes = np.polyfit(x, np.stack([arms[f"r={r}"] for r in RANKS]), 1)[0]
    interval = stats.ttest_1samp(slopes, 0.0).confidence_interval(0.90)
    verdict = decide(rule, arms, points)
    assert verdict.difference == pytest.approx(slopes.mean(), rel=1e-9)
    assert (verdict.low, verdict.high) == pytest.approx((interval.low, interval.high), rel=1e-6)
    shifted = decide(rule | {"than": 0.01}, arms, points)
    assert shifted.difference == pytest.approx(slopes.mean() - 0.01, rel=1e-9)


@pytest.mark.parametrize(("by", "word"), [(-0.01, "confirmed"), (0.01, "refuted")])
def test_the_trend_of_a_gain_is_a_difference_of_slopes(load, by: float, word: str) -> None:
    points = expand(load())[0]
    arms = changing(**{"r=": by, "lora-": 0.0})
    rule = {"arm": "r=4", "than": "lora-4", "trend": {"over": "adapter.r", "scale": "log2"}}
    verdict = decide(rule | {"expect": "lower"}, arms, points)
    assert verdict.word == word
    assert "slope of `r=4` … `r=64` − slope of `lora-4` … `lora-64`, per doubling" in verdict.rule
    total = weighted_sum(ClaimRule(claim="c", **rule, expect="lower"), points)
    assert sum(term.weight for term in total.terms) == pytest.approx(0)
    assert {term.of for term in total.terms} == set(arms)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("contrast: {r=4: 1, lora-5: -1}, expect: higher",
         "claims[0].contrast.lora-5: no arm is called 'lora-5'. Did you mean 'lora-"),
        ("contrast: {r=4: 0, r=8: 0}, expect: higher", "leaves an arm out of the `contrast`: 'r=4"),
        ("contrast: {}, expect: higher", "claims[0].contrast: expected at least one value"),
        ("contrast: {r=4: 1, r=8: x}, expect: higher", "claims[0].contrast.r=8: expected a number"),
        ("contrast: {r=4: 1, r=8: .inf}, expect: higher", "a number must be finite"),
        ("contrast: {r=4: 1, r=8: -1, lora-4: -1}, expect: higher", "add up to -1, so that the"),
        ("contrast: {r=4: 1, r=8: -1}, than: lora-4, expect: higher", "give 'lora-4' a weight"),
        ("contrast: {r=4: 1, r=8: -1}, arm: r=4, expect: higher", "`arm` has no meaning in a `con"),
        ("contrast: {r=4: 1, r=8: -1}, relative: true, expect: higher", "`relative` has no"),
        ("contrast: {r=4: 1, r=8: -1}, trend: {over: adapter.r}, expect: higher", "got both"),
        ("contrast: {r=4: 1, lora-4: -1}, metric: phi/utilization, expect: higher",
         "claims[0].metric: the trials of the arm 'lora-4' report no 'phi/utilization'"),
        ("arm: r=4, than: lora-4, trend: {over: adapter.r}, metric: test/los, expect: lower",
         "claims[0].metric: no trial reports 'test/los'. Did you mean 'test/loss'?"),
        ("expect: higher", "claims[0]: needs `arm` and `than`, or a `contrast`, or a `trend`"),
        ("arm: r=4, expect: higher", "needs `arm` and `than`"),
        ("trend: {over: adapter.r}, expect: higher",
         "claims[0].trend.over: 2 groups of arms differ in adapter.r alone; say which is meant by "
         "one of its arms, arm: r=4 or arm: lora-4"),
        ("arm: wide, trend: {over: adapter.r}, expect: higher",
         "needs three values, and the arms like 'wide' that differ in adapter.r alone have 8"),
        ("arm: r=5, trend: {over: adapter.r}, expect: higher", "claims[0].arm: no arm is called"),
        ("trend: {over: adapter.q}, expect: higher", "that differ in adapter.q alone have none"),
        ("trend: {over: train.weight_decay, scale: log2}, expect: higher",
         "trend.scale: log2 takes numbers above 0, and the arm 'r=8' has train.weight_decay: 0;"),
        ("trend: {over: adapter.target_modules}, expect: higher",
         "a slope needs numbers, and the arm 'query' has adapter.target_modules: query"),
        ("arm: r=4, than: decay-1, trend: {over: adapter.r}, expect: higher", "three values"),
        ("trend: {over: adapter.r, scale: log}, expect: higher", "Did you mean 'log2'"),
        ("trend: {}, expect: higher", "claims[0].trend.over: required"),
        ("arm: r=4, than: lora-4, expect: not_within", "not_within needs a `margin` above 0"),
    ],
)  # fmt: skip
def test_a_sum_that_means_nothing_is_refused_with_its_line(load, rule: str, message: str) -> None:
    with pytest.raises(StudyError) as caught:
        load(rule)
    assert message in str(caught.value)
    assert "s.yaml:20: " in str(caught.value)


def test_slopes_are_compared_over_the_same_values_only(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    rule = "arm: r=4, than: lora-4, trend: {over: adapter.r}, expect: higher"
    path.write_text(STUDY.replace("RULE", rule).replace("lora, r: 64", "lora, r: 32"))
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert "arms like 'lora-4' have other values of adapter.r" in str(caught.value)
    assert "4, 8, 16, 32 instead of 4, 8, 16, 64" in str(caught.value)


@pytest.mark.usefixtures("without_figures")
def test_the_report_decides_what_the_file_claims(load, tmp_path: Path) -> None:
    study = load(f"""{FORM}}}
  - {{claim: falls, arm: r=4, than: lora-4, trend: {{over: adapter.r, scale: log2}}, expect: lower}}
  - {{claim: sums, contrast: {{r=4: 1, wide: 1, bitfit: -2}}, expect: lower""")
    values = changing(**{"r=": -0.01, "lora-": 0.0})
    values |= noisy(**{t.arm: 0.5 for t in plan(study) if t.arm not in values})
    pairs = [
        (t, Result(key=t.key, status="done", metrics={"test/accuracy": float(v)}, cost=COST))
        for t in plan(study)
        for v in [values[t.arm][study.seeds.index(t.seed)]]
    ]
    text = draft(study, tmp_path / "trials", pairs).write(tmp_path / "report").markdown.read_text()
    assert "| falls | **confirmed** | test/accuracy: slope of `r=4` … `r=64` − slope" in text
    assert "| sums | **refuted** | test/accuracy: `r=4` + `wide` − 2 `bitfit` is lower" in text
