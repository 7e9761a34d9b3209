"""Run one trial: backbone, task and adapter, training, evaluation, an atomic result.json.

    python -m studies.engine.trials.trial RUN_DIR      # reads RUN_DIR/trial.json

Knows neither Optuna nor MLflow, so a bare GPU machine needs only torch, transformers and peft.
"""

import argparse
import contextlib
import os
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from studies.engine.records import Result, Trial, read_trial, write_record
from studies.engine.trials.devices import deterministic_variables
from studies.engine.trials.preemption import PREEMPTED, Preempted, Preemption, preemptible
from studies.engine.trials.ranks import joined, leave, ranks

if TYPE_CHECKING:
    from studies.engine.trials.training_run import Findings


def run_trial(trial: Trial, run_dir: Path, preemption: Preemption | None = None) -> Result:
    """Run `trial` and write metrics.jsonl and result.json into `run_dir`.

    Goes on from a checkpoint where `run_dir` has one that is of this trial and of this code. What
    goes wrong becomes a failed `Result`; its traceback goes to stderr, which is the trial's log.txt
    when the loop runs this.

    Raises:
        OSError: `run_dir` cannot be written at all.
        Preempted: `preemption` was asked; what could be saved is saved, and there is no result.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "result.json").unlink(missing_ok=True)  # of an earlier attempt
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    from studies.engine.trials.environment import environment
    from studies.engine.trials.failures import failure_of
    from studies.engine.trials.training import checkpoint
    from studies.engine.trials.training_run import Findings

    findings, failure = Findings(), None
    preemption = preemption or Preemption()
    try:
        _run_as_it_fits(trial, run_dir, findings, preemption)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        failure = failure_of(error)
    with preemption.whole():
        result = Result(
            key=trial.key,
            status="done" if failure is None else "failed",
            failure=failure,
            environment=environment(),
            started=started,
            seconds=round(time.monotonic() - clock, 3),
            **findings.fields(whole=failure is None),
        )
        write_record(run_dir / "result.json", result)
        if failure is None or failure.kind == "not_finite":
            checkpoint.remove(run_dir)  # another failure may be repaired: the next goes on
    return result


def _run_as_it_fits(
    trial: Trial, run_dir: Path, findings: "Findings", preemption: Preemption
) -> None:
    """Train with the largest micro-batch that fits: train.batch_size, else a half, a quarter, ...

    The rows of an optimizer step, their order and the scale of the loss stay the same.
    """
    from studies.engine.definition.train import Train
    from studies.engine.trials.environment import determinism, reset_peak_memory, set_threads
    from studies.engine.trials.failures import DoesNotFit
    from studies.engine.trials.training_run import TrainingRun, free_memory

    settings = Train.read("train", trial.config["train"])
    set_threads(settings.threads)
    rows = settings.batch_size
    while True:
        with determinism(settings.deterministic):
            try:
                return TrainingRun(trial, run_dir, settings, findings, preemption).run(rows)
            except DoesNotFit as error:
                rows = min(rows, findings.data["rows"]["train"])  # a batch had no more
                if rows == 1 or ranks().count > 1:  # the others would be a step ahead
                    raise
                reason = str(error)
        # out of the handler: the error's frames held the model
        rows = findings.micro_batch = rows // 2
        findings.note(f"retried with {rows} at once: {reason}")  # torch's reason may be cut
        free_memory()
        reset_peak_memory()


def main(arguments: list[str] | None = None) -> int:
    """Run the trial in RUN_DIR; 0 where it is done, 1 where it failed, 75 where SIGTERM came."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.engine.trials.trial", description="Run the trial of a run folder."
    )
    parser.add_argument("run_dir", type=Path, help="folder with a trial.json")
    given = parser.parse_args(arguments)
    several = ranks().count > 1  # they cannot agree on a step to end after: SIGTERM ends them
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # a trial runs on one device
    try:
        with contextlib.nullcontext(Preemption()) if several else preemptible() as preemption:
            trial = read_trial(given.run_dir)
            for name, value in deterministic_variables(trial.config.get("train", {})).items():
                os.environ.setdefault(name, value)
            with joined(given.run_dir) as folder:
                result = run_trial(trial, folder, preemption)
    except Preempted:
        return PREEMPTED
    code = 0 if result.status == "done" else 1
    if several:
        leave(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
