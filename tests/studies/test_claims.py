"""Claims: each word's set, Holm over claims, intervals that agree with verdicts, refusals."""

import itertools
from pathlib import Path

import pytest
from refused import refusal
from scipy import stats

from studies.engine.definition.schema import load_study
from studies.engine.definition.study import ClaimRule
from studies.engine.records import Cost, Result
from studies.engine.verdicts.claims import judge
from studies.engine.verdicts.statistics import holm

STUDY = """\
name: s
question: Which?
adapter: {method: basis, basis: sinc, num_basis: 8}
sweep: {adapter.r: [2, 4]}
arms: [{name: lora, adapter: {method: lora}}]
baseline: lora
objective: {metric: test/accuracy}
claims:
  - {claim: r=4 wins, arm: r=4, than: lora, expect: higher}
"""


def results(**arms: list[float]) -> dict[str, dict[int, Result]]:
    return {
        arm: {
            seed: Result(key="k", status="done", metrics={"test/accuracy": value},
                         cost=Cost(trainable_parameters=1, adapter_parameters=1, phi_parameters=1,
                                   total_parameters=1, train_seconds=1, step_seconds=value,
                                   peak_memory_bytes=1))
            for seed, value in enumerate(values)
        }
        for arm, values in arms.items()
    }  # fmt: skip


BASE = [0.70, 0.72, 0.74, 0.71, 0.73]
NOISE = [0.001, -0.001, 0.002, -0.002, 0.0005]


def shifted(by: float) -> list[float]:
    return [b + by + e for b, e in zip(BASE, NOISE, strict=True)]


def claim(**fields) -> ClaimRule:
    return ClaimRule(**({"claim": "c", "arm": "a", "than": "b"} | fields))


def word(by: float, **fields) -> str:
    [verdict] = judge([claim(**fields)], results(a=shifted(by), b=BASE), "test/accuracy")
    if verdict.low is not None:
        assert verdict.low < verdict.difference < verdict.high
    return verdict.word


@pytest.mark.parametrize(
    ("expect", "margin", "words"),
    [  # at a shift of -0.05, 0 (noise) and +0.05
        ("higher", 0.0, ("refuted", "not decided", "confirmed")),
        ("higher", 0.02, ("refuted", "refuted", "confirmed")),
        ("not_higher", 0.0, ("confirmed", "not decided", "refuted")),
        ("not_higher", 0.01, ("confirmed", "confirmed", "refuted")),
        ("lower", 0.0, ("confirmed", "not decided", "refuted")),
        ("not_lower", 0.01, ("refuted", "confirmed", "confirmed")),
        ("within", 0.01, ("refuted", "confirmed", "refuted")),
        ("within", 0.001, ("refuted", "not decided", "refuted")),
    ],
)
def test_each_word_says_where_the_difference_lies(expect, margin, words) -> None:
    assert tuple(word(by, expect=expect, margin=margin) for by in (-0.05, 0, 0.05)) == words


def test_numbers_costs_shares_and_gains_of_gains() -> None:
    assert word(0, than=0.6, expect="higher") == "confirmed"
    assert word(0.05, metric="cost/step_seconds", expect="higher") == "confirmed"
    assert word(0.05, expect="higher", margin=0.05, relative=True) == "confirmed"  # 0.05 / 0.72
    assert word(0.05, expect="higher", margin=0.08, relative=True) == "refuted"
    rule = claim(arm="a", than="b", beyond={"arm": "c", "than": "d"}, expect="lower")
    found = results(a=shifted(0.01), b=BASE, c=[b + 0.05 for b in BASE], d=BASE)
    [verdict] = judge([rule], found, "test/accuracy")
    assert verdict.word == "confirmed" and verdict.difference == pytest.approx(-0.0399)


def test_holm_over_the_claims_agrees_with_the_intervals() -> None:
    shifts = (0.0021, 0.0025, 0.004, 0.0001)
    names = [f"a{i}" for i in range(len(shifts))]
    found = results(b=BASE, **{n: shifted(by) for n, by in zip(names, shifts, strict=True)})
    for count in range(1, len(shifts) + 1):
        for chosen in itertools.combinations(names, count):
            rules = [claim(arm=name, expect="higher") for name in chosen]
            verdicts = judge(rules, found, "test/accuracy")
            better = [[r.metrics["test/accuracy"] for r in found[n].values()] for n in chosen]
            p = [stats.ttest_rel(own, BASE, alternative="greater").pvalue for own in better]
            decided = [each <= 0.05 for each in holm(p)]
            assert [v.word == "confirmed" for v in verdicts] == decided
            assert [v.low > 0 for v in verdicts] == decided


@pytest.mark.parametrize(
    ("arms", "note"),
    [
        ({"a": [0.7], "b": [0.6]}, "one seed"),
        ({"a": [0.7, 0.8], "b": [0.6, 0.7]}, "same for every seed"),
        ({"b": [0.7, 0.8]}, "no finished seed"),
    ],
)
def test_what_has_no_interval_is_not_decided(arms, note) -> None:
    [verdict] = judge([claim(expect="higher")], results(**arms), "test/accuracy")
    assert verdict.word == "not decided" and note in verdict.note


def test_gains_that_differ_by_rounding_alone_are_the_same() -> None:
    gains = ((0.75, 0.70, 0.70, 0.65), (0.81, 0.80, 0.72, 0.71), (0.72, 0.71, 0.73, 0.72))
    found = results(**dict(zip("abcd", map(list, zip(*gains, strict=True)), strict=True)))
    rule = claim(beyond={"arm": "c", "than": "d"}, expect="lower")
    [verdict] = judge([rule], found, "test/accuracy")
    assert verdict.word == "not decided" and "same for every seed" in verdict.note


def test_a_share_of_zero_decides_nothing() -> None:
    found = results(a=[0.2, 0.3, 0.4], b=[0.1, 0.0, 0.2])  # a correlation of a stuck model is 0
    rules = [claim(expect="higher", relative=True), claim(expect="higher")]
    share, plain = judge(rules, found, "test/accuracy")
    assert share.word == "not decided" and "`b` has 0 at seed 1" in share.note
    assert plain == judge(rules[1:], found, "test/accuracy")[0]  # Holm counts it not


@pytest.mark.parametrize(
    ("expect", "margin", "words"),
    [  # of 100, 102 and 110 parameters against 100
        ("higher", 0.0, ("refuted", "confirmed", "confirmed")),
        ("higher", 0.05, ("refuted", "refuted", "confirmed")),
        ("not_higher", 0.0, ("confirmed", "refuted", "refuted")),
        ("not_higher", 0.05, ("confirmed", "confirmed", "refuted")),
        ("not_lower", 0.0, ("confirmed", "confirmed", "confirmed")),
        ("within", 0.02, ("confirmed", "confirmed", "refuted")),
    ],
)
def test_a_cost_without_chance_is_decided(expect, margin, words) -> None:
    def counted(count: int) -> dict[int, Result]:
        names = set(Cost.model_fields) - {"tokens_per_second", "data_share"}
        cost = Cost(**(dict.fromkeys(names, 1) | {"trainable_parameters": count}))
        metrics = {"test/accuracy": 0.5}
        return {s: Result(key="k", status="done", metrics=metrics, cost=cost) for s in (0, 1, 2)}

    rule = claim(metric="cost/trainable_parameters", relative=True, expect=expect, margin=margin)
    for count, word in zip((100, 102, 110), words, strict=True):
        found = {"a": counted(count), "b": counted(100)}
        [verdict] = judge([rule], found, "test/accuracy")
        assert verdict.word == word and verdict.low == verdict.high == (count - 100) / 100


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("arm: r=5, than: lora, expect: higher", "s.yaml:9: claims[0].arm: no arm is called 'r=5'"),
        ("arm: r=4, than: lor, expect: higher", "claims[0].than: no arm is called 'lor'. Did you"),
        ("arm: r=4, than: 0.0, expect: higher, relative: true", "nothing is a share of 0"),
        ("arm: r=4, than: lora, expect: lower}\n  - {claim: d, arm: r=4, than: lora, expect: lower",
         "s.yaml:10: claims[1]: the same rule as claims[0]"),
        ("arm: r=4, than: lora, expect: highr", "Did you mean 'higher'?"),
        ("arm: r=4, than: lora, expect: better",
         "expect: expected higher, or lower for a metric that is to be minimized, got 'better'"),
        ("arm: r=4, than: lora, expect: not_worse", "expected not_lower, or not_higher for a"),
        ("arm: r=4, than: lora, expect: within", "needs a `margin` above 0"),
        ("arm: r=4, than: lora, expect: lower, metric: test/los",
         "claims[0].metric: no trial reports 'test/los'. Did you mean 'test/loss'? Metrics: train"),
        ("arm: r=4, than: lora, expect: lower, than_metric: test/los", "claims[0].than_metric: no"),
        ("arm: r=4, than: lora, expect: lower, metric: phi/utilization",
         "the trials of the arm 'lora' report no 'phi/utilization'"),
        ("arm: r=4, than: r=4, expect: higher", "compared with itself"),
        ("arm: r=4, than: lora, expect: lower, metric: cost/step", "no cost is called 'step'"),
        ("arm: r=4, than: lora, expect: lower, metric: after/affine/test/accuracy",
         "nothing measures 'after/affine/test/accuracy'. Ask for it in the section `after`"),
        ("arm: r=4, than: lora, expect: higher, by: 2", "unknown key"),
        ("arm: r=4, than: lora, expect: higher, resolution: 1",
         "s.yaml:9: claims[0].resolution: test/accuracy is from 0 to 1, got 1: a point is 0.01"),
        ("arm: r=4, than: lora, expect: within, margin: 5", "margin: test/accuracy is from 0 to 1"),
        ("arm: r=4, than: 70, expect: higher, metric: test/macro_f1", "than: test/macro_f1 is"),
        ("arm: r=4, than: lora, expect: higher, resolution: 0", "s.yaml:9: claims[0].resolution:"),
        ("arm: r=4, than: lora, expect: not_within, margin: 0.1, resolution: 0.1",
         "expect: not_within has its `margin` as resolution: leave `resolution` out"),
    ],
)  # fmt: skip
def test_a_claim_that_cannot_be_judged_is_refused(tmp_path: Path, rule, message) -> None:
    assert message in refusal(tmp_path, STUDY, "arm: r=4, than: lora, expect: higher", rule)


@pytest.mark.parametrize(
    "rule",
    [
        "arm: r=4, than: 0.5, expect: higher, metric: phi/utilization",
        "arm: r=4, than: lora, expect: lower, metric: train/loss",
        "arm: r=4, than: lora, expect: lower, metric: valid/loss, than_metric: test/loss",
    ],
)
def test_a_claim_may_name_whatever_its_arms_report(tmp_path: Path, rule: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(STUDY.replace("arm: r=4, than: lora, expect: higher", rule))
    assert len(load_study(path).claims) == 1


@pytest.mark.slow
def test_the_report_says_the_verdicts(grid_study, tmp_path: Path) -> None:
    grid_study.study.claims = (
        claim(claim="The paper's start fails", arm="paper-start", than="lora", expect="lower"),
    )
    report = grid_study.report()
    row = "| The paper's start fails | **confirmed** |"
    assert row in report.markdown.read_text() and row in report.note
    assert "confirmed: The paper's start fails" in report.text
    assert '"word": "confirmed"' in report.json.read_text()
