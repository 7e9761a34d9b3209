"""Worker processes forked from one that has imported what trials need, seen from outside."""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from studies.engine.running.attempts import last_line
from studies.engine.trials.leash import leashed
from studies.engine.trials.template import NUMBER

COMMAND = [sys.executable, "-m", "studies.engine.trials.template"]
POSSIBLE = sys.platform == "linux"
"""Elsewhere a process that has loaded system libraries may not be forked."""


_resting: "Template | None" = None
"""What the last runner of this process left: stages, looks and studies that follow each other need
not import everything again."""


def template(environment: Mapping[str, str], log: Path) -> "Template":
    """The template that rests, where it is as one of this `environment` would be; else a new one.

    `log` is a new one's.
    """
    global _resting
    rested, _resting = _resting, None
    made = Template(environment, log)
    if rested is None or rested.serves(made):
        return rested or made
    rested.close()
    return made


class Template:
    """Forks workers; the process that does is started with the first, and anew where it died."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        """`log` gets what it says; workers have logs of their own."""
        # torch would start CUDA to say whether there is a GPU, and then it could not be forked
        self._environment = {**environment, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def serves(self, other: "Template") -> bool:
        """Whether its workers are as those of `other`."""
        return self._environment == other._environment

    def start(
        self, environment: Mapping[str, str], stdin: int, answers: int, log: Path
    ) -> "Forked":
        """Ask for a worker, which is there once everything is imported."""
        channel = self._channel_to_it()
        reads, writes = os.pipe()
        with log.open("wb") as file:
            given = [stdin, answers, file.fileno(), writes]
            message = json.dumps(self._unlike(environment)).encode()
            with contextlib.suppress(ConnectionError):  # it died just now: the worker's status ends
                socket.send_fds(channel, [message], given)
        os.close(writes)
        return Forked(reads, log, self._log)

    def rest(self) -> None:
        """Keep it for the next runner, once all its workers have ended."""
        global _resting
        if self._process is not None and self is not _resting:
            if _resting is not None:
                _resting.close()
            _resting = self

    def close(self) -> None:
        """End the process, and with it all workers."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._channel.close()
            self._process = None

    def _unlike(self, environment: Mapping[str, str]) -> dict[str, str | None]:
        """What `environment` has that the template's has not; None for what it lacks."""
        own = self._environment
        new = {name: value for name, value in environment.items() if own.get(name) != value}
        return {**new, **dict.fromkeys(own.keys() - environment.keys())}

    def _channel_to_it(self) -> socket.socket:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with theirs, self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    leashed([*COMMAND, str(theirs.fileno())]),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # a Ctrl-C is ours
                )
        return self._channel


class Forked:
    """A forked worker, as far as it is like `subprocess.Popen`."""

    def __init__(self, status: int, log: Path, template_log: Path) -> None:
        self._status, self._log, self._template_log = status, log, template_log
        self._asked_to_end = False
        self.pid: int | None = None
        """None before it is forked."""
        self.returncode: int | None = None
        """None while it lives."""
        os.set_blocking(status, False)

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives, or is not there yet."""
        while self.returncode is None:
            try:
                number = os.read(self._status, NUMBER.size)
            except BlockingIOError:
                return None
            self._hear(number)
        return self.returncode

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        while (code := self.poll()) is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._status, selectors.EVENT_READ)
                selector.select()
        return code

    def terminate(self) -> None:
        """Ask it to end, as soon as it is there."""
        self._asked_to_end = True
        if self.poll() is None and self.pid is not None:
            self._signal(signal.SIGTERM)

    def _hear(self, number: bytes) -> None:
        """Take the next number of its status."""
        if not number:  # the template is gone, and so is the worker
            self._end(-signal.SIGKILL if self.pid else 1)
            if not self.pid:
                with contextlib.suppress(OSError):  # a full disk: the trial fails without a reason
                    self._log.write_text(f"{last_line(self._template_log)}\n", encoding="utf-8")
        elif self.pid is None:
            (self.pid,) = NUMBER.unpack(number)
            if self._asked_to_end:
                self._signal(signal.SIGTERM)
        else:
            self._end(*NUMBER.unpack(number))

    def _end(self, code: int) -> None:
        self.returncode = code
        os.close(self._status)

    def _signal(self, number: int) -> None:
        assert self.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
