"""Where the files of a study lie, what they say about a trial, and who may write there."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import psutil

from studies import files
from studies.engine import records
from studies.engine.definition.study import Study
from studies.engine.errors import StudyError
from studies.engine.records import Result, Trial, read_result

State = Literal["done", "failed", "running", "waiting"]
HOLDER = "pid"
"""In a trial's folder: the process that sees to it."""


def study_dir(study: Study, runs_dir: Path) -> Path:
    """The folder of `study` under its profile."""
    return runs_dir / study.name / study.profile


def trial_dir(trial: Trial, runs_dir: Path) -> Path:
    """The folder of `trial`; its name is the trial's key."""
    return runs_dir / trial.study / trial.profile / "trials" / trial.key


def result_of(trial: Trial, runs_dir: Path) -> Result | None:
    """The trial's result; None where there is none that is whole and its own.

    One that found other files than were planned has trained nothing: it waits for them.
    """
    result = read_result(trial_dir(trial, runs_dir))
    own = result is not None and result.key == trial.key and not result.changed
    return result if own else None


def value_of(result: Result | None, metric: str) -> float | None:
    """The finished trial's finite value of `metric` or `cost/<field>`; None where it has none."""
    if result is None or result.status != "done":
        return None
    return records.value_of(result, metric)


def state_of(trial: Trial, runs_dir: Path) -> State:
    """How far `trial` is, by its files and by whether the command that runs it lives."""
    result = result_of(trial, runs_dir)
    if result is not None:
        return result.status
    return "running" if _is_alive(trial_dir(trial, runs_dir) / HOLDER) else "waiting"


def hold(run_dir: Path) -> None:
    """Say that this process runs the trial of `run_dir`, until `release` or its own end."""
    process = psutil.Process()
    about = {"pid": process.pid, "started": process.create_time()}
    files.write_text(run_dir / HOLDER, json.dumps(about))


def release(run_dir: Path) -> None:
    """Say that nobody runs the trial of `run_dir`."""
    (run_dir / HOLDER).unlink(missing_ok=True)


def _is_alive(file: Path) -> bool:
    """Whether the process that `file` names lives; its number may be another's by now."""
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        started = float(about["started"])
        return abs(psutil.Process(about["pid"]).create_time() - started) < 1
    except (OSError, ValueError, TypeError, KeyError, psutil.Error):
        return False


@contextlib.contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock file `path`; raises `StudyError` with `refusal` and who holds it otherwise."""
    try:
        with files.locked(path, wait=False):
            yield
    except files.Locked as error:
        raise StudyError(f"{refusal} (held by {error})") from None
