"""A process that imports what trials need, once, and forks a worker whenever one is asked for.

    python -m studies.engine.trials.template FD    # by `running.forking` alone

Each message on the socket FD asks for one worker. It says what the worker's environment has that
this one has not, as JSON (null: what it lacks), and brings the descriptors of its stdin, its
answers, its log and its status. The worker, see `worker`, writes its process id to its status; the
template writes the exit code there once it has ended. Nothing here may start a thread or CUDA: a
fork would lose the one and spoil the other. Where an import starts CUDA all the same, as that of
bitsandbytes does, the template begins anew and leaves imports to its workers.
"""

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import struct
import sys
import warnings
from collections.abc import Iterator

from studies.engine.trials import worker
from studies.engine.trials.leash import tie_to

NUMBER = struct.Struct("=q")
"""What a status holds: the process id and, after the end, the exit code as `subprocess` has it."""
DESCRIPTORS = 4
LARGEST = 2**16
"""Bytes of a message."""
BARE = "bare"
"""Follows FD where workers are to import by themselves."""


def main() -> int:
    """Serve until the other end of the socket is closed (0); as a worker, its exit code."""
    # a scheduler sends it to all processes of a job, and workers need the template while they save
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        if BARE not in sys.argv:
            worker.import_what_trials_need()
            if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
                module = "studies.engine.trials.template"
                os.execv(sys.executable, [sys.executable, "-m", module, sys.argv[1], BARE])
        gc.collect()
        gc.freeze()  # so that workers neither look through nor copy what was imported
        answers = _Template(channel).serve()
    return 0 if answers is None else worker.main(answers)


class _Template:
    """Forks, and waits for what it has forked."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel, self._parent = channel, os.getpid()
        self._statuses: dict[int, int] = {}
        """Descriptors by process id."""

    def serve(self) -> int | None:
        """Fork a worker for each message; None at the end, in a worker where its answers go."""
        with _deaths() as deaths, selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(deaths, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if deaths in ready:
                    os.read(deaths, LARGEST)
                    self._reap()
                if self._channel in ready:
                    message, given, _, _ = socket.recv_fds(self._channel, LARGEST, DESCRIPTORS)
                    if not message:
                        return None
                    if not self._fork(*given):
                        break
        return self._become(json.loads(message), *given)

    def _fork(self, *given: int) -> bool:
        """Whether this is the template still."""
        with warnings.catch_warnings():
            # threads of a BLAS count, which starts them anew in a child
            warnings.simplefilter("ignore", DeprecationWarning)
            process = os.fork()
        if not process:
            return False
        *others, status = given
        for descriptor in others:
            os.close(descriptor)
        self._statuses[process] = status
        return True

    def _become(self, variables: dict[str, str | None], *given: int) -> int:
        """Make this a process of its own, which dies with the template; where its answers go."""
        stdin, answers, log, status = given
        for descriptor in self._statuses.values():
            os.close(descriptor)
        os.setsid()  # a Ctrl-C is not for it, and its whole group can be ended
        tie_to(self._parent)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for descriptor, place in ((stdin, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, place)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        os.write(status, NUMBER.pack(os.getpid()))
        for descriptor in (stdin, log, status):
            os.close(descriptor)
        return answers

    def _reap(self) -> None:
        """Tell the exit codes of the workers that have ended."""
        for process in list(self._statuses):
            ended, code = os.waitpid(process, os.WNOHANG)
            if ended:
                status = self._statuses.pop(process)
                with contextlib.suppress(BrokenPipeError):  # nobody asks any more
                    os.write(status, NUMBER.pack(os.waitstatus_to_exitcode(code)))
                os.close(status)


@contextlib.contextmanager
def _deaths() -> Iterator[int]:
    """A descriptor that can be read where a child has died."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    handler = signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    try:
        yield reads
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, handler)
        os.close(reads)
        os.close(writes)


if __name__ == "__main__":
    sys.exit(main())
