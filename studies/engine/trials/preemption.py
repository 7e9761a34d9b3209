"""SIGTERM in a trial: the step that is under way is finished, then the trial saves and ends.

Schedulers send SIGTERM some seconds before SIGKILL; so does the loop.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PREEMPTED = 75
"""Exit code of a trial that was asked to end and can go on later (EX_TEMPFAIL of sysexits.h)."""


class Preempted(BaseException):
    """The trial was asked to end; no `Exception`, so that nobody on the way takes it for theirs."""


class Preemption:
    """Whether a trial was asked to end, and whether it may be interrupted at this place."""

    def __init__(self) -> None:
        self.requested = False
        self._whole = 0

    @contextmanager
    def whole(self) -> Iterator[None]:
        """What runs inside is not interrupted: it looks at `requested` itself where it can stop."""
        self._whole += 1
        try:
            yield
        finally:
            self._whole -= 1

    @contextmanager
    def anywhere(self) -> Iterator[None]:
        """What runs inside may be interrupted, also within `whole`."""
        depth, self._whole = self._whole, 0
        try:
            self.check()
            yield
        finally:
            self._whole = depth

    def check(self) -> None:
        """Raise `Preempted` where the trial was asked to end and may be interrupted."""
        if self.requested and not self._whole:
            raise Preempted

    def ask(self, number: int = signal.SIGTERM, frame: FrameType | None = None) -> None:
        """The handler of SIGTERM."""
        self.requested = True
        self.check()


@contextmanager
def preemptible() -> Iterator[Preemption]:
    """SIGTERM raises `Preempted`, at once or where the trial looks for it; main thread only."""
    preemption = Preemption()
    before = signal.signal(signal.SIGTERM, preemption.ask)
    try:
        yield preemption
    finally:
        signal.signal(signal.SIGTERM, before)
