"""One attempt at a trial: its folder made ready, and its result judged by result.json alone."""

import math
import signal
from pathlib import Path

from studies.engine.planning import runs
from studies.engine.records import Failure, Result, read_result, write_record
from studies.engine.running.protocols import Exit, Task
from studies.engine.trials.preemption import PREEMPTED

STAY = ("attempt-", "checkpoint-", ".checkpoint-")


def prepare(task: Task) -> int:
    """Make the folder of `task` ready for another attempt; its number."""
    number = set_aside(task.run_dir)
    write_record(task.run_dir / "trial.json", task.trial)
    (task.run_dir / "log.txt").touch()
    runs.hold(task.run_dir)
    return number


def set_aside(run_dir: Path) -> int:
    """Move the files of the last attempt, if any, to `attempt-<n>`; the new attempt's number.

    Its checkpoints stay: the new attempt goes on from them.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    known = read_result(run_dir)  # an imported one has a number that is not of this folder
    aside = [path.name.removeprefix("attempt-") for path in run_dir.glob("attempt-*")]
    number = max(1 + max(map(int, filter(str.isdigit, aside)), default=0),
                 known.attempt if known is not None else 1)  # fmt: skip
    old = [path for path in run_dir.iterdir() if not path.name.startswith(STAY)]
    if not any(path.name in ("log.txt", "result.json") for path in old):
        return number
    target = run_dir / f"attempt-{number}"
    target.mkdir()
    for path in old:
        path.rename(target / path.name)
    return number + 1


def judged(task: Task, attempt: int, exit_: Exit, reason: Failure | None, started: str,
           seconds: float) -> Result:  # fmt: skip
    """What the attempt found, which is also stored; where it left no result of its own, why.

    Args:
        task: The trial that ended.
        attempt: Its number.
        exit_: How it ended.
        reason: Why the loop ended it (time, pruning); None where it ended by itself.
        started: UTC, ISO 8601.
        seconds: For how long it ran.
    """
    result = read_result(task.run_dir)
    if result is None or result.key != task.trial.key:
        failure = reason or _failure(task, attempt, exit_)
        result = Result(key=task.trial.key, status="failed", failure=failure, started=started,
                       seconds=round(seconds, 3))  # fmt: skip
    elif result.status == "failed" and reason is not None:
        result = result.model_copy(update={"failure": reason})
    result = checked(result, task.metric).model_copy(update={"attempt": attempt})
    write_record(task.run_dir / "result.json", result)
    return result


def checked(result: Result, metric: str) -> Result:
    """`result`, failed where it says done without a finite `metric`: nothing is decided on it."""
    value = result.metrics.get(metric)
    if result.status == "failed" or (value is not None and math.isfinite(value)):
        return result
    message = f"{metric} is {'missing' if value is None else value}"
    failure = Failure(kind="not_finite", message=message)
    return result.model_copy(update={"status": "failed", "failure": failure})


def timeout(task: Task) -> Failure:
    """The failure of a trial that took too long."""
    resumable = any(task.run_dir.glob("checkpoint-*"))
    return Failure(
        kind="timeout",
        message=f"still running after {task.budget.per_trial_minutes:g} minutes; raise "
        "budget.per_trial_minutes or train less"
        + (". --retry-failed goes on from its checkpoint" if resumable else ""),
    )


def last_line(log: Path) -> str:
    """The last line of text in `log`, "" where it has none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4000))
            lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip()[:300] if lines else ""


def _failure(task: Task, attempt: int, exit_: Exit) -> Failure:
    """Why there is no result."""
    if exit_.lost:
        return Failure(kind="signal", message=f"{exit_.lost}, {attempt} times")
    if exit_.code is not None and exit_.code < 0:
        name = signal.Signals(-exit_.code).name
        hint = "; perhaps the machine ran out of memory" if name == "SIGKILL" else ""
        return Failure(kind="signal", message=f"killed by {name}{hint}")
    if exit_.code == PREEMPTED:
        return Failure(kind="signal", message=f"ended by SIGTERM in {attempt} attempts")
    said = last_line(task.run_dir / "log.txt") or exit_.said or "it said nothing"
    ended = "ended" if exit_.code is None else f"ended with exit code {exit_.code}"
    message = f"{ended} and no result: {said}"
    if "No space left on device" in message:
        return Failure(
            kind="disk_full", message=f"{message}. Free space below --runs, then --retry-failed"
        )
    return Failure(kind="exception", message=message)
