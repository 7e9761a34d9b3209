"""A database that does not answer: when to ask again, what to say of it, when to give up."""

import time
from collections.abc import Callable

from studies.engine.events import Stopped, Unreachable

LONGEST_WAIT_SECONDS = 30
"""Between two tries to reach a database that is away; the first comes after a second."""
PATIENCE_SECONDS = 3600
"""After so long without a database, and when no trial runs any more, the dispatcher ends."""


class Outage:
    """When to ask a database again that did not answer, and what to say of it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._since: float | None = None
        self._wait, self._next = 1.0, 0.0
        self._cause = ""

    def over(self, idle: bool) -> bool:
        """Whether it is time to ask; raises `Stopped` where `idle` has gone on for too long."""
        now = time.monotonic()
        if self._since is not None and idle and now - self._since > PATIENCE_SECONDS:
            raise Stopped(
                f"the database has not answered for {PATIENCE_SECONDS / 60:.0f} minutes: "
                f"{self._cause}. Results are kept in their folders: once it is back, run the same "
                "command again"
            )
        return now >= self._next

    def begin(self, error: Unreachable) -> None:
        """It did not answer."""
        self._cause = str(error)
        if self._since is None:
            self._since, self._wait = time.monotonic(), 1.0
            self._say(
                f"the database does not answer: {error}. Running trials go on, their results are "
                "kept; trying again"
            )
        self._next = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT_SECONDS)

    def end(self) -> None:
        """It answered."""
        if self._since is not None:
            self._say(f"the database is back after {time.monotonic() - self._since:.0f} s")
            self._since = None
