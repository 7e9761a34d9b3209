"""A warm worker process seen from outside: handed trials, heard, ended, replaced."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from studies.engine.records import Trial
from studies.engine.running.attempts import last_line
from studies.engine.running.protocols import Exit
from studies.engine.trials.devices import deterministic_variables
from studies.engine.trials.leash import leashed
from studies.engine.trials.serving import RETIRES

Command = Callable[[int], Sequence[str]]
"""From the number of processes of a trial to the command of a worker."""


class Process(Protocol):
    """What is used of `subprocess.Popen`."""

    @property
    def pid(self) -> int | None:
        """Its number, and its group's; None where it is yet to start."""

    @property
    def returncode(self) -> int | None:
        """None while it lives."""

    def poll(self) -> int | None:
        """Its exit code, None while it lives."""

    def wait(self) -> int:
        """Its exit code, once it has ended."""

    def terminate(self) -> None:
        """Ask it to end."""


Start = Callable[[Mapping[str, str], int, int, Path], Process]
"""Starts a worker: its environment, descriptors of its stdin and of its answers, and its log."""


def worker_command(processes: int = 1) -> list[str]:
    """What serves trials: in this interpreter, each trial in `processes` processes, see `ranks`."""
    if processes > 1:
        return [sys.executable, "-m", "studies.engine.trials.ranks", str(processes)]
    return [sys.executable, "-m", "studies.engine.trials.worker"]


def run(
    command: Sequence[str], environment: Mapping[str, str], stdin: int, answers: int, log: Path
) -> Process:
    """Start a worker by `command`, which gets the descriptor of its answers."""
    with log.open("wb") as file:
        return subprocess.Popen(
            leashed([*command, str(answers)]),
            stdin=stdin,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(answers,),
            start_new_session=True,  # a Ctrl-C is ours; its whole group can be ended
        )


class Worker:
    """A process that trains one trial after the other; replaced where it is unfit for the next.

    A worker serves trials of one set of plug-ins: what a plug-in does to the process stays there.
    """

    def __init__(self, start: Start, environment: Mapping[str, str], log: Path) -> None:
        """`log` gets what it says between trials. No process is started before it is needed."""
        self._start_process, self._environment, self._log = start, environment, log
        self._kind: tuple[object, ...] = ()
        """What the trials of the process have in common."""
        self._process: Process | None = None
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
        with contextlib.suppress(BrokenPipeError):  # it died just now: `poll` sees that
            os.write(self._orders, os.fsencode(run_dir.resolve()) + b"\0")

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
        self._process.poll()  # hears whether it is there by now
        if self._process.pid is None:
            self._process.terminate()
        else:
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
        os.close(self._orders)
        self._process = None

    @property
    def exists(self) -> bool:
        """Whether a process was asked for, and not closed."""
        return self._process is not None

    @property
    def started(self) -> bool:
        """Whether there is, or was, a process by now: one that is asked for comes later."""
        if self._process is not None:
            self._process.poll()  # hears of it
        return self._process is not None and self._process.pid is not None

    @property
    def _lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _start(self, own: Mapping[str, str]) -> None:
        stdin, self._orders = os.pipe()
        self._answers, theirs = os.pipe()
        os.set_blocking(self._answers, False)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**own, **self._environment}
        self._process = self._start_process(environment, stdin, theirs, self._log)
        os.close(stdin)
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
