"""A study that tunes, and results of its trials."""

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from studies.engine.command import cli, dispatch
from studies.engine.command.plan_queue import PlanQueue
from studies.engine.command.session import Options, Session
from studies.engine.command.stages import TuneStage
from studies.engine.definition.study import Study
from studies.engine.planning import runs
from studies.engine.planning.plan import plan_candidates
from studies.engine.planning.plan_file import Plan, read_plan
from studies.engine.records import Failure, Result, Trial, write_record
from studies.engine.running.durations import Durations
from studies.engine.tracking import background

STUDY = """\
name: s
question: Which?
adapter: {method: basis, basis: sinc, num_basis: 8}
arms: [{name: a}, {name: lora, adapter: {method: lora}}]
baseline: lora
objective: {metric: test/accuracy, select_on: valid/accuracy}
seeds: [0, 1]
tune: {train.learning_rate: [1.0e-3, 1.0e-2], seeds: [7, 8]}
"""


def put(trial: Trial, runs_dir: Path, valid: float | None, test: float = 0.5) -> None:
    if valid is None:
        failure = Failure(kind="not_finite", message="lost")
        result = Result(key=trial.key, status="failed", failure=failure)
    else:
        metrics = {"valid/accuracy": valid, "test/accuracy": test}
        result = Result(key=trial.key, status="done", metrics=metrics)
    write_record(runs.trial_dir(trial, runs_dir) / "result.json", result)


def rate(trial: Trial) -> float:
    return trial.config["train"]["learning_rate"]


def run_here(
    study: Study, folder: Path, patch: pytest.MonkeyPatch, valid: Callable[[Trial], float | None]
) -> tuple[list[list[Trial]], Session]:
    """The trials that the command runs, round by round, where `valid` is what each finds.

    The last round has the seeds.
    """
    rounds: list[list[Trial]] = []

    def run(study: Study, trials: list[Trial], runs_dir: Path, *_, **__) -> None:
        waiting = [trial for trial in trials if runs.result_of(trial, runs_dir) is None]
        rounds.append(waiting)
        for trial in waiting:
            put(trial, runs_dir, valid(trial))

    patch.setattr(dispatch, "run", run)
    patch.setattr(Session, "_end", lambda self, seeds: cli.DONE)
    patch.setattr(background, "deliver", lambda *a: None)
    session = Session(study, Options(runs_dir=folder, fetch=False), Console(), print)
    assert session.run(lambda *a: None) == cli.DONE
    return rounds, session


def work_there(study: Study, folder: Path, valid: Callable[[Trial], float | None]) -> list[str]:
    """Keys of the trials that are run where a plan of the study is worked off."""
    stage = TuneStage(study, folder / "empty")
    tuning = plan_candidates(study, [*stage.selected, *stage.may_follow])
    whole = Plan(study=study.name, profile=study.profile, metric="test/accuracy",
                budget=study.budget, trials=tuple(stage.selected), tuning=tuning)  # fmt: skip
    write_record(folder / "plan.json", whole)
    queue = PlanQueue([read_plan(folder / "plan.json")], folder / "far", False, Durations(), print)
    ended = []
    while queue.trials:
        task = queue.next(lambda task: True)
        assert task is not None
        put(task.trial, folder / "far", valid(task.trial))
        result = runs.result_of(task.trial, folder / "far")
        assert result is not None
        queue.ended(task, result, False)
        ended.append(task.trial.key)
    assert len(queue._results) == len(ended) and queue.to_come == queue.unfinished == 0
    return ended
