"""Claims over seeds and test rows: what is tested, and why a claim is about seeds alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from studies.engine.definition.study import ClaimRule
from studies.engine.records import Cost, Result
from studies.engine.reporting import rendering
from studies.engine.reporting.outcome import collect
from studies.engine.trials.predictions import Predictions, write_predictions
from studies.engine.verdicts.claims import Verdict, judge
from studies.engine.verdicts.crossed import crossed
from studies.engine.verdicts.row_scores import row_reader
from studies.engine.verdicts.statistics import ALPHA, Measured

COST = Cost(trainable_parameters=1, adapter_parameters=1, phi_parameters=1, total_parameters=1,
            train_seconds=1, step_seconds=1, peak_memory_bytes=1)  # fmt: skip


class Lab:
    """Trials of arms with scores by row."""

    def __init__(self) -> None:
        self.known: dict[str, Predictions] = {}

    def trials(self, rows: str = "h", **arms: np.ndarray) -> dict[str, dict[int, Result]]:
        """Of (S, R) scores of each arm."""
        return {
            arm: {seed: self.trial(f"{rows}-{arm}-{seed}", rows, each)
                  for seed, each in enumerate(scores)}
            for arm, scores in arms.items()
        }  # fmt: skip

    def trial(self, key: str, rows: str, *parts: np.ndarray) -> Result:
        self.known[key] = Predictions(rows, {"test/accuracy": parts})
        metrics = {"test/accuracy": float(np.mean([part.mean() for part in parts])), "x": 0.5}
        return Result(key=key, status="done", metrics=metrics, cost=COST)

    def verdict(self, found: Any, tasks: Any = None, looks: Any = (), **keys: Any) -> Verdict:
        claim = {"claim": "c", "expect": "higher"} | keys
        if "contrast" not in claim:
            claim |= {"arm": "a", "than": claim.get("than", "b")}
        rule, read = ClaimRule.model_validate(claim), lambda result: self.known.get(result.key)
        return judge([rule], found, "test/accuracy", (), tasks or {}, looks, read)[0]


@pytest.fixture
def lab() -> Lab:
    return Lab()


def scores(seed: int, seeds: int = 6, rows: int = 80, by: float = 0.0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    ease = np.random.default_rng(99).normal(size=rows)
    own = draw.normal(size=rows) * 0.7
    noise = 0.3 * draw.normal(size=(seeds, 1)) + 0.5 * draw.normal(size=(seeds, rows))
    return (noise + ease + own + by > 0).astype(float)


def test_a_difference_is_tested_over_seeds_and_rows(lab: Lab) -> None:
    a, b = scores(0, by=0.4), scores(1)
    found = lab.verdict(lab.trials(a=a, b=b))
    want = crossed([a - b])
    half = stats.t.ppf(0.95, want.freedom) * want.error
    assert (found.low, found.high) == pytest.approx((want.mean - half, want.mean + half))
    assert (found.over, found.n, found.level) == ("seeds and test rows", 6, pytest.approx(0.9))
    alone = (a - b).mean(axis=1)
    assert half > stats.t.ppf(0.95, 5) * alone.std(ddof=1) / 6**0.5
    assert found.word == ("confirmed" if want.mean > half else "not decided")


def test_rows_make_no_claim_surer_than_its_seeds_alone(lab: Lab) -> None:
    """By Satterthwaite's degrees of freedom they would where seeds happen to agree: with nine
    tenths of the error over seeds 2.6 times as many of such tests err as at their level."""
    draw, level, wrong, plain = np.random.default_rng(8), ALPHA / 30, 0, 0
    for _ in range(4000):
        own, rows = 0.9 * draw.chisquare(4) / 4, 0.1 * draw.chisquare(99) / 99
        alone = Measured(draw.normal(), own**0.5, 4)
        freedom = (own + rows) ** 2 / (own**2 / 4 + rows**2 / 99)
        both = Measured(alone.mean, (own + rows) ** 0.5, freedom, rows, alone)
        wrong += both.p_above(0.0) <= level
        plain += replace(both, of_seeds=None).p_above(0.0) <= level
        assert (both.p_above(0.0) <= level) == (both.interval(level)[0] >= 0)
    assert plain > 2 * level * 4000 and wrong < 1.8 * level * 4000
    unit = np.array([[1.0], [-1.0], [0.5], [-0.5]]) / 100
    d = unit + 0.08 * np.tile([1.0, -1.0], 50) + 0.05
    looks = [range(4), range(8), range(16), range(32)]
    both = lab.verdict(lab.trials(a=d, b=0 * d), looks=looks)
    end = stats.t.ppf((1 + both.level) / 2, 3) * d.mean(axis=1).std(ddof=1) / 2
    assert both.over == "seeds and test rows" and both.low == pytest.approx(0.05 - end)


def test_weights_numbers_and_looks(lab: Lab) -> None:
    a, b, c = scores(0), scores(1), scores(2)
    trials = lab.trials(a=a, b=b, c=c)
    want = crossed([a - 0.5 * b - 0.5 * c])
    found = lab.verdict(trials, contrast={"a": 1, "b": -0.5, "c": -0.5})
    half = stats.t.ppf(0.95, want.freedom) * want.error
    assert found.high == pytest.approx(want.mean + half)
    number, plain = lab.verdict(trials, than=0.25), crossed([a])
    half = stats.t.ppf(0.95, plain.freedom) * plain.error
    assert number.low == pytest.approx(plain.mean - 0.25 - half)
    first = lab.verdict(trials, looks=[range(4)])
    want = crossed([a[:4] - b[:4]])
    assert first.difference == pytest.approx(want.mean) and first.n == 4
    alone = (a[:4] - b[:4]).mean(axis=1).std(ddof=1) / 2
    half = max(stats.t.ppf(0.95, want.freedom) * want.error, stats.t.ppf(0.95, 3) * alone)
    assert first.high - want.mean == pytest.approx(half)


def test_tasks_and_parts_are_sets_of_rows_of_their_own(lab: Lab) -> None:
    on = {t: lab.trials(t, a=scores(i), b=scores(i + 5, rows=r))
          for t, i, r in (("one", 0, 80), ("two", 2, 80))}  # fmt: skip
    over = {
        arm: {s: Result(key="m", status="done", metrics={"test/accuracy": float(np.mean([
            on[t][arm][s].metrics["test/accuracy"] for t in on]))}) for s in range(6)}
        for arm in "ab"
    }  # fmt: skip
    found = lab.verdict(over, {t: (each, "test/accuracy") for t, each in on.items()})
    want = crossed([(scores(0) - scores(5)) / 2, (scores(2) - scores(7)) / 2])
    assert found.over == "seeds and test rows" and found.difference == pytest.approx(want.mean)
    half = stats.t.ppf(0.95, want.freedom) * want.error
    assert found.high == pytest.approx(want.mean + half)
    parts = {arm: {s: lab.trial(f"{arm}{s}", "h", scores(i)[s], scores(i + 2, rows=30)[s])
                   for s in range(6)} for arm, i in (("a", 0), ("b", 5))}  # fmt: skip
    found, rest = lab.verdict(parts), scores(2, rows=30) - scores(7, rows=30)
    want = crossed([(scores(0) - scores(5)) / 2, rest / 2])
    assert found.difference == pytest.approx(want.mean)
    assert found.high - want.mean == pytest.approx(stats.t.ppf(0.95, want.freedom) * want.error)


def test_what_cannot_be_tested_over_rows_says_why(lab: Lab) -> None:
    trials = lab.trials(a=scores(0), b=scores(1))

    def why(**keys: Any) -> str:
        over = lab.verdict(trials, **keys).over
        assert over.startswith("seeds alone: ")
        return over.removeprefix("seeds alone: ")

    assert why(relative=True, margin=0.01) == "a share of another arm is no mean over rows"
    trials["a"][0] = trials["a"][0].model_copy(update={"metrics": {"test/accuracy": 0.5, "x": 0.7}})
    assert why(metric="x") == "x is no mean over test rows"
    assert lab.verdict(trials, metric="cost/step_seconds").over == ""  # known exactly
    trials["b"][3] = lab.trial("other", "other rows", scores(1)[3])
    assert why() == "`b` was tested on other rows at seed 3"
    trials["b"][3] = lab.trial("fewer", "h", scores(1)[3, :20])
    assert why() == "`b` was tested on other rows at seed 3"
    del lab.known["fewer"]
    assert why() == "`b` kept no predictions at seed 3"
    claim = ClaimRule(claim="c", arm="a", than="b", expect="higher")
    [found] = judge([claim], trials, "test/accuracy")
    assert found.over == "seeds alone: no scores by row are kept (keep: predictions)"
    alone = np.array([trials["a"][s].metrics["test/accuracy"]
                      - trials["b"][s].metrics["test/accuracy"] for s in range(6)])  # fmt: skip
    half = stats.t.ppf(0.95, 5) * alone.std(ddof=1) / 6**0.5
    assert found.high == pytest.approx(alone.mean() + half)


def test_seeds_that_agree_leave_the_error_of_rows(lab: Lab) -> None:
    same = {arm: np.tile(scores(i)[:1], (5, 1)) for i, arm in enumerate("ab")}
    found = lab.verdict(lab.trials(**same))
    assert found.low is not None and not found.note and found.low < found.high
    alike = lab.verdict(lab.trials(a=same["a"], b=same["a"]))
    assert alike.note == "no interval: the difference is the same for every seed"


def test_more_seeds_do_not_help_where_rows_make_the_error(lab: Lab) -> None:
    draw = np.random.default_rng(3)
    rows = draw.normal(size=60) * 0.5
    few_rows = rows + 0.02 * draw.normal(size=(6, 60)) + 0.05
    noise = 0.3 * draw.normal(size=(6, 1)) + 0.02 * draw.normal(size=(6, 60)) + 0.05
    zero = np.zeros((6, 60))
    assert lab.verdict(lab.trials(a=few_rows, b=zero)).seeds_needed is None
    needed = lab.verdict(lab.trials(a=noise, b=zero)).seeds_needed
    assert needed is None or needed > 6


@pytest.mark.parametrize("keep", [(), ("predictions",)])
def test_the_report_says_what_its_intervals_are_about(
    keep: tuple[str, ...], fabricate: Any, tmp_path: Path
) -> None:
    a, b = scores(0, by=0.5), scores(1)
    fabricate.add("lora", b.mean(axis=1)).add("phi", a.mean(axis=1), {"adapter.num_basis": 8})
    rows = iter([*b, *a])
    for trial, _, folder in fabricate.rows:
        write_predictions(folder, trial.key, "h", {"accuracy": (next(rows),)})
    claim = {"claim": "phi wins", "arm": "phi", "than": "lora", "expect": "higher"}
    size = claim | {"metric": "cost/step_seconds", "margin": 0.1}
    fabricate.study.claims = tuple(map(ClaimRule.model_validate, (claim, size)))
    fabricate.study.keep = keep
    read = row_reader(fabricate.study, fabricate.out_dir.parent / "trials")
    text = rendering.markdown(collect(fabricate.study, fabricate.pairs, read=read))
    if keep:
        assert "Intervals are over seeds and test rows." in text
        assert "other test rows would give another number" in text
    else:
        told = "Intervals are over seeds alone: no scores by row are kept (keep: predictions)."
        assert told in text and "would give another number" not in text
