"""A slot on another machine as its driver sees it."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.engine.running.cluster.pieces import Outbox, batches, drop_half
from studies.engine.running.cluster.remote import Order
from studies.engine.running.protocols import Task

SILENT_SECONDS = 15.0
"""A slot that was to be killed and is silent for so long is lost."""


@dataclass(frozen=True)
class Node:
    """A node with our code."""

    id: str
    name: str
    cpus: int
    gpus: int


@dataclass(eq=False)
class Actor:
    """A slot, and what it is at."""

    number: int
    node: Node
    actor: Any
    """Ray's handle of a `RemoteSlot`."""
    ref: Any
    """What it was asked last: whether it is ready, or what is new; None while it is idle."""
    task: Task | None = None
    order: int = -1
    """Number of the trial in hand."""
    heard: float = 0.0
    killed: bool = False

    @property
    def idle(self) -> bool:
        """Whether it may be given a trial."""
        return self.task is None and self.ref is None

    @property
    def usable(self) -> bool:
        """Whether it has ever answered."""
        return self.task is not None or self.ref is None

    @property
    def silent(self) -> bool:
        """Whether it was to be killed and has not been heard since."""
        return self.killed and time.monotonic() - self.heard > SILENT_SECONDS

    def start(self, task: Task, order: int) -> None:
        """Send the trial, its plug-ins and its checkpoints, and ask for news."""
        self.task, self.order, self.killed = task, order, False
        drop_half(task.run_dir)
        plugins = tuple((Path(file).name, _content(Path(file))) for file in task.trial.plugins)
        sent = [self.actor.open.remote(Order(order, task.trial.model_dump_json(), plugins))]
        for pieces in batches(Outbox(task.run_dir).new_checkpoints()):
            sent.append(self.actor.receive.remote(pieces))
        started = self.actor.start.remote(*sent)
        self.ref = self.actor.look.remote(started)

    def call(self, method: str) -> None:
        """Call `end` or `kill` for the trial in hand; nobody waits for the answer."""
        getattr(self.actor, method).options(concurrency_group="control").remote(self.order)


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None  # the trial says so
