"""The loop that keeps slots busy: claim, start, watch, judge, record, in one thread.

Whatever decides stands here once and holds wherever trials run: retries, time limits that let a
trial save, `budget.max_hours`, room on the disk, pruning, a study whose first trials fail alike.
"""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from studies.engine.planning import runs
from studies.engine.records import Failure, Result, read_result
from studies.engine.running import attempts
from studies.engine.running.durations import Durations
from studies.engine.running.events import Event, Interrupted, Stopped
from studies.engine.running.protocols import Exit, Ledger, Runner, RunnerLost, Task
from studies.engine.trials.preemption import PREEMPTED

POLL_SECONDS = 0.01
LOOK_SECONDS = 1.0
"""Between two looks at the validation values of running trials."""
GRACE_SECONDS = 30.0
"""Between asking a trial to end and killing it: a step is finished and a checkpoint written."""
EQUAL_FAILURES = 3
"""So many equal failures before any success: the study is broken, not the arm."""
MOST_ATTEMPTS = 100
"""A trial that is ended so often by its machine has an enemy there."""
MIN_FREE_BYTES = 200 * 2**20


@dataclass
class _Running:
    """A trial in hand."""

    task: Task
    slot: int
    attempt: int
    began: float
    started: str
    """UTC, ISO 8601."""
    end_asked_at: float | None = None
    """When it was asked to end."""
    reason: Failure | None = None
    """Why we ended it."""


class Loop:
    """Runs what a ledger has queued."""

    def __init__(
        self,
        ledger: Ledger,
        runner: Runner,
        runs_dir: Path,
        *,
        signals: list[int],
        on_event: Callable[[Event], None] = lambda event: None,
        durations: Durations | None = None,
    ) -> None:
        """`signals` fills up while signals come, see `stop_signals`."""
        self._ledger, self._runner, self._runs_dir = ledger, runner, runs_dir
        self._signals, self._on_event = signals, on_event
        self._durations = durations or Durations()
        self._running: dict[tuple[str, str, str], _Running] = {}
        """By study, profile and key."""
        self._ended: list[tuple[Task, Exit]] = []
        """What the runner told of and was not seen to yet."""
        self._tries: dict[tuple[str, str, str], int] = {}
        self._first_failures: dict[tuple[str, str], list[str] | None] = {}
        """By study and profile; None once a trial of it succeeded."""
        self._broken: dict[tuple[str, str], str] = {}
        """Why nothing more of a study is started."""
        self._began: dict[tuple[str, str], float] = {}
        """When the first trial of a study was started."""
        self._looked = time.monotonic()

    def work(self) -> None:
        """Run all that is queued; however it ends, no trial is left running.

        Raises:
            Interrupted: a signal came; what ran is queued again.
            Stopped: trials are left that may not be started; the message says why.
        """
        try:
            while True:
                if self._signals:
                    raise Interrupted
                self._ended += self._runner.poll()
                while self._ended:
                    self._finish(*self._ended.pop(0))
                self._look_after()
                self._fill()
                if not self._running and (not len(self._ledger) or self._runner.free()):
                    break
                time.sleep(POLL_SECONDS)
        except RunnerLost as error:
            raise Stopped(str(error)) from error
        finally:
            failure = self._end_all()
        if failure is not None:
            raise failure
        if left := len(self._ledger):
            raise Stopped(self._why_left(left))

    def _fill(self) -> None:
        """Start what may be started."""
        while self._runner.free() and len(self._ledger) and self._free_bytes() >= MIN_FREE_BYTES:
            task = self._ledger.next(self._may_start)
            if task is None:
                return
            self._began.setdefault(_study(task), time.monotonic())
            attempt = attempts.prepare(task)
            started = datetime.now(UTC).isoformat(timespec="seconds")
            slot = self._runner.start(task)
            self._running[_identity(task)] = _Running(
                task, slot, attempt, time.monotonic(), started
            )
            self._on_event(Event("started", task.trial, task.run_dir, slot))

    def _may_start(self, task: Task) -> bool:
        hours, began = task.budget.max_hours, self._began.get(_study(task))
        late = hours is not None and began is not None and time.monotonic() - began > hours * 3600
        return _study(task) not in self._broken and not late and self._durations.fits(task.trial)

    def _look_after(self) -> None:
        """End trials whose time is up or that lag behind, kill those that do not end."""
        now = time.monotonic()
        look = now - self._looked > LOOK_SECONDS
        self._looked = now if look else self._looked
        for running in self._running.values():
            task = running.task
            if running.end_asked_at is not None:
                if now - running.end_asked_at > GRACE_SECONDS:
                    self._runner.kill(task)
            elif now - running.began > task.budget.per_trial_minutes * 60:
                self._end(running, attempts.timeout(task))
            elif look and (why := self._ledger.lagging(task)):
                self._end(running, Failure(kind="pruned", message=why))

    def _end(self, running: _Running, reason: Failure | None) -> None:
        running.end_asked_at, running.reason = time.monotonic(), reason
        self._runner.end(running.task)

    def _finish(self, task: Task, exit_: Exit) -> None:
        """Judge a trial that ended, and record it; queue it again where that is due."""
        running = self._running.pop(_identity(task))
        runs.release(task.run_dir)
        stopped = running.end_asked_at is not None or exit_.code == PREEMPTED
        interrupted = exit_.lost or (stopped and running.reason is None)
        if interrupted and read_result(task.run_dir) is None and running.attempt < MOST_ATTEMPTS:
            self._give_back(running)
            return
        reason = running.reason
        if reason is not None and reason.kind == "timeout":
            reason = attempts.timeout(task)  # it may have saved meanwhile
        self._record(running, self._judged(running, exit_, reason))

    def _judged(self, running: _Running, exit_: Exit, reason: Failure | None) -> Result:
        seconds, attempt = time.monotonic() - running.began, running.attempt
        return attempts.judged(running.task, attempt, exit_, reason, running.started, seconds)

    def _record(self, running: _Running, result: Result) -> None:
        task = running.task
        tries = self._tries[_identity(task)] = self._tries.get(_identity(task), 0) + 1
        settled = result.status == "done" or result.pruned or result.changed
        again = not settled and tries <= task.budget.retries
        self._durations.note(task.trial, result.seconds)
        self._ledger.ended(task, result, again)
        kind = "retry" if again else result.status
        self._on_event(Event(kind, task.trial, task.run_dir, running.slot, result))
        self._check_first_failures(task, result)

    def _give_back(self, running: _Running) -> None:
        task = running.task
        self._ledger.give_back(task)
        self._on_event(Event("interrupted", task.trial, task.run_dir, running.slot))

    def _check_first_failures(self, task: Task, result: Result) -> None:
        """Start nothing more of a study whose first trials all fail for one reason."""
        study = _study(task)
        failures = self._first_failures.setdefault(study, [])
        if result.failure is None:
            self._first_failures[study] = None
        if failures is None or result.failure is None or result.pruned:
            return
        digits = str.maketrans("", "", "0123456789")  # "NaN at step 12" equals "NaN at step 13"
        failure = f"{result.failure.kind}: {result.failure.message}"
        failures.append(failure.translate(digits))
        if len(failures) == EQUAL_FAILURES and len(set(failures)) == 1:
            remedy = "Repair the cause and run the same command with --retry-failed"
            self._broken[study] = (
                f"the first {EQUAL_FAILURES} trials of {task.trial.study} failed alike, nothing "
                f"more of it is started. {failure}{'' if result.changed else f'. {remedy}'}"
            )
            for running in self._running.values():
                if _study(running.task) == study and running.end_asked_at is None:
                    self._end(running, None)

    def _why_left(self, left: int) -> str:
        if self._broken:
            return "\n".join(self._broken.values())
        if (free := self._free_bytes()) < MIN_FREE_BYTES:
            return (
                f"only {free / 2**20:.0f} MiB are free in {self._runs_dir}, trials need "
                f"{MIN_FREE_BYTES / 2**20:.0f}: make room and run the same command again"
            )
        limit = self._durations.limit or "budget.max_hours"
        return (
            f"the time ({limit}) is used up with {left} trials left: run the same command again "
            "to continue"
        )

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._runs_dir).free

    def _end_all(self) -> Exception | None:
        """End what still runs and queue it again; a second signal kills at once.

        What fails meanwhile is given back: every trial is asked to end, and none is left.
        """
        heard = len(self._signals)
        failure: Exception | None = None

        def give_up(running: _Running) -> None:
            nonlocal failure
            try:
                self._give_up(running)
            except Exception as error:
                failure = failure or error

        try:
            for task, _ in self._ended:
                give_up(self._running.pop(_identity(task)))
            for running in self._running.values():
                self._end(running, None)
            while self._running:
                for task, _ in self._runner.poll():
                    give_up(self._running.pop(_identity(task)))
                for running in self._running.values():
                    late = time.monotonic() - (running.end_asked_at or 0) > GRACE_SECONDS
                    if late or len(self._signals) > heard:
                        self._runner.kill(running.task)
                time.sleep(POLL_SECONDS)
        except RunnerLost:
            pass
        finally:
            self._runner.close()
            for running in self._running.values():
                give_up(running)
            self._running.clear()
        return failure

    def _give_up(self, running: _Running) -> None:
        """Record what was found just in time, else queue the trial again."""
        task = running.task
        runs.release(task.run_dir)
        result = read_result(task.run_dir)
        if result is not None and result.key == task.trial.key and result.status == "done":
            self._record(running, self._judged(running, Exit(), None))
            return
        (task.run_dir / "result.json").unlink(missing_ok=True)  # it was not its own fault
        self._give_back(running)


def _study(task: Task) -> tuple[str, str]:
    return task.trial.study, task.trial.profile


def _identity(task: Task) -> tuple[str, str, str]:
    return *_study(task), task.trial.key


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Numbers of the signals that came and ask us to stop; their handlers are restored after.

    What the process was started to ignore, as `nohup` does with SIGHUP, stays ignored.
    """
    heard: list[int] = []
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    for number in before:
        signal.signal(number, lambda n, frame: heard.append(n))
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
