"""Exported plans as a ledger of the loop: the trials of several studies, done by their folders."""

import bisect
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from studies.archives import ArchiveError
from studies.engine.errors import StudyError
from studies.engine.labels import duration
from studies.engine.planning import runs
from studies.engine.planning.plan_file import Plan
from studies.engine.planning.tuning import Candidate, Choice, Tuning, extension
from studies.engine.records import Result, Trial
from studies.engine.running.durations import Durations
from studies.engine.running.events import Event
from studies.engine.running.protocols import Queue, Task
from studies.engine.trials.fetching import fetch_for


class PlanQueue(Queue):
    """Where a plan tunes, the seeds of an arm follow once its tuning trials have all ended."""

    def __init__(
        self,
        plans: Sequence[Plan],
        runs_dir: Path,
        retry_failed: bool,
        durations: Durations,
        say: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._plans, self._runs_dir, self._say = plans, runs_dir, say
        self._retry_failed, self._durations = retry_failed, durations
        self._names = [(plan.study, plan.profile) for plan in plans]
        self._began, self._count = time.monotonic(), 0
        self._results: dict[tuple[str, str, str], Result | None] = {}
        """By study, profile and key."""
        self._known = {
            (p.study, p.profile, result.key): result for p in plans for result in p.results
        }
        """What was found where the plans were written."""
        self._tried: set[tuple[str, str, str]] = set()
        """Tuning trials of the arms that have chosen."""
        self._trials = [list(plan.trials) for plan in plans]
        self._open = [list(plan.tuning.arms) if plan.tuning else [] for plan in plans]
        """By plan: the arms that have yet to choose."""
        self._may_follow = {
            _identity(trial): trial
            for plan in plans
            for trial in (plan.tuning.may_follow if plan.tuning else ())
        }
        """What arms may yet ask for."""
        for plan in plans:
            for trial in plan.trials:
                self._add(plan, trial)
        self._choose()

    @property
    def trials(self) -> list[Trial]:
        """What is queued."""
        return [task.trial for task in self._queued]

    @property
    def gpus_per_trial(self) -> int:
        """GPUs that a trial may need."""
        return max(plan.budget.gpus_per_trial for plan in self._plans)

    @property
    def to_come(self) -> int:
        """Trials of the arms that have yet to choose."""
        return sum(len(arm[-1].trials) for arms in self._open for arm in arms)

    @property
    def unfinished(self) -> int:
        """Trials that are not done, those of arms that have yet to choose among them; tuning trials
        that failed are forgotten once their arm has chosen without them."""
        return self.to_come + sum(
            result is None or (result.status == "failed" and identity not in self._tried)
            for identity, result in self._results.items()
        )

    def fetch(self) -> None:
        """Fetch models and data once, before several workers want them.

        Raises `StudyError` where one cannot be had, or a plug-in is not on this machine.
        """
        for trial in self.trials:
            for file in trial.plugins:
                if not Path(file).is_file():
                    raise StudyError(f"plug-in {file} is not on this machine: put it there")
        try:
            fetch_for(self.trials)
        except ArchiveError as error:
            raise StudyError(str(error)) from error

    def begin(self, slot_count: int) -> None:
        """Say what will be run; the clock starts."""
        then = f", then {self.to_come} of tuned arms" if self.to_come else ""
        self._say(f"{len(self._results)} trials, {len(self)} to run{then}, {slot_count} at once")
        self._began = time.monotonic()

    def show(self, event: Event) -> None:
        """Say what a trial found, and how long the rest will take."""
        result, trial = event.result, event.trial
        if result is None:
            return
        if result.failure is not None:
            finding = f"{result.failure.kind}: {result.failure.message}"
        else:
            plan = self._plans[self._place(trial)]
            metric = plan.metric_of.get(trial.task, plan.metric)
            if trial.stage == "tune" and plan.tuning is not None:  # never its test set
                metric = plan.tuning.metric_of(trial.task)
            finding = f"{metric} {result.metrics.get(metric, math.nan):.4f}"
        ended = sum(each is not None for each in self._results.values())
        total = len(self._results) + self.to_come
        rest = (total - ended) * (time.monotonic() - self._began) / self._count
        soon = f"  (about {duration(rest)} left)" if rest else ""
        self._say(
            f"[{ended}/{total}] {event.kind:<6} {trial.study} {trial.title} "
            f"seed {trial.seed}  {finding}  {duration(result.seconds)}{soon}"
        )

    def ended(self, task: Task, result: Result, again: bool) -> None:
        """Keep the result; an arm may be able to choose by it."""
        super().ended(task, result, again)
        self._count += 1
        if not again:
            self._results[_identity(task.trial)] = result
            self._choose()

    def table(self) -> str:
        """Done and failed trials of each study, and each failure."""
        lines = ["", f"{'study':<40} {'done':>6} {'failed':>6} {'left':>6}"]
        failures = []
        for plan, trials, arms in zip(self._plans, self._trials, self._open, strict=True):
            results = [self._results[_identity(trial)] for trial in trials]
            done = sum(r is not None and r.status == "done" for r in results)
            failed = sum(r is not None and r.status == "failed" for r in results)
            left = len(results) - done - failed + sum(len(arm[-1].trials) for arm in arms)
            name = f"{plan.study} ({plan.profile})"
            lines.append(f"{name:<40} {done:>6} {failed:>6} {left:>6}")
            failures += [
                f"failed: {plan.study} {trial.title} seed {trial.seed}: "
                f"{result.failure.kind}: {result.failure.message}"
                for trial, result in zip(trials, results, strict=True)
                if result is not None and result.failure is not None
            ]
        hours = (time.monotonic() - self._began) / 3600
        speed = f"{self._count} trials in {hours * 60:.1f} min, {self._count / hours:.0f} an hour"
        return "\n".join([*lines, *failures, speed])

    def _add(self, plan: Plan, trial: Trial) -> None:
        """Queue `trial` unless it has ended or is queued."""
        if _identity(trial) in self._results:
            return
        own = runs.result_of(trial, self._runs_dir)
        result = own or self._known.get(_identity(trial))
        if result is not None and result.status == "failed" and self._retry_failed:
            result = None
        self._results[_identity(trial)] = result
        if result is not None:
            if own is not None:  # another machine's time tells nothing of this one's
                self._durations.note(trial, own.seconds)
            return
        metric = plan.metric_of.get(trial.task, plan.metric)
        task = Task(trial, runs.trial_dir(trial, self._runs_dir), metric, plan.budget)
        # seeds of a tuned arm before the plans that were named later
        bisect.insort(self._queued, task, key=lambda other: self._place(other.trial))

    def _choose(self) -> None:
        """Add the seeds of every arm whose tuning trials have all ended."""
        for plan, trials, arms in zip(self._plans, self._trials, self._open, strict=True):
            for arm in list(arms):
                assert plan.tuning is not None
                if (choice := self._choice(plan, plan.tuning, trials, arm)) is None:
                    continue
                arms.remove(arm)
                trials += choice.trials
                for trial in choice.trials:
                    self._add(plan, trial)
                values = ", ".join(f"{path} {value}" for path, value in choice.settings.items())
                choice_text = "no value gave a result: the study's own"
                if choice.score is not None:
                    metric = plan.tuning.metric_of(choice.task)
                    choice_text = f"{values} chosen ({metric} {choice.score:.4f})"
                self._say(f"{plan.study} {choice.title}: {choice_text}")

    def _choice(
        self, plan: Plan, tuning: Tuning, trials: list[Trial], arm: Sequence[Candidate]
    ) -> Choice | None:
        """What validation chooses for `arm`; None while its tuning trials run.

        Those that its results ask for are queued, and added to `trials`.
        """
        where = (plan.study, plan.profile)
        while True:
            choice, keys = tuning.walk(arm, lambda key: self._results.get((*where, key)))
            asked = {(*where, key) for key in keys}
            new = asked - self._results.keys()
            follow = self._may_follow.items() if new else ()
            if not (more := [trial for identity, trial in follow if identity in new]):
                break
            for trial in more:
                self._add(plan, trial)
            if waiting := [t for t in more if self._results[_identity(t)] is None]:
                before = [t.candidate for t in trials if t.cell == arm[-1].cell]
                self._say(f"{plan.study} {extension(arm[-1].title, waiting, before)}")
            trials += more
        if choice is not None:
            self._tried |= asked
        return choice

    def _place(self, trial: Trial) -> int:
        """Where the trial's plan was named."""
        return self._names.index((trial.study, trial.profile))


def _identity(trial: Trial) -> tuple[str, str, str]:
    return trial.study, trial.profile, trial.key
