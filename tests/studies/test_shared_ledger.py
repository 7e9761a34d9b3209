"""The rules by which hosts share a study, on a table in memory that fails when it is told to."""

import collections
import contextlib
import random
from pathlib import Path
from types import SimpleNamespace

import fake_trials
import pytest

from studies.engine import runs
from studies.engine.dispatching import child, hosts
from studies.engine.dispatching.attempts import Row
from studies.engine.events import Unreachable
from studies.engine.records import Failure, Result, Trial, write_record

METRIC = "test/accuracy"


class Memory:
    """A table; `trouble` is called before and after each change and may raise."""

    def __init__(self) -> None:
        self.content: list[Row] = []
        self.trouble = lambda: None

    @contextlib.contextmanager
    def locked(self, wait: bool = True):
        yield True

    def rows(self) -> list[Row]:
        self.trouble()
        return list(self.content)

    def add(self, attributes, value=None) -> None:
        state = "waiting" if value is None else "complete"
        self._change(len(self.content), state, **attributes)

    def claim(self, number: int) -> bool:
        waiting = self.content[number].state == "waiting"
        return waiting and self._change(number, "running")

    def write(self, number: int, name: str, value) -> bool:
        state = self.content[number].state
        return self.content[number].alive and self._change(number, state, **{name: value})

    def end(self, number: int, value) -> bool:
        state = "failed" if value is None else "complete"
        return self.content[number].alive and self._change(number, state)

    def _change(self, number: int, state: str, **attributes) -> bool:
        self.trouble()
        before = self.content[number].attributes if number < len(self.content) else {}
        self.content[number : number + 1] = [Row(number, state, {**before, **attributes})]
        self.trouble()
        return True

    def states(self) -> list[str]:
        return [row.state for row in self.content]


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(hosts.time, "monotonic", lambda: now.seconds)
    return now


@pytest.fixture
def lab(tmp_path: Path):
    """Makes ledgers of hosts by name on one table."""
    table = Memory()

    def ledger(name: str) -> hosts.SharedLedger:
        return hosts.SharedLedger(table, METRIC, tmp_path / name, name)

    return SimpleNamespace(table=table, ledger=ledger, folder=tmp_path)


def sync(ledger: hosts.SharedLedger, trials: list[Trial], retry_failed: bool = False):
    return ledger.sync(trials, retry_failed, lambda event: None)


def done(trial: Trial, value: float = 0.5) -> Result:
    return Result(key=trial.key, status="done", metrics={METRIC: value})


def failed(trial: Trial) -> Result:
    return Result(key=trial.key, status="failed", failure=Failure(kind="exception", message="no"))


def test_a_trial_that_never_had_a_heartbeat_is_queued_again(lab, clock) -> None:
    trials = fake_trials.make_trials({})
    a, b = lab.ledger("a"), lab.ledger("b")
    sync(a, trials), sync(b, trials)
    lab.table.claim(0)  # by a host that died before it said who it is
    assert b.claim(trials[0]) is None
    away = {trials[0].key: trials[0]}
    for _ in range(12):
        assert b.look(away) == ([], [])
        clock.seconds += 10
    clock.seconds += 10
    assert b.look(away) == ([], trials)
    assert lab.table.states() == ["failed", "waiting"]
    assert b.claim(trials[0]) == 1


def test_a_heartbeat_that_moves_keeps_a_trial(lab, clock) -> None:
    trials = fake_trials.make_trials({})
    a, b = lab.ledger("a"), lab.ledger("b")
    sync(a, trials), sync(b, trials)
    a.claim(trials[0])
    for _ in range(40):
        clock.seconds += 10
        a.heartbeat(0)
        assert b.look({trials[0].key: trials[0]}) == ([], [])
    a.tell(0, done(trials[0]))
    assert b.look({trials[0].key: trials[0]}) == ([(trials[0], done(trials[0]))], [])
    assert runs.result_of(trials[0], lab.folder / "b") == done(trials[0])


def test_after_an_outage_nobody_is_taken_for_dead(lab, clock) -> None:
    trials = fake_trials.make_trials({})
    a, b = lab.ledger("a"), lab.ledger("b")
    sync(a, trials), sync(b, trials)
    a.claim(trials[0])
    b.look({})
    clock.seconds += 10 * hosts.STALE_SECONDS  # for all of this the database did not answer
    b.look({})
    assert lab.table.states() == ["running"]


def test_an_owner_taken_for_dead_does_not_complete_a_point_twice(lab, clock) -> None:
    trials = fake_trials.make_trials({})
    a, b = lab.ledger("a"), lab.ledger("b")
    sync(a, trials), sync(b, trials)
    a.claim(trials[0])
    for _ in range(14):
        b.look({})
        clock.seconds += 10
    assert b.claim(trials[0]) == 1
    assert a.tell(0, done(trials[0], 0.1)) is False
    assert b.tell(1, done(trials[0], 0.2)) is True
    assert lab.table.states() == ["failed", "complete"]
    assert lab.table.content[1].attributes["result"]["metrics"] == {METRIC: 0.2}


def test_an_owner_taken_for_dead_still_counts_where_nobody_began_anew(lab, clock) -> None:
    trials = fake_trials.make_trials({})
    a, b = lab.ledger("a"), lab.ledger("b")
    sync(a, trials), sync(b, trials)
    a.claim(trials[0])
    for _ in range(14):
        b.look({})
        clock.seconds += 10
    assert a.tell(0, done(trials[0])) is True
    assert lab.table.states() == ["failed", "complete"]
    assert b.claim(trials[0]) is None


def test_retries_are_counted_over_hosts_and_attempts_are_numbered(lab) -> None:
    trials = fake_trials.make_trials({})
    a, b = lab.ledger("a"), lab.ledger("b")
    sync(a, trials), sync(b, trials)
    number = a.claim(trials[0])
    assert a.tries(trials[0]) == 0
    a.enqueue(trials[0])
    a.tell(number, failed(trials[0]))
    b.look({})
    assert b.claim(trials[0]) == 1 and b.tries(trials[0]) == 1
    assert child.set_aside(runs.trial_dir(trials[0], lab.folder / "b")) == 2
    b.enqueue(trials[0])
    b.tell(1, failed(trials[0]).model_copy(update={"attempt": 2}))
    sync(c := lab.ledger("c"), trials)
    assert c.claim(trials[0]) == 2 and c.tries(trials[0]) == 2
    assert child.set_aside(runs.trial_dir(trials[0], lab.folder / "c")) == 3


def test_a_retry_is_not_begun_before_the_attempt_before_it_has_ended(lab, clock) -> None:
    trials = fake_trials.make_trials({})
    a, b = lab.ledger("a"), lab.ledger("b")
    sync(a, trials), sync(b, trials)
    a.claim(trials[0])
    a.enqueue(trials[0])
    assert b.look({trials[0].key: trials[0]}) == ([], [])
    assert b.claim(trials[0]) is None
    a.tell(0, failed(trials[0]))
    assert b.look({trials[0].key: trials[0]}) == ([], trials)


def test_a_trial_that_was_given_back_can_be_claimed_at_once(lab, clock) -> None:
    trials = fake_trials.make_trials({})
    a = lab.ledger("a")
    sync(a, trials)
    a.claim(trials[0])
    real = lab.table.end

    def lost(number: int, value) -> bool:
        real(number, value)
        raise Unreachable("lost")

    lab.table.end = lost
    with pytest.raises(Unreachable):  # the answer is lost, the loop asks again
        a.give_back(0, trials[0])
    lab.table.end = real
    a.give_back(0, trials[0])
    assert lab.table.states() == ["failed"] and a.claim(trials[0]) is None
    assert a.look({trials[0].key: trials[0]}) == ([], trials)
    assert a.claim(trials[0]) == 1
    a.give_back(1, trials[0])
    assert a.claim(trials[0]) == 2


def test_a_trial_whose_host_died_while_queueing_it_again_is_not_lost(lab) -> None:
    trials = fake_trials.make_trials({})
    a, b = lab.ledger("a"), lab.ledger("b")
    sync(a, trials), sync(b, trials)
    a.claim(trials[0])
    lab.table.end(0, None)
    assert b.look({trials[0].key: trials[0]}) == ([], trials)
    assert lab.table.states() == ["failed", "waiting"]


def test_what_a_runs_folder_knows_is_told_and_not_run_again(lab) -> None:
    trials = fake_trials.make_trials({}, {}, {})
    for trial in trials[:2]:
        write_record(runs.trial_dir(trial, lab.folder / "a") / "result.json", done(trial))
    assert sync(lab.ledger("b"), trials[1:]) == trials[1:]  # another host has queued one of them
    assert sync(lab.ledger("a"), trials) == trials[2:]
    complete = [row.point for row in lab.table.content if row.state == "complete"]
    assert sorted(complete) == sorted(trial.key for trial in trials[:2])
    assert sync(lab.ledger("c"), trials) == trials[2:]
    assert runs.result_of(trials[0], lab.folder / "c") == done(trials[0])


def test_a_killed_dispatcher_with_an_untold_result_tells_it_when_it_is_back(lab) -> None:
    trials = fake_trials.make_trials({}, {})
    a = lab.ledger("a")
    sync(a, trials)
    for trial in trials:
        a.claim(trial)
    write_record(runs.trial_dir(trials[0], lab.folder / "a") / "result.json", done(trials[0]))
    assert sync(lab.ledger("a"), trials) == trials[1:]
    assert lab.table.states() == ["complete", "failed", "waiting"]
    assert lab.table.content[1].attributes["message"] == hosts.INTERRUPTED


@pytest.mark.parametrize("seed", range(30))
def test_whatever_fails_whenever_each_point_is_completed_once(lab, clock, seed: int) -> None:
    """Three hosts that lose questions and answers, sleep, die and come back."""
    draw = random.Random(seed)
    trials = fake_trials.make_trials(*[{}] * 5)

    def trouble() -> None:
        if draw.random() < 0.05:
            raise Unreachable("lost")

    lab.table.trouble = trouble
    simulated = [Simulated(lab, name, trials, draw) for name in "abc"]
    for _ in range(4000):
        clock.seconds += 10
        for host in simulated:
            host.step()
        if all(host.finished for host in simulated):
            break
    points = collections.Counter(row.point for row in lab.table.content if row.state == "complete")
    assert points == {trial.key: 1 for trial in trials}
    values = {row.point: row.result for row in lab.table.content if row.state == "complete"}
    for name in "abc":
        for trial in trials:
            assert runs.result_of(trial, lab.folder / name) == values[trial.key]


class Simulated:
    """A dispatcher without processes."""

    def __init__(self, lab, name: str, trials: list[Trial], draw: random.Random) -> None:
        self._lab, self._name, self._trials, self._draw = lab, name, trials, draw
        self._restart()

    def _restart(self) -> None:
        self._ledger = self._lab.ledger(self._name)
        self._queue: list[Trial] | None = None
        self._away: dict[str, Trial] = {}
        self._running: dict[int, Trial] = {}
        self._asleep = 0

    @property
    def finished(self) -> bool:
        return self._queue == [] and not self._away and not self._running

    def step(self) -> None:
        if self._draw.random() < 0.01:
            self._restart()
        if self._draw.random() < 0.01:
            self._asleep = 20
        self._asleep -= 1
        if self._asleep > 0 or self.finished:
            return
        with contextlib.suppress(Unreachable):
            self._work()

    def _work(self) -> None:
        if self._queue is None:
            self._queue = list(sync(self._ledger, self._trials))
        for number, trial in list(self._running.items()):
            if self._draw.random() < 0.3:
                result = done(trial, self._draw.random())
                folder = runs.trial_dir(trial, self._lab.folder / self._name)
                write_record(folder / "result.json", result)
                told = self._ledger.tell(number, result)
                del self._running[number]
                if not told:
                    child.set_aside(folder)
                    self._away[trial.key] = trial
            else:
                self._ledger.heartbeat(number)
        while self._queue and len(self._running) < 2:
            number = self._ledger.claim(self._queue[0])
            trial = self._queue.pop(0)
            if number is None:
                self._away[trial.key] = trial
            else:
                self._running[number] = trial
        found, again = self._ledger.look(self._away)
        for trial in [*again, *(trial for trial, _ in found)]:
            del self._away[trial.key]
        self._queue += again
