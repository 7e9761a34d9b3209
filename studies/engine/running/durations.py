"""How long trials take, so that nothing is started that would end too late."""

import math
import time

from studies.engine.records import Trial


class Durations:
    """The longest trial of each arm, on each task, so far, and a limit in `minutes` from now."""

    def __init__(self, minutes: float | None = None) -> None:
        self.limit = "" if minutes is None else f"{minutes:g} minutes"
        """In words; empty without a limit."""
        self._end = math.inf if minutes is None else time.monotonic() + minutes * 60
        self._seconds: dict[tuple[str, ...], float] = {}

    def note(self, trial: Trial, seconds: float) -> None:
        """`trial` took `seconds`."""
        arm = _arm(trial)
        self._seconds[arm] = max(self._seconds.get(arm, 0.0), seconds)

    def fits(self, trial: Trial) -> bool:
        """Whether `trial` will probably end in time.

        An arm that never ran is taken to need as long as whatever took longest.
        """
        longest = max(self._seconds.values(), default=0.0)
        return time.monotonic() + self._seconds.get(_arm(trial), longest) < self._end


def _arm(trial: Trial) -> tuple[str, ...]:
    return trial.study, trial.profile, *trial.cell
