"""One trial as one subprocess: started, watched, ended, and judged by its result.json alone."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from studies.engine import slots
from studies.engine.records import Failure, Result, Trial, read_result, write_record
from studies.engine.trials.preemption import PREEMPTED

Command = Callable[[Path], Sequence[str]]
"""From a trial's folder to the command that trains it."""

STAY = ("attempt-", "checkpoint-", ".checkpoint-")
LEASH = Path(__file__).with_name("leash.py")
GRACE_SECONDS = 30.0
"""Between SIGTERM and SIGKILL: a step is finished and a checkpoint written."""


def default_command(run_dir: Path, processes: int = 1) -> Sequence[str]:
    """The trainer, in this interpreter; in several `processes` see `ranks`."""
    if processes > 1:
        return [sys.executable, "-m", "studies.engine.trials.ranks", str(processes), str(run_dir)]
    return [sys.executable, "-m", "studies.engine.trials.trial", str(run_dir)]


class Child:
    """A running trial."""

    def __init__(
        self,
        trial: Trial,
        run_dir: Path,
        slot: int,
        command: Command,
        environment: Mapping[str, str],
        limit_seconds: float,
    ) -> None:
        """Start `trial` in `run_dir`, whose files of an earlier attempt are moved aside."""
        self.trial, self.run_dir, self.slot = trial, run_dir, slot
        self.attempt = set_aside(run_dir)
        self.started = time.monotonic()
        self.started_utc = datetime.now(UTC).isoformat(timespec="seconds")
        self._limit = limit_seconds
        self._asked_to_end: float | None = None
        self._timed_out = False
        self._pruned: str | None = None
        write_record(run_dir / "trial.json", trial)
        leash = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid())]
        with (run_dir / "log.txt").open("wb") as log:
            self._process = subprocess.Popen(
                [*leash, *command(run_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**slots.deterministic_variables(_train(trial)), **environment},
                start_new_session=True,  # a Ctrl-C is ours to pass on; its whole group can be ended
            )
        (run_dir / "pid").write_text(str(self._process.pid), encoding="ascii")

    def poll(self) -> bool:
        """Whether it has ended; ends it where its time is up."""
        if self._process.poll() is not None:
            self._signal(signal.SIGKILL)  # what it may have left behind in its group
            (self.run_dir / "pid").unlink(missing_ok=True)
            return True
        now = time.monotonic()
        if self._asked_to_end is None and now - self.started > self._limit:
            self._timed_out = True
            self.terminate()
        if self._asked_to_end is not None and now - self._asked_to_end > GRACE_SECONDS:
            self._signal(signal.SIGKILL)
        return False

    @property
    def preempted(self) -> bool:
        """Whether the system asked it to end, not we ourselves: it can go on later."""
        ours = self._timed_out or self._pruned is not None
        asked = self._process.returncode == PREEMPTED and not ours
        return asked and read_result(self.run_dir) is None  # the signal may have come too late

    def terminate(self) -> None:
        """Ask it to end; `poll` kills it when it does not."""
        self._asked_to_end = time.monotonic()
        self._signal(signal.SIGTERM)

    def prune(self, reason: str) -> None:
        """Ask it to end for `reason`, which becomes its failure."""
        if self._asked_to_end is None:
            self._pruned = reason
            self.terminate()

    def kill(self) -> None:
        """End it now."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def result(self, metric: str) -> Result:
        """What it found; for a trial that left no result of its own, why, which is also stored.

        A result without a finite `metric`, on which the study is decided, counts as failed.
        """
        found = read_result(self.run_dir)
        if found is None or found.key != self.trial.key:
            found = Result(
                key=self.trial.key,
                status="failed",
                failure=self._reason(),
                started=self.started_utc,
                seconds=time.monotonic() - self.started,
            )
        elif found.status == "failed" and (self._timed_out or self._pruned):
            found = found.model_copy(update={"failure": self._reason()})
        found = checked(found, metric).model_copy(update={"attempt": self.attempt})
        write_record(self.run_dir / "result.json", found)
        return found

    def _reason(self) -> Failure:
        code = self._process.returncode
        if self._pruned is not None:
            return Failure(kind="pruned", message=self._pruned)
        if self._timed_out:
            kept = any(self.run_dir.glob("checkpoint-*"))
            return Failure(
                kind="timeout",
                message=f"still running after {self._limit / 60:g} minutes; raise "
                "budget.per_trial_minutes or train less"
                + (". --retry-failed goes on from its checkpoint" if kept else ""),
            )
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = "; perhaps the machine ran out of memory" if name == "SIGKILL" else ""
            return Failure(kind="signal", message=f"killed by {name}{hint}")
        if code == PREEMPTED:
            return Failure(kind="signal", message=f"ended by SIGTERM in {self.attempt} attempts")
        said = last_line(self.run_dir / "log.txt") or "it said nothing"
        return without_result(f"ended with exit code {code} and no result: {said}")

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):  # gone; macOS says EPERM for a dead group
            return


def _train(trial: Trial) -> Mapping[str, Any]:
    return trial.config.get("train", {})


def without_result(message: str) -> Failure:
    """The failure of a trial whose process ended saying `message`."""
    if "No space left on device" in message:
        return Failure(
            kind="disk_full", message=f"{message}. Free space below --runs, then --retry-failed"
        )
    return Failure(kind="exception", message=message)


def checked(result: Result, metric: str) -> Result:
    """`result`, failed where it says done without a finite `metric`: nothing is decided on it."""
    value = result.metrics.get(metric)
    if result.status == "failed" or (value is not None and math.isfinite(value)):
        return result
    message = f"{metric} is {'missing' if value is None else value}"
    failure = Failure(kind="not_finite", message=message)
    return result.model_copy(update={"status": "failed", "failure": failure})


def last_line(log: Path) -> str:
    """The last line of text in `log`, "" where it has none."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4000))
        lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else ""


def set_aside(run_dir: Path) -> int:
    """Move the files of the last attempt, if any, to `attempt-<n>`; the new attempt's number.

    Its checkpoints stay: the new attempt goes on from them.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    known = read_result(run_dir)  # another host's has a number that is not of this folder
    aside = [int(path.name.removeprefix("attempt-")) for path in run_dir.glob("attempt-*")]
    number = max(1 + max(aside, default=0), known.attempt if known is not None else 1)
    old = [path for path in run_dir.iterdir() if not path.name.startswith(STAY)]
    if not any(path.name in ("log.txt", "result.json") for path in old):
        return number
    target = run_dir / f"attempt-{number}"
    target.mkdir()
    for path in old:
        path.rename(target / path.name)
    return number + 1
