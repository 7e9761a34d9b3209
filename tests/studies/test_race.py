"""`tune.race`: more seeds for an arm's values that the seeds so far do not tell apart."""

import statistics
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from tuned import STUDY, put, rate, run_here, work_there

from studies.engine.command.stages import TuneStage
from studies.engine.definition.schema import load_study
from studies.engine.errors import StudyError
from studies.engine.planning.plan import plan_candidates, plan_tuning
from studies.engine.planning.tuning import Choice
from studies.engine.records import Trial
from studies.engine.reporting import remarks, rendering

RATE = "train.learning_rate"
RACED = STUDY.replace(
    "[1.0e-3, 1.0e-2], seeds: [7, 8]", "[1.0e-3, 2.0e-3, 4.0e-3], seeds: [7, 8], race: 8"
)
FURTHER = RACED.replace("race: 8", "race: 8, extend: 2")
SHARED = (0.010, -0.013, 0.004, 0.007, -0.001, -0.005, 0.012, 0.002)
"""What a seed gives to every value."""


def mean(trial: Trial, means: dict[float, float], noise: dict[float, tuple[float, ...]]) -> float:
    """The mean of the trial's rate, with what its seed adds, to all rates and to its own."""
    i, own = trial.seed - 7, noise.get(rate(trial), (0.0,) * 8)
    return means.get(rate(trial), 0.5) + SHARED[i] + own[i]


@pytest.mark.parametrize(
    ("means", "noise", "seeds", "chosen"),
    [
        # clear at once: the seeds differ more than the values, but in all of them alike
        ({1e-3: 0.80, 2e-3: 0.803, 4e-3: 0.80}, {}, {1e-3: 2, 2e-3: 2, 4e-3: 2}, 2e-3),
        # at two seeds 1e-3 is ahead by less than its error, at four 2e-3 is ahead by more
        (
            {1e-3: 0.80, 2e-3: 0.80},
            {2e-3: (0.01, -0.02, 0.03, 0.03, 0, 0, 0, 0)},
            {1e-3: 4, 2e-3: 4, 4e-3: 2},
            2e-3,
        ),
        # never told apart
        (
            {1e-3: 0.80, 2e-3: 0.80},
            {2e-3: (0.01, -0.02, 0.03, -0.03, 0.01, -0.02, 0.03, -0.02)},
            {1e-3: 8, 2e-3: 8, 4e-3: 2},
            1e-3,
        ),
        # the same numbers by chance, at two seeds
        (
            {1e-3: 0.80, 2e-3: 0.80},
            {2e-3: (0, 0, 0.01, 0.01, 0, 0, 0, 0)},
            {1e-3: 4, 2e-3: 4, 4e-3: 2},
            2e-3,
        ),
    ],
)
def test_close_values_get_more_seeds_until_one_is_left(
    tmp_path: Path, monkeypatch, means, noise, seeds, chosen
) -> None:
    (tmp_path / "s.yaml").write_text(RACED)
    study = load_study(tmp_path / "s.yaml")

    def valid(trial: Trial) -> float:
        if trial.arm == "lora":  # which needs no race
            return 0.8 if rate(trial) == 2e-3 else 0.6
        return mean(trial, means, noise)

    rounds, session = run_here(study, tmp_path, monkeypatch, valid)
    tuned = [trial for each in rounds[:-1] for trial in each]
    assert Counter(rate(trial) for trial in tuned if trial.arm == "a") == seeds
    assert Counter(rate(trial) for trial in tuned if trial.arm == "lora") == {
        1e-3: 2, 2e-3: 2, 4e-3: 2
    }  # fmt: skip
    for trial in tuned:
        assert trial.stage == "tune" and 7 <= trial.seed < 7 + seeds[rate(trial)]
    a, lora = session.before.choices
    assert (a.settings[RATE], lora.settings[RATE]) == (chosen, 2e-3)
    assert dict(zip((each[RATE] for each, _ in a.scores), a.seeds, strict=True)) == seeds
    for settings, score in a.scores:
        own = [valid(t) for t in tuned if (t.arm, rate(t)) == ("a", settings[RATE])]
        assert score == pytest.approx(sum(own) / len(own), rel=1e-12)
    assert {rate(trial) for trial in rounds[-1]} == {chosen, 2e-3}
    ended = work_there(study, tmp_path, valid)
    assert sorted(ended) == sorted(trial.key for each in rounds for trial in each)


def test_a_value_beyond_the_end_catches_up_with_the_race(tmp_path: Path, monkeypatch) -> None:
    """At an end first what lies beyond is tried, then what is close gets more seeds."""
    (tmp_path / "s.yaml").write_text(FURTHER)
    study = load_study(tmp_path / "s.yaml")
    means = {1e-3: 0.7, 2e-3: 0.80, 4e-3: 0.80, 8e-3: 0.801, 1.6e-2: 0.8}
    noise = {
        2e-3: (0.01, -0.02, -0.03, -0.03, 0, 0, 0, 0),
        8e-3: (-0.02, 0.01, 0.03, 0.03, 0, 0, 0, 0),
        1.6e-2: (0.01, -0.03, -0.03, -0.03, 0, 0, 0, 0),
    }
    rounds, session = run_here(study, tmp_path, monkeypatch, lambda t: mean(t, means, noise))
    a, _ = session.before.choices
    assert a.settings == {RATE: 8e-3} and not a.close and a.extended and a.raced
    assert dict(zip((each[RATE] for each, _ in a.scores), a.seeds, strict=True)) == {
        1e-3: 2, 2e-3: 4, 4e-3: 4, 8e-3: 4, 1.6e-2: 4
    }  # fmt: skip
    asked = [[(rate(t), t.seed) for t in each if t.arm == "a"] for each in rounds[1:-1]]
    assert asked == [
        [(8e-3, 7), (8e-3, 8)],
        [(each, seed) for seed in (9, 10) for each in (2e-3, 4e-3, 8e-3)],
        [(1.6e-2, 7), (1.6e-2, 8)],
        [(1.6e-2, 9), (1.6e-2, 10)],
    ]
    ended = work_there(study, tmp_path, lambda t: mean(t, means, noise))
    assert sorted(ended) == sorted(trial.key for each in rounds for trial in each)


def test_a_value_that_fails_in_the_race_is_out(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(RACED)
    study = load_study(tmp_path / "s.yaml")
    noise = {2e-3: (0.01, -0.015, *[0.05] * 6)}
    for trial in plan_tuning(study):
        fails = (rate(trial), trial.seed) == (2e-3, 9)
        put(trial, tmp_path, None if fails else mean(trial, {1e-3: 0.8, 2e-3: 0.8}, noise))
    stage = TuneStage(study, tmp_path)
    a, _ = stage.choices
    assert a.settings == {RATE: 1e-3} and a.seeds == (8, 2, 2)
    assert all(score is not None for _, score in a.scores)


def test_where_the_best_fail_in_the_race_their_first_seeds_count(tmp_path: Path) -> None:
    """And not a value that is far behind, but which no race has asked for more."""
    (tmp_path / "s.yaml").write_text(RACED)
    study = load_study(tmp_path / "s.yaml")
    noise = {2e-3: (0.01, -0.015, *[0.05] * 6)}
    for trial in plan_tuning(study):
        fails = rate(trial) != 4e-3 and trial.seed == 9
        put(trial, tmp_path, None if fails else mean(trial, {1e-3: 0.8, 2e-3: 0.8}, noise))
    stage = TuneStage(study, tmp_path)
    a, _ = stage.choices
    assert a.settings == {RATE: 1e-3} and a.seeds == (2, 2, 2)
    assert len([t for t in stage.trials if t.arm == "a"]) == 4 + 4 + 2


def test_what_learns_nothing_is_not_raced(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(RACED)
    study = load_study(tmp_path / "s.yaml")
    for trial in plan_tuning(study):
        put(trial, tmp_path, 0.519)
    stage = TuneStage(study, tmp_path)
    assert {choice.seeds for choice in stage.choices} == {(2, 2, 2)}


def test_less_is_better_where_the_study_says_so(tmp_path: Path) -> None:
    text = RACED.replace("test/accuracy, select_on: valid/accuracy",
                         "test/loss, select_on: valid/loss, direction: minimize")  # fmt: skip
    (tmp_path / "s.yaml").write_text(text)
    study = load_study(tmp_path / "s.yaml")
    tuning = plan_candidates(study, plan_tuning(study))
    noise = {2e-3: (-0.01, 0.02, -0.03, -0.03, 0, 0, 0, 0)}
    trials = {trial.key: trial for trial in plan_tuning(study)}

    def result_of(key: str) -> SimpleNamespace:
        loss = mean(trials[key], {1e-3: 0.2, 2e-3: 0.2}, noise)
        return SimpleNamespace(status="done", metrics={"valid/loss": loss})

    choice, asked = tuning.walk(tuning.arms[0], result_of)
    assert choice is not None and choice.settings == {RATE: 2e-3} and choice.seeds == (4, 4, 2)
    assert len(asked) == 10
    assert choice.score == pytest.approx(0.2 + sum(SHARED[:4]) / 4 - 0.05 / 4)


ONE_AT_CHANCE = {2e-3: (0.01, 0.01, 0.01, -0.3, 0.01, 0.01, 0.01, 0.01)}
"""2e-3 is better by a point with every seed but one."""


@pytest.mark.parametrize(
    ("tune", "noise", "chosen", "seeds"),
    [
        ("[7, 8, 9, 10, 11]", ONE_AT_CHANCE, 1e-3, (5, 5, 5)),
        ("[7, 8, 9, 10, 11], statistic: median", ONE_AT_CHANCE, 2e-3, (5, 5, 5)),
        # 1 of 2 wins, then 3 of 4 (a surplus of 2, the root of 4), then 7 of 8
        ("[7, 8], race: 8, statistic: median", {2e-3: (0.01, -0.3, *[0.01] * 6)}, 2e-3, (8, 8, 2)),
        # 1 of 2 wins, then 2 of 4, and never more than half
        ("[7, 8], race: 8, statistic: median", {2e-3: (0.1, -0.01) * 4}, 2e-3, (8, 8, 2)),
        # 2 of 2 wins are enough
        ("[7, 8], race: 8, statistic: median", {2e-3: (0.01, 0.02, *[-1] * 6)}, 2e-3, (2, 2, 2)),
    ],
)
def test_the_median_is_not_moved_by_one_run_at_chance(
    tmp_path: Path, tune: str, noise, chosen: float, seeds: tuple[int, ...]
) -> None:
    (tmp_path / "s.yaml").write_text(RACED.replace("[7, 8], race: 8", tune))
    study = load_study(tmp_path / "s.yaml")
    trials = {trial.key: trial for trial in plan_tuning(study)}

    def result_of(key: str) -> SimpleNamespace:
        value = mean(trials[key], {1e-3: 0.8, 2e-3: 0.8}, noise)
        return SimpleNamespace(status="done", metrics={"valid/accuracy": value})

    tuning = plan_candidates(study, list(trials.values()))
    choice, asked = tuning.walk(tuning.arms[0], result_of)
    assert choice is not None and choice.settings == {RATE: chosen} and choice.seeds == seeds
    center = statistics.median if "median" in tune else statistics.fmean
    own = [mean(trials[key], {1e-3: 0.8, 2e-3: 0.8}, noise) for key in asked
           if rate(trials[key]) == chosen]  # fmt: skip
    assert choice.score == pytest.approx(center(own))
    head = rendering._tuning(SimpleNamespace(choices=[choice], chosen_on="valid/accuracy"))
    assert ("Median valid/accuracy" in head) == ("median" in tune)


@pytest.mark.parametrize(
    ("claims", "chosen_by", "warned"),
    [("median", "mean", True), ("median", "median", False), ("mean", "mean", False)],
)
def test_claims_about_medians_warn_of_choices_by_the_mean(claims, chosen_by, warned) -> None:
    choice = Choice("a", {RATE: 0.1}, (({RATE: 0.1}, 0.5),), statistic=chosen_by)
    outcome = SimpleNamespace(
        metric="test/accuracy", chosen_on="valid/accuracy", select_on="valid/accuracy",
        search=None, best_steps=(), is_mean=False, choices=[choice],
        verdicts=[SimpleNamespace(statistic=claims)],
    )  # fmt: skip
    assert any("tune.statistic: median" in line for line in remarks._choices(outcome)) == warned


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("race: 8", "statistic: mode", r"tune\.statistic: expected .*mean.*median"),
        ("seeds: [7, 8], race: 8", "seeds: [7], race: 8", r"`race` needs two `seeds` at least"),
        ("race: 8", "race: 2", r"`race` is how many seeds there are at most, and `seeds` are 2"),
        ("[7, 8]", "[7, 4294967296]", r"tune\.seeds\[1\]: expected less than"),
        ("[7, 8]", "[4294967290, 4294967294]", r"`race` comes to seeds beyond the last, 42949"),
        ("race: 8", "race: -1", r"tune\.race: expected at least 0, got -1"),
        ("seeds: [0, 1]", "seeds: [0, 12]", r"tune\.race: comes to 12 of `seeds`: what is chosen"),
    ],
)
def test_a_race_that_means_nothing_is_refused(tmp_path: Path, old, new, message) -> None:
    (tmp_path / "s.yaml").write_text(RACED.replace(old, new))
    with pytest.raises(StudyError, match=message):
        load_study(tmp_path / "s.yaml")


def test_the_report_says_how_many_seeds_the_close_ones_had() -> None:
    scores = tuple(({RATE: each}, 0.5 + each) for each in (0.1, 0.2, 0.3))
    choices = [
        Choice("a", {RATE: 0.2}, scores, seeds=(2, 8, 8), close=({RATE: 0.3},), first=2),
        Choice("b", {RATE: 0.1}, scores, seeds=(2, 2, 2), first=2),
        Choice("c", {RATE: 0.1}, scores, seeds=(4, 4, 4), first=2),
    ]
    rows = rendering._tuning(SimpleNamespace(choices=choices, chosen_on="valid/accuracy"))
    assert "| 0.6000 | **0.7000 (8)** | ~ 0.8000 (8) |" in rows
    assert "| **0.6000** | 0.7000 | 0.8000 |" in rows
    assert "| **0.6000 (4)** | 0.7000 (4) | 0.8000 (4) |" in rows
    assert "In brackets: over how many seeds, where values that were close got more." in rows
