"""Runs that fell to chance: the rule, exact intervals and tests, claims and what reports say."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from refused import refusal
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from studies.engine.definition.study import ClaimRule
from studies.engine.records import Failure, Result
from studies.engine.reporting import rendering
from studies.engine.reporting.outcome import collect
from studies.engine.verdicts.claims import Verdict, judge
from studies.engine.verdicts.collapsed import (
    Discordant,
    Share,
    chance,
    collapsed,
    has_collapsed,
)


def run(accuracy: float, majority: float = 0.6, rows: int = 100, **more: Any) -> Result:
    data = {"majority": {"test": majority}, "rows": {"test": rows}}
    metrics = {"test/accuracy": accuracy, "test/loss": 1 - accuracy}
    return Result(**{"key": "k", "status": "done", "metrics": metrics, "data": data} | more)


DIVERGED = {"status": "failed", "failure": Failure(kind="not_finite", message="x"), "metrics": {}}
LATE = {"status": "failed", "failure": Failure(kind="timeout", message="x"), "metrics": {}}


def test_a_run_on_one_class_is_collapsed_and_one_that_learned_a_little_is_not() -> None:
    limit = 0.6 + (0.6 * 0.4 / 100) ** 0.5
    assert chance(run(0.5)) == pytest.approx(limit)
    for accuracy in (0.6, 0.4, 0.64):  # the most frequent class, the other, and all but the first
        assert has_collapsed(run(accuracy))
    assert not has_collapsed(run(0.66)) and not has_collapsed(run(0.61, rows=100_000))
    assert has_collapsed(run(0.5, **DIVERGED)) and has_collapsed(run(0.5, **LATE)) is None


@pytest.mark.parametrize(
    "more",
    [
        {"metrics": {"test/loss": 0.1}},
        {"metrics": {"test/accuracy": 0.5, "test/accuracy_boolq": 0.5}},
        {"data": {"rows": {"test": 100}}},
        {"data": {"majority": {"test": float("nan")}, "rows": {"test": 0}}},
        {"data": {"majority": {"test": 1.0}, "rows": {"test": 9}}},
    ],
)
def test_where_nothing_says_what_chance_is_no_run_is_collapsed(more: dict[str, Any]) -> None:
    assert has_collapsed(run(0.5, **more)) is None
    found = {"a": {0: run(0.5, **more), 1: run(0.5, **DIVERGED)}}
    assert collapsed(found, "test/accuracy") == {}


def test_choices_have_a_chance_level_however_they_are_answered() -> None:
    metrics = {"test/accuracy": 0.5, "test/accuracy_sum": 0.5, "test/accuracy_generated": 0.4}
    assert chance(run(0.5, metrics=metrics)) is not None


@pytest.mark.parametrize(("k", "n"), [(0, 5), (1, 5), (5, 5), (3, 40), (17, 20)])
def test_shares_are_those_of_scipy_and_statsmodels(k: int, n: int) -> None:
    own = Share(k, n, 0.25)
    low, high = proportion_confint(k, n, alpha=0.05, method="beta")
    assert own.interval(0.025) == pytest.approx((low - 0.25, high - 0.25))
    for center in (-0.2, 0.0, 0.1, 0.6):
        p = 0.25 + center
        for found, way in ((own.p_above(center), "greater"), (own.p_below(center), "less")):
            assert found == pytest.approx(stats.binomtest(k, n, p, alternative=way).pvalue)
    assert (own.p_above(-0.3), own.p_below(-0.3)) == (0.0, 1.0)  # no share is below 0
    assert (own.p_above(0.8), own.p_below(0.8)) == (1.0, 0.0)


def test_rounding_makes_no_share_one_that_cannot_be() -> None:
    for part in range(100):
        than, left = part / 100, (100 - part) / 100
        assert Share(9, 9, than).p_below(left) == Share(0, 9, left).p_above(-left) == 1.0
    assert Share(0, 9, 0.3).p_above(-0.1 - 0.2) == 1.0


@pytest.mark.parametrize(("b", "c"), [(0, 0), (4, 0), (1, 6), (5, 5), (12, 3)])
def test_pairs_are_tested_as_statsmodels_does(b: int, c: int) -> None:
    pair = Discordant(b, c, 20)
    both = min(1.0, 2 * min(pair.p_above(0.0), pair.p_below(0.0)))
    assert both == pytest.approx(mcnemar([[3, b], [c, 7]], exact=True).pvalue)
    if b + c:
        assert pair.p_above(0.0) == pytest.approx(
            stats.binomtest(b, b + c, alternative="greater").pvalue
        )
    with pytest.raises(ValueError, match="no difference"):
        pair.p_above(0.1)


def results(**arms: str) -> dict[str, dict[int, Result]]:
    """`x` collapsed, `.` did not, `-` has not ended well."""
    made = {"x": run(0.6), ".": run(0.9), "-": run(0.9, **LATE)}
    return {arm: {seed: made[c] for seed, c in enumerate(told)} for arm, told in arms.items()}


def verdict(found: dict[str, dict[int, Result]], looks: Any = (), **keys: Any) -> Verdict:
    claim = ClaimRule.model_validate({"claim": "c", "arm": "a", "metric": "collapsed"} | keys)
    return judge([claim], found, "test/accuracy", looks=looks)[0]


def test_a_share_is_compared_with_a_number() -> None:
    found = verdict(results(a="xxxxxx.x"), than=0.25, expect="higher")
    assert (found.word, found.n, found.over) == ("confirmed", 8, "runs")
    assert stats.binomtest(7, 8, 0.25, alternative="greater").pvalue < 0.05
    low, high = proportion_confint(7, 8, alpha=0.1, method="beta")  # 0.05 on either side
    assert (found.low, found.high) == pytest.approx((low - 0.25, high - 0.25))
    assert found.rule == "collapsed: `a` − 0.25 is higher than 0"
    none = results(a="." * 40)
    assert verdict(none, than=0.1, expect="lower").word == "confirmed"
    assert verdict(none, than=0, expect="within", margin=0.1).word == "confirmed"
    assert verdict(none, than=0, expect="within", margin=0.05).word == "not decided"
    assert verdict(none, than=0.05, expect="higher", resolution=0.06).word == "bounded"
    opened = verdict(results(a="....."), than=0.1, expect="lower")
    assert opened.word == "not decided" and opened.seeds_needed == 29
    assert 0.9**29 < 0.05 < 0.9**28  # as no run of n collapses
    assert "0 of 5 runs collapsed; 29 seeds decide if no run collapses" in opened.finding
    some = verdict(results(a="x...."), than=0.1, expect="lower")
    assert some.seeds_needed is None and "1 of 5 runs collapsed" in some.finding
    assert verdict(results(a="---"), than=0.1, expect="lower").note == (
        "no interval: no finished seed"
    )


def test_two_arms_are_compared_seed_by_seed() -> None:
    worse = results(a="xxxxxxx.", b="......x.")
    found = verdict(worse, than="b", expect="higher")
    assert (found.word, found.n, found.difference) == ("confirmed", 8, 0.75)  # 6 to 0
    assert (
        found.note == ("`a` alone collapsed with 6 of 8 seeds, `b` alone with 0, both with 1")
        and found.low is None
    )
    assert verdict(worse, than="b", expect="not_higher").word == "refuted"
    few = results(a="xxxx-..x", b="........")
    assert verdict(few, than="b", expect="higher").word == "confirmed"  # 5 to 0: 0.031
    assert verdict(results(a="xxxx", b="...."), than="b", expect="higher").word == "not decided"
    assert verdict(results(a="....", b="...."), than="b", expect="higher").word == "not decided"
    assert verdict(few, than="b", expect="higher").n == 7


def test_looks_spend_the_error_of_counts_too() -> None:
    arms = results(a="xxxxx" + "x" * 5, b="." * 10)
    looks = [range(5), range(10)]
    found = verdict(arms, looks, than="b", expect="higher")
    assert (found.word, found.look) == ("confirmed", 10)  # 0.031 is above 0.05 / 3
    assert verdict(arms, looks[:1], than="b", expect="higher").look == 5


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("arm: a, than: lora, expect: higher, margin: 0.1", "margin: two arms' shares"),
        ("arm: a, than: lora, expect: within, margin: 0.1", "margin: two arms' shares"),
        ("arm: a, than: lora, expect: lower, resolution: 0.1", "resolution: two arms' shares"),
        ("arm: a, than: 1.5, expect: lower", "than: a share of runs is from 0 to 1, got 1.5"),
        ("arm: a, than: 0.7, expect: higher, margin: 0.4", "margin: a share of runs is from 0"),
        ("arm: a, than: 0.1, expect: not_lower, margin: 0.2", "margin: a share of runs is from 0"),
        (
            "arm: a, than: 0, expect: lower",
            "than: no number of runs shows a share that is lower than",
        ),
        ("arm: a, than: 0.1, expect: lower, margin: 0.1", "than: no number of runs shows"),
        ("arm: a, than: 0, expect: not_higher", "than: no number of runs shows"),
        ("arm: a, than: 1, expect: higher", "than: no number of runs shows"),
        ("arm: a, than: lora, relative: true, expect: lower", "relative: a claim about collapsed"),
        ("contrast: {a: 1, lora: -1}, expect: lower", "contrast: a claim about collapsed runs"),
        ("arm: a, than: lora, expect: lower, beyond: {arm: lora, than: a}", "beyond: a claim"),
        ("arm: a, than: lora, expect: lower, statistic: median", "statistic: runs that collapsed"),
    ],
)
def test_claims_without_an_exact_test_are_refused(keys: str, why: str, tmp_path: Path) -> None:
    study = (
        "name: s\nquestion: Which?\nbackbone: minilm\ntask: {name: sarcasm}\nseeds: [0]\n"
        "adapter: {method: lora}\narms: [{name: lora}, {name: a, adapter: {r: 2}}]\n"
        "baseline: lora\nobjective: {metric: test/accuracy}\n"
        "claims: [{claim: c, metric: collapsed, KEYS}]\n"
    )
    assert f"s.yaml:10: claims[0].{why}" in refusal(tmp_path, study, "KEYS", keys)


def test_tasks_without_a_chance_level_are_refused(tmp_path: Path) -> None:
    study = Path(__file__).parents[2] / "studies" / "approximation.yaml"
    text = study.read_text()
    assert "claims:\n" in text
    one = "claims:\n  - {claim: c, metric: collapsed, arm: lora, than: 0.5, expect: lower}\n"
    said = refusal(tmp_path, text, "claims:\n", one)
    assert "say by `task` on which" in said
    with pytest.raises(ValidationError):
        ClaimRule.model_validate({"claim": "c", "arm": "a", "expect": "lower"})


def test_the_report_tells_shares_and_means_with_and_without(fabricate: Any) -> None:
    data = {"rows": {"test": 1000}}
    fabricate.add("lora", [0.80, 0.82, 0.81, 0.83, 0.82], data=data)
    fabricate.add("phi", [0.52, 0.86, 0.87, 0.50, 0.85], {"adapter.num_basis": 8}, data=data)
    outcome = collect(fabricate.study, fabricate.pairs)
    text = rendering.markdown(outcome)
    assert "| collapsed [95 %] | mean without |" in text
    low, high = proportion_confint(2, 5, method="beta")
    phi = next(line for line in text.splitlines() if line.startswith("| phi |"))
    assert f"| 2 of 5 [{low:.2f}, {high:.2f}] | 0.8600 |" in phi and "0.7200" in phi
    assert "| 0 of 5 [0.00, 0.52] | 0.8160 |" in text
    assert "A run is collapsed where" in text and " 2 of 5 " in rendering.terminal(outcome)
    quiet = type(fabricate)(fabricate.runs_dir / "quiet", fabricate.study)
    quiet.add("lora", [0.8, 0.82], data=data).add("phi", [0.85, 0.83], data=data)
    assert "collapsed" not in rendering.markdown(collect(quiet.study, quiet.pairs))
    rule = {"claim": "steadier", "arm": "lora", "than": "phi", "metric": "collapsed"}
    fabricate.study.claims = (ClaimRule.model_validate(rule | {"expect": "lower"}),)
    told = rendering.terminal(collect(fabricate.study, fabricate.pairs))
    assert "not decided: steadier (`lora` alone collapsed with 0 of 5 seeds, `phi` alone" in told


def test_an_open_claim_about_means_says_what_the_seeds_without_a_collapsed_run_say() -> None:
    gains = [0.010, 0.020, 0.030, 0.015, 0.025]
    found = {
        "a": {seed: run(0.8 + gain) for seed, gain in enumerate(gains)} | {5: run(0.6)},
        "lora": {seed: run(0.8) for seed in range(6)},
    }
    asked = {"metric": None, "than": "lora", "expect": "higher"}
    opened = verdict(found, **asked)
    assert opened.word == "not decided" and opened.n == 6
    low, high = stats.t.interval(opened.level, 4, stats.tmean(gains), stats.sem(gains))
    told = f"{stats.tmean(gains):+.4f} [{low:+.4f}, {high:+.4f}] without the seed at which an arm"
    assert told in opened.finding and low > 0
    with_two = {arm: own | {6: run(0.6)} for arm, own in found.items()}
    assert "without 2 seeds at which" in verdict(with_two, **asked).finding
    diverged = {"a": found["a"] | {5: run(0.6, **DIVERGED)}, "lora": found["lora"]}
    assert "without" not in verdict(diverged, **asked).finding, "it is in no mean"
    del found["a"][5]
    assert "without" not in verdict(found, **asked).finding
    assert "without" not in verdict(with_two, **asked | {"statistic": "median"}).finding


def test_a_run_that_collapsed_on_one_task_counts_on_the_mean_over_tasks() -> None:
    easy = {"a": {s: run(0.9) for s in range(6)}, "lora": {s: run(0.8) for s in range(6)}}
    hard = {"a": {s: run(0.8 + s / 1000) for s in range(6)}, "lora": easy["lora"]}
    hard["a"][0] = run(0.5)

    def mean(arm: str, seed: int) -> Result:
        both = [task[arm][seed].metrics["test/accuracy"] for task in (easy, hard)]
        return Result(key="k", status="done", metrics={"test/accuracy": sum(both) / 2})

    over = {arm: {seed: mean(arm, seed) for seed in range(6)} for arm in easy}
    claim = ClaimRule.model_validate({"claim": "c", "arm": "a", "than": "lora", "expect": "higher"})
    tasks = {"easy": (easy, "test/accuracy"), "hard": (hard, "test/accuracy")}
    [opened] = judge([claim], over, "test/accuracy", tasks=tasks)
    assert opened.word == "not decided"
    assert "without the seed at which an arm collapsed" in opened.finding
