"""A slot on another machine: a worker there, its trial's folder, and what of it comes home.

An instance lives in a process of its own on the node (an actor); its driver may only call it.
Nothing here imports torch or Ray. Arguments that are `None` are calls that must have worked before.
"""

import contextlib
import functools
import hashlib
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from studies import files
from studies.engine.records import Trial, write_record
from studies.engine.running import slots, worker_process
from studies.engine.running.cluster.pieces import BATCH_BYTES, Outbox, Piece, put
from studies.engine.running.protocols import Exit
from studies.engine.running.worker_process import Command, Worker
from studies.engine.trials.preemption import PREEMPTED

LOOK_SECONDS = 1.0
"""For how long a look waits for news."""
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Order:
    """A trial to be run on a node."""

    number: int
    """Of the orders of one driver."""
    trial: str
    """JSON of the `Trial`."""
    plugins: tuple[tuple[str, bytes | None], ...] = ()
    """Name and content of each of its plug-in files; None where it could not be read."""


@dataclass(frozen=True)
class News:
    """What a look found."""

    pieces: Sequence[Piece] = ()
    checkpoints: Sequence[str] | None = None
    """Those that the trial has, where everything that is to come home was sent."""
    exit: Exit | None = None
    """How the trial ended; comes with the last pieces."""


@dataclass
class _Hand:
    """The trial in hand."""

    number: int
    """Of its order."""
    trial: Trial
    folder: Path
    outbox: Outbox
    exit: Exit | None = None
    unsent: Iterator[Piece] | None = None
    """What a look did not finish with."""


class RemoteSlot:
    """Runs one trial after the other in a folder of its own.

    `end` and `kill` may come from another thread than the rest, also before their trial starts.
    """

    def __init__(self, command: Command, processes: int, count: int) -> None:
        """`command` is a worker's for so many `processes`; `count` slots are on this node."""
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._folder = self._stack.enter_context(scratch_folder())
        environment = {"OMP_NUM_THREADS": "1"} | slots.common_environment(count)
        start = functools.partial(worker_process.run, command(processes))
        self._worker = Worker(start, environment, self._folder / "worker.log")
        self._hand: _Hand | None = None
        self._to_end = -1
        """The last order that was to be ended."""

    def ready(self) -> None:
        """Answer: the slot can be used."""

    def open(self, order: Order) -> None:
        """Make a folder for the trial of `order`."""
        trial = Trial.model_validate_json(order.trial)
        shutil.rmtree(self._folder / "trial", ignore_errors=True)
        folder = self._folder / "trial" / trial.key
        trial = trial.model_copy(update={"plugins": self._plugins(order)})
        write_record(folder / "trial.json", trial)
        (folder / "log.txt").touch()
        self._hand = _Hand(order.number, trial, folder, Outbox(folder))

    def receive(self, pieces: Sequence[Piece]) -> None:
        """Put pieces of its checkpoints into that folder."""
        for piece in pieces:
            put(self._in_hand.folder, piece)

    def start(self, *received: None) -> None:
        """Train, once the checkpoints are `received`."""
        hand = self._in_hand
        hand.outbox = Outbox(hand.folder, known=hand.outbox.checkpoints())
        with self._lock:
            if self._to_end == hand.number:
                hand.exit = Exit(PREEMPTED)
            else:
                self._worker.give(hand.trial, hand.folder)

    def look(self, *started: None) -> News:
        """What is new: at once where there is more of it, else after a while or at the end."""
        hand = self._in_hand
        if hand.unsent is None:
            hand.exit = hand.exit or self._exit_soon()
            hand.unsent = hand.outbox.news() if hand.exit is None else hand.outbox.everything()
        pieces, size = [], 0
        for piece in hand.unsent:
            pieces.append(piece)
            size += len(piece.content)
            if size >= BATCH_BYTES:
                return News(pieces)
        hand.unsent = None
        return News(pieces, hand.outbox.checkpoints(), hand.exit)

    def end(self, number: int) -> None:
        """Ask the trial of order `number` to save and end."""
        with self._lock:
            self._to_end = number
            if self._hand is not None and self._hand.number == number:
                self._worker.end()

    def kill(self, number: int) -> None:
        """End the trial of order `number` now."""
        with self._lock:
            self._to_end = number
            if self._hand is not None and self._hand.number == number:
                self._worker.kill()

    def close(self) -> None:
        """End the worker and remove the folder."""
        with self._lock:
            self._worker.close()
        self._stack.close()

    @property
    def _in_hand(self) -> _Hand:
        assert self._hand is not None, "no trial was opened"
        return self._hand

    def _exit_soon(self) -> Exit | None:
        """How the trial ended, where it does so in the next `LOOK_SECONDS`."""
        end = time.monotonic() + LOOK_SECONDS
        while time.monotonic() < end:
            with self._lock:
                exit_ = self._worker.poll()
            if exit_ is not None:
                return exit_
            time.sleep(POLL_SECONDS)
        return None

    def _plugins(self, order: Order) -> tuple[str, ...]:
        """Paths of its plug-ins here; a process that has loaded one finds it where it was."""
        paths = []
        for name, content in order.plugins:
            digest = hashlib.sha256(content or b"").hexdigest()[:12]
            path = self._folder / "plugins" / digest / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is not None:
                path.write_bytes(content)
            paths.append(str(path))
        return tuple(paths)


def bring_home(run_dir: Path, seen: News) -> None:
    """Write what a look found into `run_dir`; checkpoints that its trial removed go here too.

    Raises:
        OSError: it cannot be written.
    """
    for piece in seen.pieces:
        put(run_dir, piece)
    if seen.checkpoints is not None:
        for path in run_dir.glob("checkpoint-*"):
            if path.name not in seen.checkpoints:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for this process alone; those of processes that were killed are removed."""
    base = Path(tempfile.gettempdir()) / f"basis-zoo-{os.getuid()}"
    folder = base / secrets.token_hex(8)
    with contextlib.ExitStack() as stack:
        with files.locked(base / "lock"):  # nobody takes a folder that is being made for a dead one
            for lock in base.glob("*.held"):
                with contextlib.suppress(files.Locked), files.locked(lock, wait=False):
                    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                    lock.unlink()
            lock = folder.with_suffix(".held")
            stack.enter_context(files.locked(lock, wait=False))
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
