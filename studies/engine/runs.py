"""Where the files of a study lie, what they say about a trial, and who may write there."""

import contextlib
import fcntl
import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from studies.engine.definition.study import Study
from studies.engine.errors import StudyError
from studies.engine.records import Result, Trial, read_result

State = Literal["done", "failed", "running", "waiting"]


def study_dir(study: Study, runs_dir: Path) -> Path:
    """The folder of `study` under its profile."""
    return runs_dir / study.name / study.profile


def trial_dir(trial: Trial, runs_dir: Path) -> Path:
    """The folder of `trial`; its name is the trial's key."""
    return runs_dir / trial.study / trial.profile / "trials" / trial.key


def result_of(trial: Trial, runs_dir: Path) -> Result | None:
    """The trial's result; None where there is none that is whole and its own."""
    result = read_result(trial_dir(trial, runs_dir))
    return result if result is not None and result.key == trial.key else None


def value_of(result: Result | None, metric: str) -> float | None:
    """The finished trial's finite value of `metric`; None where there is none."""
    if result is None or result.status != "done":
        return None
    value = result.metrics.get(metric, math.nan)
    return value if math.isfinite(value) else None


def state_of(trial: Trial, runs_dir: Path) -> State:
    """How far `trial` is, by its files and by whether its process lives."""
    result = result_of(trial, runs_dir)
    if result is not None:
        return result.status
    return "running" if _lives(trial_dir(trial, runs_dir) / "pid") else "waiting"


def _lives(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text(encoding="ascii")), 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return False
    except PermissionError:  # somebody else's process: it lives
        return True
    return True


@contextlib.contextmanager
def locked(path: Path, refusal: str = "") -> Iterator[None]:
    """Hold the lock file `path`; the system lets go of it when the process ends, however it ends.

    Waits for the lock, or raises `StudyError` with `refusal` and who holds it where that is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except BlockingIOError:
            file.seek(0)
            raise StudyError(f"{refusal} (held by {file.read().strip() or 'unknown'})") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
