"""What a run of the training loop leaves behind, its clock included."""

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

WARM_UP_STEPS = 5
"""First steps that the median step time leaves out, where there are more than twice as many."""


@dataclass
class TrainingProgress:
    """What a run of the loop leaves behind; all fields are kept in a checkpoint."""

    losses: list[float] = field(default_factory=list)
    """Mean loss of each optimizer step."""
    step_seconds: list[float] = field(default_factory=list)
    seconds: float = 0.0
    """Wall time of the loop without evaluations."""
    tokens: int = 0
    evaluated: int = 0
    """The step that was evaluated last."""
    peak_memory_bytes: int = 0
    """Of earlier attempts."""

    def __post_init__(self) -> None:
        self._since: float | None = None

    @contextmanager
    def running(self, on: bool = True) -> Iterator[None]:
        """The clock runs; with `on` false it stands still."""
        was_running = self._since is not None
        self._stop()
        self._since = time.perf_counter() if on else None
        try:
            yield
        finally:
            self._stop()
            self._since = time.perf_counter() if was_running else None

    def _stop(self) -> None:
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the fields in `state`."""
        vars(self).update(state)

    @property
    def final_loss(self) -> float:
        """Mean loss of the last tenth of the steps."""
        last = self.losses[-max(1, len(self.losses) // 10) :]
        return statistics.fmean(last)

    @property
    def median_step_seconds(self) -> float:
        """Median time of one step, first steps left out."""
        enough = len(self.step_seconds) > 2 * WARM_UP_STEPS
        return statistics.median(self.step_seconds[WARM_UP_STEPS if enough else 0 :])
