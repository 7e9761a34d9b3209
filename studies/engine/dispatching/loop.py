"""The loop that keeps the slots busy: claim, start, watch, tell, in one thread."""

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from studies.engine import runs, slots
from studies.engine.definition.study import Study
from studies.engine.dispatching.child import Child, Command, set_aside
from studies.engine.dispatching.outage import Outage
from studies.engine.events import Event, Interrupted, Stopped, Unreachable
from studies.engine.records import Result, Trial

POLL_SECONDS = 0.01
HEARTBEAT_SECONDS = 10
LOOK_SECONDS = 1.0
"""Between two looks at the validation values of running trials."""
EQUAL_FAILURES = 3
"""So many equal failures before any success: the study is broken, not the arm."""
MOST_ATTEMPTS = 100
"""A trial that is ended so often by SIGTERM has an enemy on this machine."""
MIN_FREE_BYTES = 200 * 2**20


class Ledger(Protocol):
    """Where attempts are recorded; `number` names one.

    Methods may raise `Unreachable`; they are called again with the same arguments then.
    """

    def enqueue(self, *trials: Trial) -> None:
        """Queue those of `trials` that are not queued."""

    def claim(self, trial: Trial) -> int | None:
        """Mark the queued `trial` as running; its number, None where another host has it."""

    def heartbeat(self, number: int) -> None:
        """Show that attempt `number` is being watched."""

    def tell(self, number: int, result: Result) -> bool | None:
        """Record what attempt `number` found; False where another host has taken it over."""

    def give_back(self, number: int, trial: Trial) -> None:
        """Mark attempt `number` as interrupted and queue `trial` again."""


class Hosts(Protocol):
    """The other dispatchers that work on the study."""

    def tries(self, trial: Trial) -> int:
        """How often `trial`, which runs here, has failed before, on any host."""

    def look(self, away: Mapping[str, Trial]) -> tuple[list[tuple[Trial, Result]], list[Trial]]:
        """What became of `away`: results, and trials that are queued again."""


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
        hosts: Hosts | None = None,
        say: Callable[[str], None] = lambda message: None,
        lagging: Callable[[Path], str | None] = lambda run_dir: None,
    ) -> None:
        """`lagging` says why the trial in a run folder is to be ended early, see `Pruning`."""
        self._study, self._runs_dir, self._slot_count = study, runs_dir, slot_count
        self._on_event, self._command, self._ledger = on_event, command, ledger
        self._signals, self._hosts, self._say = signals, hosts, say
        self._lagging = lagging
        self._running: dict[int, Child] = {}
        """By the number that the ledger gave."""
        self._ended: dict[int, Child] = {}
        """Ended, and not yet told."""
        self._away: dict[str, Trial] = {}
        """By key: what other hosts have claimed."""
        self._heartbeat = time.monotonic()
        self._outage = Outage(say)
        self._waited = False
        self._attempts: dict[str, int] = {}
        self._first_failures: list[str] | None = []

    def work(self, queue: Source) -> None:
        """Run all of `queue`; however it ends, no child is left.

        Where the database does not answer, children train on, and what they find is told later.
        """
        started = looked = time.monotonic()
        max_hours = self._study.budget.max_hours
        try:
            while queue or self._running or self._ended or self._away:
                if self._signals:
                    raise Interrupted
                late = max_hours is not None and time.monotonic() - started > max_hours * 3600
                for number, child in list(self._running.items()):
                    if child.poll():
                        self._ended[number] = self._running.pop(number)
                if time.monotonic() - looked > LOOK_SECONDS:
                    looked = time.monotonic()
                    for child in self._running.values():
                        if reason := self._lagging(child.run_dir):
                            child.prune(reason)
                if self._outage.over(idle=not self._running):
                    try:
                        self._talk(queue, late)
                        self._outage.end()
                    except Unreachable as error:
                        self._outage.begin(error)
                left = len(queue) + len(self._away)
                if late and left and not self._running and not self._ended:
                    raise Stopped(
                        f"budget.max_hours ({max_hours:g}) is used up with {left} trials "
                        "left: run the same command again to continue"
                    )
                time.sleep(POLL_SECONDS)
        finally:
            self._end_children()

    def _talk(self, queue: Source, late: bool) -> None:
        """All that needs the database: tell what has ended, start what is next, show life."""
        for number, child in list(self._ended.items()):
            for trial in self._finish(number, child):
                queue.append(trial)
        while queue and len(self._running) < self._slot_count and not late:
            trial = queue.pop(0)
            try:
                self._start(trial)
            except Unreachable:
                queue.append(trial)
                raise
        if time.monotonic() - self._heartbeat > HEARTBEAT_SECONDS:
            self._heartbeat = time.monotonic()
            for number in self._running:
                self._ledger.heartbeat(number)
            for trial in self._hear(waiting=not queue and not self._running):
                queue.append(trial)

    def _hear(self, waiting: bool) -> list[Trial]:
        """Take in what other hosts did; the trials that nobody runs any more."""
        if self._hosts is None:
            return []
        found, again = self._hosts.look(self._away)
        for trial, result in found:
            del self._away[trial.key]
            run_dir = runs.trial_dir(trial, self._runs_dir)
            self._on_event(Event("elsewhere", trial, run_dir, result=result))
        for trial in again:
            del self._away[trial.key]
        if waiting and self._away and not again and not self._waited:
            self._waited = True
            self._say(
                f"nothing left to start here: waiting for {len(self._away)} trials of other hosts "
                "(Ctrl-C leaves them alone; --report fetches their results later)"
            )
        return again

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
        if number is None:
            self._away[trial.key] = trial
            return
        self._running[number] = Child(
            trial,
            run_dir,
            slot,
            self._command,
            slots.environment(slot, self._slot_count, self._study.budget.gpus_per_trial),
            self._study.budget.per_trial_minutes * 60,
        )
        self._on_event(Event("started", trial, run_dir, slot))

    def _finish(self, number: int, child: Child) -> list[Trial]:
        """Record an ended child; the trial again where it is to be retried."""
        if child.preempted and child.attempt < MOST_ATTEMPTS:  # the system asked it to end
            return self._give_back(number, child)
        result = child.result(self._study.objective.metric)
        trial = child.trial
        before = self._hosts.tries(trial) if self._hosts is not None else 0
        tries = 1 + max(before, self._attempts.get(trial.key, 0))
        pruned = result.failure is not None and result.failure.kind == "pruned"
        retry = result.status == "failed" and tries <= self._study.budget.retries and not pruned
        if retry:
            self._ledger.enqueue(trial)
        told = self._ledger.tell(number, result)
        self._ended.pop(number, None)
        if told is False:
            set_aside(child.run_dir)
            self._away[trial.key] = trial
            self._on_event(Event("interrupted", trial, child.run_dir, child.slot))
            return []
        self._attempts[trial.key] = tries
        kind: Literal["done", "failed", "retry"] = "retry" if retry else result.status
        self._on_event(Event(kind, trial, child.run_dir, child.slot, result))
        self._check_first_failures(result)
        return [trial] if retry else []

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
                if child.poll():
                    self._ended[number] = self._running.pop(number)
            time.sleep(POLL_SECONDS)
        try:
            for number, child in list(self._ended.items()):
                self._give_up(number, child)
        except Unreachable as error:
            self._say(
                f"the database does not answer ({error}): what has ended is kept in its folder and "
                "told by the next run"
            )

    def _give_up(self, number: int, child: Child) -> None:
        """Tell what was found just in time, else queue the trial again."""
        if runs.state_of(child.trial, self._runs_dir) == "done":
            self._finish(number, child)
            return
        (child.run_dir / "result.json").unlink(missing_ok=True)  # it was not its own fault
        self._give_back(number, child)

    def _give_back(self, number: int, child: Child) -> list[Trial]:
        """Queue an ended child's trial again; the trial."""
        self._ledger.give_back(number, child.trial)
        self._ended.pop(number, None)
        self._on_event(Event("interrupted", child.trial, child.run_dir, child.slot))
        return [child.trial]


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
