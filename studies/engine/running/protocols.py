"""What the loop needs: somewhere to run trials (`Runner`), and a record of them (`Ledger`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from studies.engine.definition.study import Budget
from studies.engine.records import Result, Trial


@dataclass(frozen=True)
class Task:
    """A trial to be run."""

    trial: Trial
    run_dir: Path
    """Here results, metrics and logs end up, wherever the trial runs."""
    metric: str
    """A trial without a finite value of this counts as failed."""
    budget: Budget


@dataclass(frozen=True)
class Exit:
    """How a trial ended, beside what it wrote into its folder."""

    code: int | None = None
    """Exit code of its process, negative for a signal; None where the process lives on."""
    said: str = ""
    """Last words of a process that has no result."""
    lost: str = ""
    """Why the trial is not at fault: its machine went away, say. It is run again."""


class RunnerLost(Exception):
    """Nothing can be run any more, e.g. the cluster is gone; the message says what to do."""


class Runner(Protocol):
    """Somewhere to run trials. A trial in hand is known by its task."""

    def free(self) -> int:
        """How many trials may be started now."""

    def start(self, task: Task) -> int:
        """Start `task`, whose folder is ready; the number of the slot it runs in."""

    def poll(self) -> Sequence[tuple[Task, Exit]]:
        """The trials that ended since the last call; their folders hold what they left."""

    def end(self, task: Task) -> None:
        """Ask the trial to save and end; nothing where it has ended by itself."""

    def kill(self, task: Task) -> None:
        """End the trial now."""

    def close(self) -> None:
        """End every process; called once, at the end."""


class Ledger(Protocol):
    """What is queued, running and done."""

    def __len__(self) -> int:
        """Trials that are queued."""

    def next(self, startable: Callable[[Task], bool]) -> Task | None:
        """Claim the first queued trial that is `startable`; None where there is none."""

    def ended(self, task: Task, result: Result, again: bool) -> None:
        """Record what a claimed trial found; queue it `again` where it is to be retried."""

    def give_back(self, task: Task) -> None:
        """Queue a claimed trial again: it was interrupted."""

    def lagging(self, task: Task) -> str | None:
        """Why a running trial is to be ended early; None where it is not."""


class Queue:
    """A ledger in memory: what is done is told by the trials' folders alone."""

    def __init__(self, tasks: Sequence[Task] = ()) -> None:
        self._queued = list(tasks)

    def __len__(self) -> int:
        return len(self._queued)

    def next(self, startable: Callable[[Task], bool]) -> Task | None:
        """Claim the first queued trial that is `startable`."""
        for i, task in enumerate(self._queued):
            if startable(task):
                return self._queued.pop(i)
        return None

    def ended(self, task: Task, result: Result, again: bool) -> None:
        """Queue the trial `again` where it is to be retried."""
        if again:
            self._queued.append(task)

    def give_back(self, task: Task) -> None:
        """Queue a trial that was interrupted."""
        self._queued.append(task)

    def lagging(self, task: Task) -> str | None:
        """No trial is ended early."""
        return None
