"""Worker processes seen from outside: handed trials, watched, judged by result.json, replaced."""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from studies.engine import slots
from studies.engine.dispatching.child import LEASH, checked, last_line, set_aside, without_result
from studies.engine.records import Failure, Result, Trial, read_result, write_record
from studies.engine.trials.preemption import PREEMPTED
from studies.engine.worker import RETIRES


@dataclass(frozen=True)
class Task:
    """A trial to be run."""

    trial: Trial
    run_dir: Path
    metric: str
    """A trial without a finite value of this counts as failed."""
    limit_seconds: float


class Worker:
    """One worker process; it is replaced where it dies, so the object lives on."""

    def __init__(self, slot: int, environment: Mapping[str, str], log: Path) -> None:
        """Start it; `log` gets what it says while it has no trial."""
        self.slot = slot
        self._environment, self._log = dict(environment), log
        self._own: dict[str, str] = {}
        """Variables of the trial in hand."""
        self.task: Task | None = None
        self._start()

    def give(self, task: Task) -> None:
        """Hand over `task`; files of an earlier attempt are moved aside."""
        assert self.task is None
        own = slots.deterministic_variables(task.trial.config.get("train", {}))
        if own != self._own or self._retired or self._process.poll() is not None:
            self._own = own
            self._replace()
        self.task = task
        self._attempt = set_aside(task.run_dir)
        self._began = time.monotonic()
        self._began_utc = datetime.now(UTC).isoformat(timespec="seconds")
        write_record(task.run_dir / "trial.json", task.trial)
        (task.run_dir / "log.txt").touch()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{task.run_dir.resolve()}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:  # it died just now: `poll` sees that and says why
            return

    def poll(self) -> Result | None:
        """The result of the trial in hand once it has ended, however it ended."""
        task = self.task
        if task is None:
            return None
        ended = task.trial.key in self._heard()
        late = time.monotonic() - self._began > task.limit_seconds
        died = self._process.poll() is not None
        if not (ended or late or died):
            return None
        ended = ended or task.trial.key in self._heard()  # said just before it died
        if not ended:
            self.kill()
        self.task = None
        found = read_result(task.run_dir) if ended else None
        if found is None or found.key != task.trial.key:
            failure = self._reason(task, late and not died)
            found = Result(
                key=task.trial.key,
                status="failed",
                failure=failure,
                started=self._began_utc,
                seconds=round(time.monotonic() - self._began, 3),
            )
        found = checked(found, task.metric).model_copy(update={"attempt": self._attempt})
        write_record(task.run_dir / "result.json", found)
        return found

    @property
    def lives(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """Ask the process to end; a trial in hand is saved."""
        if self.lives:
            self._process.terminate()

    def kill(self) -> None:
        """End the process and what it started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # gone; macOS says EPERM for a dead group
            pass
        self._process.wait()

    def close(self) -> None:
        """End the process; a trial in hand keeps no result."""
        self.kill()
        self._selector.close()
        os.close(self._answers)
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self.task is not None:
            (self.task.run_dir / "result.json").unlink(missing_ok=True)

    def _replace(self) -> None:
        self.close()
        self._start()

    def _start(self) -> None:
        self._answers, theirs = os.pipe()
        os.set_blocking(self._answers, False)
        leash = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid())]
        command = [sys.executable, "-m", "studies.engine.worker", str(theirs)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*leash, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._own | self._environment,
                pass_fds=(theirs,),
                start_new_session=True,  # a Ctrl-C is ours; its whole group can be ended
            )
        os.close(theirs)
        self._retired = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._answers, selectors.EVENT_READ)

    def _heard(self) -> Sequence[str]:
        """What it has said since it was last asked; keeps in mind that it retires."""
        if not self._selector.select(timeout=0):
            return ()
        words = os.read(self._answers, 65536).decode().split()
        self._retired = self._retired or RETIRES in words
        return words

    def _reason(self, task: Task, late: bool) -> Failure:
        if late:
            return Failure(
                kind="timeout",
                message=f"still running after {task.limit_seconds / 60:g} minutes; raise "
                "budget.per_trial_minutes or train less",
            )
        code = self._process.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = "; perhaps the machine ran out of memory" if name == "SIGKILL" else ""
            return Failure(kind="signal", message=f"its worker was killed by {name}{hint}")
        if code == PREEMPTED:
            message = (
                "its worker was asked to end (SIGTERM); --retry-failed goes on from what it saved"
            )
            return Failure(kind="signal", message=message)
        said = last_line(task.run_dir / "log.txt") or last_line(self._log) or "it said nothing"
        return without_result(f"its worker ended with exit code {code}, no result: {said}")
