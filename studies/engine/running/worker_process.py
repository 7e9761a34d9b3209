"""A warm worker process seen from outside: handed trials, heard, ended, replaced."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from studies.engine.records import Trial
from studies.engine.running.attempts import last_line
from studies.engine.running.protocols import Exit
from studies.engine.trials.devices import deterministic_variables
from studies.engine.trials.leash import leashed
from studies.engine.trials.serving import RETIRES

Command = Callable[[int], Sequence[str]]
"""From the number of processes of a trial to the command of a worker."""


def worker_command(processes: int = 1) -> list[str]:
    """What serves trials: in this interpreter, each trial in `processes` processes, see `ranks`."""
    if processes > 1:
        return [sys.executable, "-m", "studies.engine.trials.ranks", str(processes)]
    return [sys.executable, "-m", "studies.engine.trials.worker"]


class Worker:
    """A process that trains one trial after the other; replaced where it is unfit for the next.

    A worker serves trials of one set of plug-ins: what a plug-in does to the process stays there.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """`command` gets a file descriptor for its answers; `log` gets what it says between trials.

        No process is started before it is needed.
        """
        self._command, self._environment, self._log = command, environment, log
        self._kind: tuple[object, ...] = ()
        """What the trials of the process have in common."""
        self._process: subprocess.Popen[bytes] | None = None
        self._retired = False
        self.key: str | None = None
        """The trial in hand."""

    def wait_for(self, trial: Trial) -> int:
        """How long `trial` would wait here, to choose by: 0 not, 1 for a start, 2 and cost one."""
        if self._process is None or self._retired or not self._lives:
            return 1
        return 0 if _kind(trial) == self._kind else 2

    def give(self, trial: Trial, run_dir: Path) -> None:
        """Train `trial`, whose folder is `run_dir`."""
        if self.wait_for(trial):
            self.close()
            self._kind = _kind(trial)
            self._start(_variables(trial))
        self.key = trial.key
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died just now: `poll` sees that
            self._process.stdin.write(os.fsencode(run_dir.resolve()) + b"\0")
            self._process.stdin.flush()

    def poll(self) -> Exit | None:
        """How the trial in hand ended; None while it runs."""
        if self.key is None or self._process is None:
            return None
        died = self._process.poll() is not None
        if self.key in self._heard():  # perhaps said just before it died
            self.key = None
            return Exit()
        if not died:
            return None
        self.key = None
        code = self._process.returncode
        self.close()  # with what it may have left behind in its process group
        return Exit(code, last_line(self._log))

    def end(self) -> None:
        """Ask the process to end; a trial in hand is saved."""
        if self._process is not None and self._lives:
            self._process.terminate()

    def kill(self) -> None:
        """End the process and what it started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM when dead
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End the process for good; the next trial gets another."""
        if self._process is None:
            return
        self.kill()
        self._selector.close()
        os.close(self._answers)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process = None

    @property
    def _lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _start(self, own: Mapping[str, str]) -> None:
        self._answers, theirs = os.pipe()
        os.set_blocking(self._answers, False)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                leashed([*self._command, str(theirs)]),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**own, **self._environment},
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


def _variables(trial: Trial) -> dict[str, str]:
    return deterministic_variables(trial.config.get("train", {}))


def _kind(trial: Trial) -> tuple[object, ...]:
    """What all trials of one process have in common."""
    return tuple(sorted(trial.plugin_hashes)), tuple(_variables(trial).items())
