"""The points of a search: where the loop's trials come from, and where results are recorded."""

import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from studies.engine import runs
from studies.engine.definition.study import Study
from studies.engine.events import Event
from studies.engine.records import Result, Trial
from studies.engine.searching import search
from studies.engine.searching.search_pruning import Lagging
from studies.engine.trials.seeds import derive

REPEATS = 5
"""Times that a sampler may ask for known points before one is drawn by chance."""


class Row(NamedTuple):
    """A point that a sampler asked for."""

    number: int
    ordinal: int
    """Which point of the search it is, from 1; the same point asked again keeps it."""
    settings: dict[str, Any]
    running: bool
    """Whether the sampler waits for what it found."""


class Sampler(Protocol):
    """Chooses points, and keeps what they found."""

    def rows(self) -> list[Row]:
        """Every point that was asked for."""

    def ask(self, ordinal: int, settings: search.Settings | None = None) -> Row:
        """A new row, running: with `settings` of ours, else of the sampler's choice.

        Until it is kept it is none of `rows`, and who starts after a crash does not find it.
        """

    def keep(self, row: Row) -> None:
        """The point of the asked `row` is to be run."""

    def tell(self, number: int, values: Sequence[float] | None, pruned: bool = False) -> None:
        """The objectives of a running row; None where it failed, or was `pruned`."""

    def add(self, ordinal: int, settings: search.Settings, values: Sequence[float] | None) -> None:
        """A row for a point that ended without the sampler's knowledge."""


class Points:
    """A `Source` of trials and a `Ledger` of what they found, see `dispatching.loop`.

    A row that is running when a dispatcher starts was cut off, by whatever: the point is run again
    under its own row, so each point is run once and counts once.
    """

    def __init__(self, study: Study, make: search.Make, runs_dir: Path, sampler: Sampler) -> None:
        self._study, self._make, self._runs_dir, self._sampler = study, make, runs_dir, sampler
        self._spec = spec = search.wanted(study)
        self._pruner = None if spec.pruning is None else Lagging(spec)
        self._random = random.Random(derive(spec.seed, f"draw:{len(sampler.rows())}"))
        self._known: dict[str, int] = {}
        """Key to ordinal of all points that were asked for."""
        self._again: list[Trial] = []
        self._numbers: dict[str, int] = {}

    def sync(self, retry_failed: bool, on_event: Callable[[Event], None]) -> None:
        """Bring the sampler in line with the files, and queue what was cut off."""
        ended = search.history(self._study, self._make, self._runs_dir)
        results = {trial.key: result for trial, result in ended}
        told: set[str] = set()
        lost: dict[str, Trial] = {}
        for row in self._sampler.rows():
            trial = self._make(row.ordinal, row.settings)
            told.add(trial.key)
            self._known.setdefault(trial.key, row.ordinal)
            if row.running and trial.key in results:
                self._tell(row.number, results[trial.key])
            elif row.running:
                self._numbers[trial.key] = row.number
                self._again.append(trial)
            elif trial.key not in results and trial.key not in lost:
                lost[trial.key] = trial
        for trial in lost.values():  # the files decide what is done, and these are gone
            if trial.key not in self._numbers:
                self.enqueue(trial)
                self._again.append(trial)
        for trial, result in ended:
            ordinal = self._known.setdefault(trial.key, search.ordinal(trial))
            if trial.key not in told:
                settings = search.settings_of(self._spec, trial)
                self._sampler.add(ordinal, settings, search.values(self._spec, result))
            if retry_failed and result.failure is not None and result.failure.kind != "pruned":
                self.enqueue(trial)
                self._again.append(trial)
                continue
            run_dir = runs.trial_dir(trial, self._runs_dir)
            if self._pruner is not None and result.status == "done":
                self._pruner.finished(run_dir)
            on_event(Event("found", trial, run_dir, result=result))

    def __len__(self) -> int:
        return len(self._again) + max(0, self._spec.trials - len(self._known))

    def pop(self, index: int) -> Trial:
        """The next point: one that was cut off, else one that is new."""
        if self._again:
            return self._again.pop(index)
        ordinal = max(self._known.values(), default=0) + 1
        for attempt in itertools.count():
            row = self._sampler.ask(ordinal, self._drawn(ordinal) if attempt >= REPEATS else None)
            trial = self._make(ordinal, row.settings)
            if trial.key not in self._known:
                break
            self._sampler.tell(row.number, None)
        self._sampler.keep(row)
        self._known[trial.key] = ordinal
        self._numbers[trial.key] = row.number
        return trial

    def append(self, trial: Trial) -> None:
        """Queue a point that `enqueue` gave a new row."""
        self._again.append(trial)

    def enqueue(self, *trials: Trial) -> None:
        """Give each of `trials`, whose row is told, a new row."""
        for trial in trials:
            settings = search.settings_of(self._spec, trial)
            row = self._sampler.ask(self._known[trial.key], settings)
            self._sampler.keep(row)
            self._numbers[trial.key] = row.number

    def claim(self, trial: Trial) -> int:
        """The number of the row that `trial` was asked for in."""
        return self._numbers[trial.key]

    def heartbeat(self, number: int) -> None:
        """Nothing: a search has one dispatcher, and what it leaves behind is run again."""

    def tell(self, number: int, result: Result) -> None:
        """Record what the point of row `number` found."""
        self._tell(number, result)
        if self._pruner is not None and result.status == "done":
            folder = runs.study_dir(self._study, self._runs_dir)
            self._pruner.finished(folder / "trials" / result.key)

    def give_back(self, number: int, trial: Trial) -> None:
        """Nothing: a row that stays running is run again."""

    def lagging(self, run_dir: Path) -> str | None:
        """Why a running point is to be ended; None where it is not."""
        return None if self._pruner is None else self._pruner.reason(run_dir)

    def _drawn(self, ordinal: int) -> search.Settings:
        """A point that is new, by chance; there is one, see `search.check`."""
        while True:
            settings = search.draw(self._spec.space, self._random)
            if self._make(ordinal, settings).key not in self._known:
                return settings

    def _tell(self, number: int, result: Result) -> None:
        pruned = result.failure is not None and result.failure.kind == "pruned"
        self._sampler.tell(number, search.values(self._spec, result), pruned)
