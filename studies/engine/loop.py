"""The loop that keeps the slots busy: claim, start, watch, tell, in one thread."""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from studies.engine import runs, slots
from studies.engine.child import Child, Command
from studies.engine.events import Event, Interrupted, Stopped
from studies.engine.records import Result, Trial
from studies.engine.study import Study

POLL_SECONDS = 0.05
HEARTBEAT_SECONDS = 10
LOOK_SECONDS = 1.0
"""Between two looks at the validation values of running trials."""
EQUAL_FAILURES = 3
"""So many equal failures before any success: the study is broken, not the arm."""
MIN_FREE_BYTES = 200 * 2**20


class Ledger(Protocol):
    """Where attempts are recorded; `number` names one."""

    def enqueue(self, *trials: Trial) -> None:
        """Queue those of `trials` that are not queued."""

    def claim(self, trial: Trial) -> int:
        """Mark the queued `trial` as running; its number."""

    def heartbeat(self, number: int) -> None:
        """Show that attempt `number` is being watched."""

    def tell(self, number: int, result: Result) -> None:
        """Record what attempt `number` found."""

    def give_back(self, number: int, trial: Trial) -> None:
        """Mark attempt `number` as interrupted and queue `trial` again."""


class Source(Protocol):
    """Trials that are still to be run; a list is one."""

    def __len__(self) -> int: ...

    def pop(self, index: int) -> Trial:
        """The next one (`index` 0)."""

    def append(self, trial: Trial) -> None:
        """Take one back that is to be run again."""


class Loop:
    """The loop that keeps the slots busy."""

    def __init__(
        self,
        study: Study,
        runs_dir: Path,
        slot_count: int,
        on_event: Callable[[Event], None],
        command: Command,
        ledger: Ledger,
        signals: list[int],
        lagging: Callable[[Path], str | None] = lambda run_dir: None,
    ) -> None:
        """`lagging` says why the trial in a run folder is to be ended early, see `Pruning`."""
        self._study, self._runs_dir, self._slot_count = study, runs_dir, slot_count
        self._on_event, self._command, self._ledger = on_event, command, ledger
        self._signals, self._lagging = signals, lagging
        self._running: dict[int, Child] = {}
        """By the number that the ledger gave."""
        self._attempts: dict[str, int] = {}
        self._first_failures: list[str] | None = []

    def work(self, queue: Source) -> None:
        """Run all of `queue`; however it ends, no child is left."""
        started = heartbeat = looked = time.monotonic()
        max_hours = self._study.budget.max_hours
        try:
            while queue or self._running:
                if self._signals:
                    raise Interrupted
                late = max_hours is not None and time.monotonic() - started > max_hours * 3600
                while queue and len(self._running) < self._slot_count and not late:
                    self._start(queue.pop(0))
                for number, child in list(self._running.items()):
                    if child.poll():
                        del self._running[number]
                        for again in self._finish(number, child):
                            queue.append(again)
                if time.monotonic() - looked > LOOK_SECONDS:
                    looked = time.monotonic()
                    for child in self._running.values():
                        if reason := self._lagging(child.run_dir):
                            child.prune(reason)
                if late and queue and not self._running:
                    raise Stopped(
                        f"budget.max_hours ({max_hours:g}) is used up with {len(queue)} trials "
                        "left: run the same command again to continue"
                    )
                if time.monotonic() - heartbeat > HEARTBEAT_SECONDS:
                    heartbeat = time.monotonic()
                    for number in self._running:
                        self._ledger.heartbeat(number)
                time.sleep(POLL_SECONDS)
        finally:
            self._end_children()

    def _start(self, trial: Trial) -> None:
        free = shutil.disk_usage(self._runs_dir).free
        if free < MIN_FREE_BYTES:
            raise Stopped(
                f"only {free / 2**20:.0f} MiB are free in {self._runs_dir}, trials need "
                f"{MIN_FREE_BYTES / 2**20:.0f}: make room and run the same command again"
            )
        slot = min(set(range(self._slot_count)) - {c.slot for c in self._running.values()})
        run_dir = runs.trial_dir(trial, self._runs_dir)
        number = self._ledger.claim(trial)
        self._running[number] = Child(
            trial,
            run_dir,
            slot,
            self._command,
            slots.environment(slot, self._slot_count),
            self._study.budget.per_trial_minutes * 60,
        )
        self._on_event(Event("started", trial, run_dir, slot))

    def _finish(self, number: int, child: Child) -> list[Trial]:
        """Record an ended child; the trial again where it is to be retried."""
        result = child.result(self._study.objective.metric)
        self._ledger.tell(number, result)
        trial = child.trial
        tries = self._attempts[trial.key] = self._attempts.get(trial.key, 0) + 1
        pruned = result.failure is not None and result.failure.kind == "pruned"
        retry = result.status == "failed" and tries <= self._study.budget.retries and not pruned
        kind: Literal["done", "failed", "retry"] = "retry" if retry else result.status
        self._on_event(Event(kind, trial, child.run_dir, child.slot, result))
        self._check_first_failures(result)
        if retry:
            self._ledger.enqueue(trial)
            return [trial]
        return []

    def _check_first_failures(self, result: Result) -> None:
        """Stop where the first trials all fail for one reason, before hours are spent on it."""
        if result.failure is None:
            self._first_failures = None
        if self._first_failures is None or result.failure is None:
            return
        digits = str.maketrans("", "", "0123456789")  # "NaN at step 12" equals "NaN at step 13"
        failure = f"{result.failure.kind}: {result.failure.message}"
        self._first_failures.append(failure.translate(digits))
        if self._first_failures == [self._first_failures[0]] * EQUAL_FAILURES:
            raise Stopped(
                f"the first {EQUAL_FAILURES} trials failed alike, nothing more is started. "
                f"{failure}. Repair the cause and run the same command with --retry-failed"
            )

    def _end_children(self) -> None:
        """End what still runs and queue it again; a second signal kills at once."""
        heard = len(self._signals)
        for child in self._running.values():
            child.terminate()
        while self._running:
            for number, child in list(self._running.items()):
                if len(self._signals) > heard:
                    child.kill()
                if not child.poll():
                    continue
                del self._running[number]
                if runs.state_of(child.trial, self._runs_dir) == "done":  # it was just in time
                    self._finish(number, child)
                    continue
                (child.run_dir / "result.json").unlink(missing_ok=True)  # it was not its own fault
                self._ledger.give_back(number, child.trial)
                self._on_event(Event("interrupted", child.trial, child.run_dir, child.slot))
            time.sleep(POLL_SECONDS)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP in a list instead of dying of them."""
    heard: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda n, frame: heard.append(n)) for number in numbers}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
