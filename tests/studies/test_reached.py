"""Which look a study has come to, as a function of what has ended, with a judge of our own."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from refused import refusal

from studies.engine.command.looks import Look, reached
from studies.engine.definition.study import Study
from studies.engine.records import Result, Trial
from studies.engine.reporting.over_tasks import ended_on_all
from studies.engine.verdicts.claims import Verdict

ARMS = ("lora", "low", "high", "idle")
CLAIMS = [
    {"claim": "low", "arm": "low", "than": "lora", "expect": "lower"},
    {"claim": "high", "contrast": {"high": 1, "lora": -1}, "expect": "higher"},
]
SEEDS = {"at_least": 2, "at_most": 8, "until": "decided"}


def study_of(seeds: Any = None, claims: Any = None, **more: Any) -> Study:
    return Study(
        name="s", question="Which?", backbone={"name": "b"}, task={"name": "t"},
        adapter={"method": "lora"}, arms=[{"name": arm} for arm in ARMS], baseline="lora",
        objective={"metric": "test/accuracy"}, seeds=seeds or SEEDS, claims=claims or CLAIMS,
        profile="embedded", path=Path("s.yaml"), **more,
    )  # fmt: skip


def plan_of(study: Study) -> list[Trial]:
    tasks = [task.name for task in study.tasks] or [""]
    return [
        Trial(
            study="s", profile="embedded", arm=arm, task=task, seed=seed, config={"arm": arm + task}
        )
        for seed in study.seeds
        for task in tasks
        for arm in ARMS
    ]


class Judge:
    """Says that claims are decided once their arms have so many seeds."""

    def __init__(self, study: Study, **needed: int) -> None:
        self.study, self.needed, self.asked = study, needed, 0

    def __call__(self, found: Sequence[tuple[Trial, Result]]) -> list[Verdict]:
        self.asked += 1
        size = Counter(trial.arm for trial, _ in found)
        words = {
            c.claim: "confirmed" if size[c.claim] >= self.needed.get(c.claim, 99) else "not decided"
            for c in self.study.claims
        }
        return [Verdict(claim, "", word, size[claim]) for claim, word in words.items()]


def look(study: Study, ended: Any, judge: Any = None, untuned: Sequence[str] = ()) -> Look:
    """The look where the trials that `ended` tells of have."""
    planned = plan_of(study)
    found = {t.key: Result(key=t.key, status="done") if ended(t) else None for t in planned}
    return reached(study, planned, found, judge or Judge(study), untuned)


def seeds_of(found: Look) -> dict[str, int]:
    return dict(Counter(trial.arm for trial in found.trials))


def test_the_first_look_is_of_every_arm_and_nobody_is_asked() -> None:
    study, judge = study_of(), Judge(study_of())
    for ended in (lambda t: False, lambda t: t.arm != "idle", lambda t: t.seed != 1):
        found = look(study, ended, judge)
        assert (found.number, found.count, found.size, found.ended) == (1, 3, 2, False)
        assert seeds_of(found) == dict.fromkeys(ARMS, 2) and judge.asked == 0
        assert found.open == ("low", "high") and found.at_most == 3 * 8 + 2
    assert len(look(study, lambda t: t.arm != "idle").missing) == 2


def test_arms_of_open_claims_get_the_seeds_of_the_next_look() -> None:
    study = study_of()
    found = look(study, lambda t: t.seed < 2, Judge(study, low=2))
    assert (found.number, found.before, found.size, found.open) == (2, 2, 4, ("high",))
    assert seeds_of(found) == {"lora": 4, "high": 4, "low": 2, "idle": 2}
    assert found.arms == ("lora", "high") and found.at_most == 8 + 8 + 2 + 2
    assert {(t.arm, t.seed) for t in found.missing} == {
        (arm, seed) for arm in ("lora", "high") for seed in (2, 3)
    }


def test_it_ends_where_nothing_is_open_or_at_the_last_look() -> None:
    study = study_of()
    found = look(study, lambda t: True, Judge(study, low=2, high=4))
    assert (found.number, found.ended, found.open, found.at_most) == (2, True, (), 12)
    assert found.stands == "look 2 of 3: every claim is decided after 4 seeds"
    judge = Judge(study)
    found = look(study, lambda t: True, judge)
    assert (found.number, found.ended, judge.asked) == (3, True, 3)
    assert found.open == ("low", "high") and found.at_most == len(found.trials) == 3 * 8 + 2
    assert found.stands.endswith("the most that `seeds` allows\n  open: low\n  open: high")


def test_results_beyond_a_look_change_nothing_of_it() -> None:
    study = study_of()
    planned, seen = plan_of(study), []

    def judge(found: Sequence[tuple[Trial, Result]]) -> list[Verdict]:
        seen.append({(trial.arm, trial.seed) for trial, _ in found})
        return Judge(study, low=2, high=2)(found)

    reached(study, planned, {t.key: Result(key=t.key, status="done") for t in planned}, judge)
    assert seen == [{(arm, seed) for arm in ARMS for seed in (0, 1)}]


def test_a_failed_trial_has_ended() -> None:
    study = study_of()
    planned = plan_of(study)
    found = {t.key: Result(key=t.key, status="failed") if t.seed < 2 else None for t in planned}
    assert reached(study, planned, found, Judge(study)).number == 2


def test_a_claim_without_a_finished_seed_in_common_gets_no_more() -> None:
    study = study_of()

    def judge(found: Sequence[tuple[Trial, Result]]) -> list[Verdict]:
        low, high = Judge(study, low=4)(found)
        return [low, replace(high, n=0)]

    found = look(study, lambda t: True, judge)
    assert seeds_of(found) == {"lora": 4, "low": 4, "high": 2, "idle": 2}
    assert (found.number, found.ended, found.open) == (2, True, ("high",))
    assert found.stands == (
        "look 2 of 3: 1 of 2 claims is open after 4 seeds, as its arms have no finished seed in "
        "common: once the cause is repaired, --retry-failed goes on\n  open: high"
    )
    assert found.at_most == len(found.trials)


def test_looks_as_given_from_a_first_seed_of_ones_own() -> None:
    study = study_of(SEEDS | {"looks": [2, 3, 8], "first": 40})
    assert study.seeds == tuple(range(40, 48)) and study.looks == (2, 3, 8)
    found = look(study, lambda t: t.seed < 42)
    assert {trial.seed for trial in found.missing} == {42}


def test_a_claim_on_one_task_wants_seeds_there_alone() -> None:
    claims = [CLAIMS[0] | {"task": "b"}, CLAIMS[1]]
    study = study_of(claims=claims, tasks=["a", "b"])
    found = look(study, lambda t: t.seed < 2, Judge(study, high=4))
    assert {(t.arm, t.task) for t in found.missing} == {("low", "b"), ("lora", "b")}
    assert found.arms == ("lora on b", "low on b")
    found = look(study, lambda t: t.seed < 2, Judge(study, low=4))
    assert {t.task for t in found.missing} == {"a", "b"} and found.arms == ("lora", "high")


def test_an_arm_that_has_yet_to_be_tuned_holds_the_look_open() -> None:
    found = look(study_of(), lambda t: True, untuned=["late"])
    assert (
        found.number == 1
        and not found.ended
        and found.stands.endswith("which lacks the tuning of late")
    )
    found = look(study_of(), lambda t: t.arm != "low", untuned=["late"])
    assert found.stands.endswith("which lacks 2 trials of low and the tuning of late")


@pytest.mark.parametrize(
    ("least", "most", "sizes"),
    [
        (5, 40, (5, 10, 20, 40)),
        (5, 15, (5, 10, 15)),
        (5, 12, (5, 12)),
        (5, 5, (5,)),
        (2, 160, (2, 4, 8, 16, 32, 64, 160)),
    ],
)
def test_looks_double_while_the_last_is_worth_its_share(
    least: int, most: int, sizes: tuple[int, ...]
) -> None:
    study = study_of(SEEDS | {"at_least": least, "at_most": most})
    assert study.looks == sizes and study.first_seeds == tuple(range(least))


def test_a_list_has_one_look() -> None:
    study = study_of([3, 1, 2])
    assert study.looks == (3,) and study.first_seeds == study.seeds == (3, 1, 2)
    assert not study.until_decided


FILE = """\
question: Which?
adapter: {method: lora}
arms: [{name: lora}, {name: low, set: {adapter.r: 2}}]
baseline: lora
objective: {metric: test/accuracy}
seeds:
  at_least: 5
  at_most: 40
  until: decided
  looks: [5, 10, 40]
  first: 0
claims: [{claim: c, arm: low, than: lora, expect: lower}]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("at_least: 5", "at_least: 1", "s.yaml:7: seeds.at_least: expected at least 2, got 1"),
        (
            "at_most: 40",
            "at_most: 4",
            "s.yaml:8: seeds.at_most: expected at least 5, as `at_least`",
        ),
        ("decided", "bored", "s.yaml:9: seeds.until: expected decided, got 'bored'"),
        (
            FILE[FILE.index("\n  at_least") : FILE.index("claims")],
            " 5\n",
            "s.yaml:6: seeds: expected a list, or {",
        ),
        ("10, 40", "10, 10, 40", "s.yaml:10: seeds.looks: expected numbers of seeds that rise"),
        ("10, 40", "10, 30", "s.yaml:10: seeds.looks: expected 5 (`at_least`) as the first look"),
        ("[5, 10", "[6, 10", "as the first look and 40 (`at_most`) as the last, got 6, 10, 40"),
        ("first: 0", "first: -1", "s.yaml:11: seeds.first: expected at least 0, got -1"),
        ("first: 0", "first: 4294967290", "seeds.first: 40 seeds from 4294967290 on go beyond"),
        ("first", "start", "s.yaml:11: seeds.start: unknown key. Known: at_least, at_most, until"),
        ("  at_most: 40\n", "", "s.yaml:6: seeds.at_most: required, but not given"),
        (FILE[FILE.index("claims") :], "", "s.yaml:9: seeds.until: the study has no `claims`"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal(tmp_path, FILE, old, new)


def test_claims_in_error_are_not_said_to_be_none(tmp_path: Path) -> None:
    said = refusal(tmp_path, FILE, "expect: lower", "expect: within")
    assert "needs a `margin` above 0" in said and "has no `claims`" not in said


def test_a_seed_that_has_not_ended_on_all_tasks_is_in_no_look_at_their_mean() -> None:
    study = study_of(tasks=["a", "b"])
    value = {"metrics": {"test/accuracy": 0.5}}
    pairs = [
        (trial, Result(key=trial.key, status="done", **value))
        for trial in plan_of(study)
        if trial.seed < 4 and (trial.task, trial.seed) != ("b", 3)
    ]
    failed = pairs[-1][1].model_copy(update={"status": "failed"})
    pairs = [(t, failed if (t.task, t.seed) == ("b", 0) else result) for t, result in pairs]
    pooled = {"low": {seed: failed for seed in range(4)}}
    assert list(ended_on_all(study, pairs, pooled)["low"]) == [0, 1, 2]
