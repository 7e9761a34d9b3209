"""`budget.max_hours`: all stages and looks of a command share them."""

import contextlib
import time
from collections.abc import Iterator

from studies.engine.running.events import Stopped


class Hours:
    """What is left of them."""

    def __init__(self, limit: float | None) -> None:
        self.left = limit
        """None without a limit."""

    @contextlib.contextmanager
    def spent(self) -> Iterator[None]:
        """Take off the time that the block takes."""
        began = time.monotonic()
        yield
        if self.left is not None:
            self.left -= (time.monotonic() - began) / 3600

    @property
    def used_up(self) -> bool:
        """Whether nothing more is begun."""
        return self.left is not None and self.left <= 0

    def check(self, what: str) -> None:
        """Raise `Stopped` where none are left for `what`, which would begin now."""
        if self.used_up:
            raise Stopped(
                f"{what}: budget.max_hours is used up; run the same command again to continue"
            )
