"""The points of a search: where the loop's trials come from, and where results are recorded."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from studies.engine.definition.study import Study
from studies.engine.planning import runs
from studies.engine.records import Result, Trial, read_trial, write_record
from studies.engine.running.events import Event
from studies.engine.running.protocols import Task
from studies.engine.searching import search
from studies.engine.searching.pruning import Lagging

if TYPE_CHECKING:  # Optuna takes a while
    from studies.engine.searching.optuna_storage import Sampler

REPEATS = 5
"""Times that a sampler may ask for known points before one is drawn by chance."""


class SearchLedger:
    """The points of a search as a ledger of the loop.

    A row that is running when a command starts was cut off, by whatever: the point is run again
    under its own row, so each point is run once and counts once.
    """

    def __init__(self, study: Study, make: search.Make, runs_dir: Path, sampler: "Sampler") -> None:
        self._study, self._make, self._runs_dir, self._sampler = study, make, runs_dir, sampler
        self._spec = spec = search.search_of(study)
        self._pruner = None if spec.pruning is None else Lagging(spec)
        self._known: dict[str, int] = {}
        """Key to number of all points that were asked for."""
        self._on_event: Callable[[Event], None] = lambda event: None
        self._again: list[Trial] = []
        self._rows: dict[str, int] = {}
        """Key to the row that waits for the point's result."""

    def sync(self, retry_failed: bool, on_event: Callable[[Event], None]) -> None:
        """Bring the sampler in line with the folders, and queue what was cut off."""
        self._on_event = on_event
        ended = search.history(self._study, self._make, self._runs_dir)
        results = {trial.key: result for trial, result in ended}
        known: set[str] = set()
        lost: dict[str, Trial] = {}
        for row in self._sampler.rows():
            trial = self._make(row.point, row.settings)
            known.add(trial.key)
            self._known.setdefault(trial.key, row.point)
            if row.running and trial.key in results:
                self._tell(row.number, results[trial.key])
            elif row.running:
                self._rows[trial.key] = row.number
                self._again.append(trial)
            elif trial.key not in results and trial.key not in lost:
                lost[trial.key] = trial
        for trial in lost.values():  # the folders decide what is done, and these are gone
            if trial.key not in self._rows:
                self._queue(trial)
        for trial, result in ended:
            point = self._known.setdefault(trial.key, trial.point or 0)
            if trial.key not in known:
                values = search.values(self._spec, result)
                self._sampler.add(point, trial.candidate, values, result.pruned)
            if retry_failed and result.failure is not None and not result.pruned:
                self._queue(trial)
                continue
            task = self._task(trial)
            self._note_curve(task, result)
            on_event(Event("found", trial, task.run_dir, result=result))

    def __len__(self) -> int:
        return len(self._again) + max(0, self._spec.trials - len(self._known))

    def next(self, startable: Callable[[Task], bool]) -> Task | None:
        """The next point: one that was cut off, else one that is new."""
        any_point = self._task(self._make(1, search.lowest(self._spec)))
        while len(self) and startable(any_point):  # which does not depend on the point
            trial = self._with_other_spaces(self._again.pop(0) if self._again else self._new())
            if not self._is_known(trial):
                return self._task(trial)
        return None

    def ended(self, task: Task, result: Result, again: bool) -> None:
        """Record what the point found; queue it `again` where it is to be retried."""
        row = self._rows.pop(task.trial.key)
        if again:
            self._queue(task.trial)
        self._tell(row, result)
        self._note_curve(task, result)

    def give_back(self, task: Task) -> None:
        """Run the point again under its row."""
        self._again.append(task.trial)

    def lagging(self, task: Task) -> str | None:
        """Why a running point is to be ended; None where it is not."""
        return None if self._pruner is None else self._pruner.reason(task.run_dir)

    def _task(self, trial: Trial) -> Task:
        run_dir = runs.trial_dir(trial, self._runs_dir)
        return Task(trial, run_dir, self._study.objective.metric, self._study.budget)

    def _queue(self, trial: Trial) -> None:
        """Give `trial`, whose row is told, a new row."""
        row = self._sampler.ask(self._known[trial.key], trial.candidate)
        self._sampler.keep(row)
        self._rows[trial.key] = row.number
        self._again.append(trial)

    def _new(self) -> Trial:
        point = max(self._known.values(), default=0) + 1
        for attempt in itertools.count():
            chance = self._sampler.draw() if attempt >= REPEATS else None
            if chance is not None and self._make(point, chance).key in self._known:
                continue  # another is new, see `search_rules.check`
            row = self._sampler.ask(point, chance)
            trial = self._make(point, row.settings)
            if trial.key not in self._known:
                break
            self._sampler.tell(row.number, None)
        self._sampler.keep(row)
        self._known[trial.key] = point
        self._rows[trial.key] = row.number
        return trial

    def _with_other_spaces(self, trial: Trial) -> Trial:
        """`trial`, which another space may have asked for already."""
        try:
            spaces = read_trial(runs.trial_dir(trial, self._runs_dir)).asked
        except (OSError, ValueError):
            return trial
        return trial.model_copy(update={"asked": {**spaces, **trial.asked}})

    def _is_known(self, trial: Trial) -> bool:
        """Whether another space's search trained the point: its result is taken, and told."""
        task, result = self._task(trial), runs.result_of(trial, self._runs_dir)
        if result is None or result.status != "done":
            return False
        write_record(task.run_dir / "trial.json", trial)
        self._tell(self._rows.pop(trial.key), result)
        self._note_curve(task, result)
        self._on_event(Event("found", trial, task.run_dir, result=result))
        return True

    def _tell(self, row: int, result: Result) -> None:
        self._sampler.tell(row, search.values(self._spec, result), result.pruned)

    def _note_curve(self, task: Task, result: Result) -> None:
        if self._pruner is not None and result.status == "done":
            self._pruner.finished(task.run_dir)
