"""A runner for tests of what is around trials: no process has to import torch for them."""

from collections.abc import Sequence

from studies.engine.running.protocols import Exit, Task
from studies.engine.trials.serving import output_to
from studies.engine.trials.trial import run_trial


class TrainsHere:
    """Real trials, one at a time, in this process; each has ended once it has started."""

    def __init__(self, *arguments: object) -> None:
        """As a `LocalRunner`; nothing of it matters here."""
        self._ended: list[tuple[Task, Exit]] = []

    def free(self) -> int:
        """How many trials may be started now."""
        return 1 - len(self._ended)

    def start(self, task: Task) -> int:
        """Train it to its end."""
        with output_to(task.run_dir / "log.txt"):
            run_trial(task.trial, task.run_dir)
        self._ended.append((task, Exit()))
        return 0

    def poll(self) -> Sequence[tuple[Task, Exit]]:
        """What ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def end(self, task: Task) -> None:
        """It has ended."""

    kill = end

    def close(self) -> None:
        """There is no process."""
