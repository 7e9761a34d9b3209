"""One study worked off by several hosts: what a dispatcher asks of the database they share.

A row of the table is an attempt; a point (the key of a trial) may have several, of which one at
most is COMPLETE. The rules that make it so, whichever host dies when:

- What is missing is queued under a lock that the database gives to one dispatcher at a time.
- A queued row is claimed by one conditional update, which one of several dispatchers wins.
- The owner of a running row changes its `beat` every few seconds. A row whose beat an observer has
  not seen change for `STALE_SECONDS` of its own clock, while the database answered, has lost its
  owner: it is failed and its point queued again. No two clocks are compared, so none can jump.
- An owner that was taken for dead finds its row ended when it tells its result, which then does
  not count.

Results travel as text in the rows, so hosts share no folder; each writes the files of the others'
results into its own. Knows no Optuna: `dispatch` brings the `Table`.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.engine import runs
from studies.engine.dispatching.attempts import (
    INTERRUPTED,
    Row,
    Table,
    attributes_again,
    attributes_of,
    outcome,
)
from studies.engine.dispatching.child import set_aside
from studies.engine.events import Event
from studies.engine.records import Result, Trial, write_record

STALE_SECONDS = 120
"""Twelve heartbeats: a dispatcher that waits for a slow MLflow server is not dead."""


@dataclass
class _Claim:
    """A row that this dispatcher runs."""

    trial: Trial
    tries: int
    beats: int = 0


class SharedLedger:
    """A study in a database that other dispatchers use too: `loop.Ledger` and `loop.Hosts`."""

    def __init__(self, table: Table, metric: str, runs_dir: Path, owner: str) -> None:
        """`owner` names `runs_dir` among all hosts: no other living dispatcher has it."""
        self._table, self._metric, self._runs_dir, self._owner = table, metric, runs_dir, owner
        self._waiting: dict[str, int] = {}
        self._failed: dict[str, Result] = {}
        self._mine: dict[int, _Claim] = {}
        """What this dispatcher runs."""
        self._tries: dict[str, int] = {}
        self._seen: dict[int, tuple[Any, float]] = {}
        """Last beat of a running row, and since when it is that."""
        self._looked, self._look_after = 0.0, 0.0

    def sync(
        self, trials: Sequence[Trial], retry_failed: bool, on_event: Callable[[Event], None]
    ) -> list[Trial]:
        """Bring database and files in line; the trials that are to run now, queued."""
        by_key = {trial.key: trial for trial in trials}
        todo, events = [], []
        self.pull(trials)  # without the lock: there may be thousands
        with self._table.locked():
            for row in self._table.rows():
                if (
                    row.state == "running"
                    and (row.attributes.get("beat") or [""])[0] == self._owner
                ):
                    self._bury(row, by_key.get(row.point))
            points = self._read()
            for trial in trials:
                rows = points.get(trial.key, [])
                result = self._agree(trial, rows)
                alive = any(row.alive for row in rows)
                if result is None or (result.status == "failed" and (alive or retry_failed)):
                    todo.append(trial)
                else:
                    run_dir = runs.trial_dir(trial, self._runs_dir)
                    events.append(Event("found", trial, run_dir, result=result))
            self._enqueue(map(attributes_of, todo), points)
            self._read()
        for event in events:  # without the lock: MLflow may be slow
            on_event(event)
        return todo

    def pull(self, trials: Sequence[Trial]) -> None:
        """Write the results of other hosts that the runs folder lacks; changes no row."""
        points = self._read()
        for trial in trials:
            result = outcome(points.get(trial.key, []))
            if result is not None and runs.state_of(trial, self._runs_dir) != "running":
                self._take(trial, result)

    def claim(self, trial: Trial) -> int | None:
        """Mark the queued `trial` as running here; its number, None where another host has it."""
        number = self._waiting.pop(trial.key, None)
        if number is None or not self._table.claim(number):
            return None
        self._table.write(number, "beat", [self._owner, 0])
        self._mine[number] = _Claim(trial, self._tries.get(trial.key, 0))
        if trial.key in self._failed:  # so that this attempt gets a number of its own
            self._take(trial, self._failed[trial.key])
        return number

    def tries(self, trial: Trial) -> int:
        """How often `trial`, which runs here, has failed before, on any host."""
        return next(claim.tries for claim in self._mine.values() if claim.trial.key == trial.key)

    def heartbeat(self, number: int) -> None:
        """Show that row `number` has an owner."""
        claim = self._mine[number]
        claim.beats += 1
        self._table.write(number, "beat", [self._owner, claim.beats])

    def enqueue(self, *trials: Trial) -> None:
        """Queue each of `trials`, which run here, for another attempt.

        Before their rows end, so that at no moment a point looks given up.
        """
        points = self._read()
        for number, claim in self._mine.items():
            if claim.trial in trials:
                states = {row.number: row.state for row in points[claim.trial.key]}
                if states[number] == "running" and "waiting" not in states.values():
                    self._table.add(attributes_of(claim.trial) | {"tries": claim.tries + 1})

    def tell(self, number: int, result: Result) -> bool:
        """Record what the claimed row `number` found; False where it was taken from us."""
        trial = self._mine[number].trial
        told = self._end(number, result)
        if not told and result.status == "done":  # taken for dead; has anybody begun anew?
            self._read()
            other = [n for n, c in self._mine.items() if c.trial.key == trial.key and n != number]
            anew = other[0] if other else self.claim(trial)
            if anew is not None:
                told = self._end(anew, result)
                del self._mine[anew]
        if result.status == "failed":  # it may be queued again
            self._read()
        del self._mine[number]
        return told

    def give_back(self, number: int, trial: Trial) -> None:
        """Mark the claimed row `number` as interrupted and queue `trial` again."""
        self._table.write(number, "message", INTERRUPTED)
        if self._table.end(number, None):
            self._table.add(attributes_of(trial) | {"tries": self._mine[number].tries})
        self._read()
        self._mine.pop(number)

    def look(self, away: Mapping[str, Trial]) -> tuple[list[tuple[Trial, Result]], list[Trial]]:
        """What became of `away`, the trials that others had: results, and those queued again.

        Queues anew what has lost its owner. Takes at most a tenth of the time.
        """
        began = time.monotonic()
        if began < self._look_after:
            return [], []
        points = self._read()
        lost = self._lost(points, began)
        orphans = [
            trial
            for key, trial in away.items()
            if outcome(points.get(key, [])) is None
            and not any(row.alive for row in points.get(key, []))
        ]
        if lost or orphans:
            points = self._restore(lost, orphans)
        found, again = [], []
        for key, trial in away.items():
            result = outcome(points.get(key, []))
            if result is not None:
                self._take(trial, result)
                found.append((trial, result))
            elif key in self._waiting:
                again.append(trial)
        self._look_after = time.monotonic() + 10 * (time.monotonic() - began)
        return found, again

    def _read(self) -> dict[str, list[Row]]:
        """The rows of each point; notes what is queued and what has failed."""
        points: dict[str, list[Row]] = {}
        for row in self._table.rows():
            points.setdefault(row.point, []).append(row)
            if row.state == "failed" and (result := row.result) is not None:
                self._failed[row.point] = result
        queued = [row for rows in points.values() for row in rows if row.state == "waiting"]
        # a point that runs or is complete is not run beside that, even where it is queued too
        self._waiting = {
            row.point: row.number
            for row in queued
            if not any(one.state in ("running", "complete") for one in points[row.point])
        }
        self._tries = {row.point: int(row.attributes.get("tries", 0)) for row in queued}
        return points

    def _lost(self, points: Mapping[str, list[Row]], now: float) -> list[Row]:
        """Running rows whose beat has stood still for too long."""
        if now - self._looked > STALE_SECONDS / 2:  # we slept, or the database was away
            self._seen.clear()
        self._looked = now
        running = [
            row
            for rows in points.values()
            for row in rows
            if row.state == "running" and row.number not in self._mine
        ]
        before, self._seen = self._seen, {}
        for row in running:
            beat = row.attributes.get("beat")
            last, since = before.get(row.number, (None, now))
            self._seen[row.number] = (beat, since if beat == last else now)
        return [row for row in running if now - self._seen[row.number][1] > STALE_SECONDS]

    def _restore(self, lost: Sequence[Row], orphans: Sequence[Trial]) -> dict[str, list[Row]]:
        """Fail the rows in `lost` and queue their points, and `orphans`, again."""
        with self._table.locked(wait=False) as held:
            if not held:  # another dispatcher is at it
                return self._read()
            for row in lost:
                self._table.write(row.number, "message", INTERRUPTED)
                self._table.end(row.number, None)
            points = self._read()
            wanted = [attributes_again(row) for row in lost] + [
                attributes_of(trial) for trial in orphans
            ]
            self._enqueue(wanted, points)
            return self._read()

    def _enqueue(self, wanted: Iterable[dict[str, Any]], points: Mapping[str, list[Row]]) -> None:
        for attributes in wanted:
            rows = points.get(attributes["point"], [])
            if not any(row.alive or row.state == "complete" for row in rows):
                self._table.add(attributes)

    def _bury(self, row: Row, trial: Trial | None) -> None:
        """End a row that an earlier dispatcher of this runs folder left behind."""
        result = runs.result_of(trial, self._runs_dir) if trial is not None else None
        if result is None or not self._end(row.number, result):
            self._table.write(row.number, "message", INTERRUPTED)
            self._table.end(row.number, None)

    def _end(self, number: int, result: Result) -> bool:
        """End row `number` with `result`; whether it now says so."""
        content = result.model_dump(mode="json")
        value = runs.value_of(result, self._metric)
        if self._table.write(number, "result", content) and self._table.end(number, value):
            return True
        # the answer to an earlier try may have been lost on its way
        return any(
            row.number == number and row.result is not None and row.attributes["result"] == content
            for row in self._table.rows()
        )

    def _agree(self, trial: Trial, rows: Sequence[Row]) -> Result | None:
        """The result of `trial`, known to files and database alike."""
        here, there = runs.result_of(trial, self._runs_dir), outcome(rows)
        value = runs.value_of(here, self._metric)
        if here is not None and value is not None and (there is None or there.status == "failed"):
            self._add(trial, here, value, rows)
            return here
        if there is not None:
            self._take(trial, there)
        return there or here

    def _add(self, trial: Trial, result: Result, value: float, rows: Sequence[Row]) -> None:
        """Tell of a result that was found outside this database."""
        if any(row.state == "running" for row in rows):  # its owner will tell its own
            return
        for row in rows:
            if row.state == "waiting":
                self._table.claim(row.number)
                self._table.end(row.number, None)
        self._table.add(attributes_of(trial) | {"result": result.model_dump(mode="json")}, value)

    def _take(self, trial: Trial, result: Result) -> None:
        """Write `result` into the runs folder: what the database holds is what all hosts have."""
        here = runs.result_of(trial, self._runs_dir)
        if here is not None and result.status == "failed":
            if here.status == "done" or here.attempt >= result.attempt:
                return
        if here == result:
            return
        run_dir = runs.trial_dir(trial, self._runs_dir)
        set_aside(run_dir)
        write_record(run_dir / "trial.json", trial)
        write_record(run_dir / "result.json", result)
