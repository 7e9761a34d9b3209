"""A study that tunes, and results of its trials."""

from pathlib import Path

from studies.engine.planning import runs
from studies.engine.records import Failure, Result, Trial, write_record

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
