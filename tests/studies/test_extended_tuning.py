"""`tune.extend`: values beyond the ends of a list, for the arms whose best is there."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from studies.engine.command import cli, dispatch
from studies.engine.command.plan_queue import PlanQueue
from studies.engine.command.session import Options, Session
from studies.engine.command.stages import TuneStage
from studies.engine.definition.schema import load_study
from studies.engine.definition.sections import Tune
from studies.engine.planning import runs
from studies.engine.planning.plan import plan, plan_candidates, plan_tuning
from studies.engine.planning.plan_file import Plan, read_plan, write_plan
from studies.engine.planning.tuning import Choice
from studies.engine.records import Failure, Result, Trial, write_record
from studies.engine.reporting import remarks, rendering
from studies.engine.running.durations import Durations
from studies.engine.tracking import background

RATE = "train.learning_rate"
EXTENDED = """\
name: s
question: Which?
adapter: {method: basis, basis: sinc, num_basis: 8}
arms: [{name: a}, {name: lora, adapter: {method: lora}}]
baseline: lora
objective: {metric: test/accuracy, select_on: valid/accuracy}
seeds: [0, 1]
tune: {train.learning_rate: [2.0e-3, 1.0e-3, 4.0e-3], seeds: [7, 8], extend: 2}
"""


def put(trial: Trial, runs_dir: Path, valid: float | None) -> None:
    if valid is None:
        failure = Failure(kind="not_finite", message="lost")
        result = Result(key=trial.key, status="failed", failure=failure)
    else:
        metrics = {"valid/accuracy": valid, "test/accuracy": 0.5}
        result = Result(key=trial.key, status="done", metrics=metrics)
    write_record(runs.trial_dir(trial, runs_dir) / "result.json", result)


def rate(trial: Trial) -> float:
    return trial.config["train"]["learning_rate"]


def test_lists_go_on_by_their_ratio_whole_numbers_while_they_are() -> None:
    tune = {"train.learning_rate": [2e-3, 1e-3, 4e-3], "adapter.r": [4, 8, 12], "seeds": [0]}
    tune |= {
        "adapter.basis": ["sinc", "gaussian", "fourier"],
        "train.weight_decay": [0.0, 0.1, 1.0],
    }
    extended = Tune.model_validate(tune | {"extend": 3})
    assert extended.beyond(RATE) == (
        5e-4, 2.5e-4, 1.25e-4, 8e-3, 1.6e-2, 3.2e-2
    )  # fmt: skip
    assert extended.beyond("adapter.r") == (2, 1, 18, 27)  # the next would be 0.5, and 40.5
    assert extended.beyond("adapter.basis") == extended.beyond("train.weight_decay") == ()
    assert Tune.model_validate(tune).beyond(RATE) == ()


@pytest.mark.parametrize(
    ("best", "tried", "end"),
    [
        ({"a": 2e-3, "lora": 2e-3}, {"a": [], "lora": []}, {}),
        ({"a": 8e-3, "lora": 2e-3}, {"a": [8e-3, 1.6e-2], "lora": []}, {}),
        (
            {"a": 1e-5, "lora": 1.0},
            {"a": [5e-4, 2.5e-4], "lora": [8e-3, 1.6e-2]},
            {"a": "smallest", "lora": "largest"},
        ),
    ],
)
def test_an_arm_gets_values_beyond_an_end_until_its_best_lies_inside(
    tmp_path: Path, monkeypatch, capsys, best, tried, end
) -> None:
    (tmp_path / "s.yaml").write_text(EXTENDED)
    study = load_study(tmp_path / "s.yaml")
    rounds: list[list[Trial]] = []

    def run(study, trials, runs_dir, *_, **__) -> None:
        waiting = [trial for trial in trials if runs.result_of(trial, runs_dir) is None]
        rounds.append(waiting)
        for trial in waiting:
            put(trial, runs_dir, 0.9 - 0.1 * abs(math.log2(rate(trial) / best[trial.arm])))

    monkeypatch.setattr(dispatch, "run", run)
    monkeypatch.setattr(Session, "_end", lambda self, seeds: cli.DONE)
    monkeypatch.setattr(background, "deliver", lambda *a: None)
    session = Session(study, Options(runs_dir=tmp_path, fetch=False), Console(), print)
    assert session.run(lambda *a: None) == cli.DONE
    *tuned, seeds = rounds
    assert {t.stage for t in seeds} == {"seeds"} and len(tuned[0]) == 2 * 3 * 2
    more = [trial for each in tuned[1:] for trial in each]
    assert {arm: [rate(t) for t in more if (t.arm, t.seed) == (arm, 7)] for arm in tried} == tried
    assert len(more) == 2 * sum(map(len, tried.values()))
    chosen = {choice.arm: choice for choice in session.before.choices}
    for arm, choice in chosen.items():
        assert rate(next(t for t in seeds if t.arm == arm)) == choice.settings[RATE]
        assert choice.edges == ({RATE: end[arm]} if arm in end else {})
    lines = capsys.readouterr().out.splitlines()
    for arm, values in tried.items():
        said = f"{arm}: the best value so far is an end of the list; learning_rate="
        assert [line for line in lines if line.startswith(f"{arm}: ")] == [
            f"{said}{value:g} is tried too" for value in values
        ]
    again = TuneStage(study, (), tmp_path, ())
    assert again.missing == "" and len(again.trials) == len(tuned[0]) + len(more)
    _works_alike(study, tmp_path, rounds, best)


def _works_alike(study, folder: Path, rounds: list[list[Trial]], best) -> None:
    """A plan that is worked off elsewhere runs the same trials."""
    stage = TuneStage(study, (), folder / "empty", ())
    tuning = plan_candidates(study, [*stage.selected, *stage.may_follow])
    whole = Plan(study=study.name, profile=study.profile, metric="test/accuracy",
                budget=study.budget, trials=tuple(stage.selected), tuning=tuning)  # fmt: skip
    write_plan(folder / "plan.json", whole)
    queue = PlanQueue([read_plan(folder / "plan.json")], folder / "far", False, Durations(), print)
    ended = []
    while queue.trials:
        task = queue.next(lambda task: True)
        assert task is not None
        value = 0.9 - 0.1 * abs(math.log2(rate(task.trial) / best[task.trial.arm]))
        metrics = {"valid/accuracy": value, "test/accuracy": value}
        queue.ended(task, Result(key=task.trial.key, status="done", metrics=metrics), False)
        ended.append(task.trial.key)
    assert sorted(ended) == sorted(trial.key for each in rounds for trial in each)
    assert queue.total == queue.ended_count == len(ended) and queue.unfinished == 0


def test_a_value_beyond_the_end_that_fails_ends_the_walk(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(EXTENDED)
    study = load_study(tmp_path / "s.yaml")
    for trial in plan_tuning(study):
        put(trial, tmp_path, None if rate(trial) > 4e-3 else rate(trial))
    stage = TuneStage(study, (), tmp_path, ())
    assert {rate(t) for t in stage.trials} == {1e-3, 2e-3, 4e-3, 8e-3} and stage.missing == ""
    assert {choice.settings[RATE] for choice in stage.choices} == {4e-3}
    assert all(not choice.edges for choice in stage.choices)


def test_an_import_takes_the_seeds_of_arms_that_have_chosen(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(background, "deliver", lambda *a: None)
    (tmp_path / "s.yaml").write_text(EXTENDED)
    study, far = load_study(tmp_path / "s.yaml"), tmp_path / "far"
    for trial in plan_tuning(study):
        if rate(trial) in (1e-3, 2e-3, 4e-3):
            good = rate(trial) == (2e-3 if trial.arm == "a" else 4e-3)
            put(trial, far, 0.9 if good else 0.6)
            write_record(runs.trial_dir(trial, far) / "trial.json", trial)
    for trial in plan(study, (), TuneStage(study, (), far, ()).choices):
        put(trial, far, 0.7)
        write_record(runs.trial_dir(trial, far) / "trial.json", trial)
    options = Options(runs_dir=tmp_path / "runs")
    session = Session(study, options, Console(width=200), lambda text, style: print(text))
    assert session.bring_in(far) == cli.INCOMPLETE
    printed = capsys.readouterr().out
    assert "tuning stage: 12 results taken, 0 known already, 0 refused, 4 of the next" in printed
    assert "\n2 results taken, 0 known already, 0 refused\n" in printed
    assert "the tuning stage has 2 trials without a result (lora)" in printed
    only = Options(runs_dir=tmp_path / "other", only=("arm=lora",))
    session = Session(study, only, Console(width=200), lambda text, style: print(text))
    assert session.bring_in(far) == cli.INCOMPLETE
    assert "has 2 trials without a result (lora)" in capsys.readouterr().out


def test_a_plan_takes_along_what_its_tuning_has_found(tmp_path: Path, capsys) -> None:
    (tmp_path / "s.yaml").write_text(EXTENDED)
    study, here = load_study(tmp_path / "s.yaml"), tmp_path / "runs"
    for trial in plan_tuning(study):
        if trial.arm == "a" and rate(trial) in (1e-3, 2e-3, 4e-3):
            put(trial, here, rate(trial))
        elif trial.arm == "lora" and trial.seed == 7 and rate(trial) == 1e-3:
            put(trial, here, None)

    def exported(retry_failed: bool) -> tuple[str, list[str]]:
        options = Options(runs_dir=here, retry_failed=retry_failed)
        session = Session(study, options, Console(width=200), lambda *_: None)
        assert session.export(tmp_path / "p.json") == cli.DONE
        queue = PlanQueue(
            [read_plan(tmp_path / "p.json")], tmp_path / "far", False, Durations(), print
        )
        assert len(queue.trials) == len({trial.key for trial in queue.trials})
        return capsys.readouterr().out, [f"{t.arm} {rate(t):g} {t.seed}" for t in queue.trials]

    said, queued = exported(retry_failed=False)
    assert "7 trials, and then the seeds of 2 tuned arms written" in said
    lora = [f"lora {each:g} {seed}" for seed in (7, 8) for each in (2e-3, 1e-3, 4e-3)]
    assert sorted(queued) == sorted([*lora[:1], *lora[2:], "a 0.008 7", "a 0.008 8"])
    said, queued = exported(retry_failed=True)
    assert "8 trials" in said and sorted(queued) == sorted([*lora, "a 0.008 7", "a 0.008 8"])


def test_the_table_of_tuning_has_what_some_arms_tried() -> None:
    scores = [({RATE: each}, 0.5 + each) for each in (0.1, 0.2, 0.3, 0.4)]
    choices = [Choice("a", {RATE: 0.2}, tuple(scores[:3])), Choice("b", {RATE: 0.4}, tuple(scores))]
    outcome = SimpleNamespace(choices=choices, chosen_on="valid/accuracy")
    rows = rendering._tuning(outcome).splitlines()
    assert rows[4].count("learning_rate") == 4 and "0.7000** | 0.8000 | —" in rows[6]
    assert remarks._extended(choices) == " (beyond an end where the best was the last: `b`)"
    assert remarks._extended(choices[:1]) == ""
