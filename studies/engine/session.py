"""One call of the command line on one study: fetch, train, report, track."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from studies.archives import ArchiveError
from studies.engine import runs, slots, tracking
from studies.engine.definition.study import Study
from studies.engine.dispatching import dispatch
from studies.engine.dispatching.child import Command, default_command
from studies.engine.errors import StudyError
from studies.engine.events import Event, Stopped
from studies.engine.importing import import_results
from studies.engine.planning import edited
from studies.engine.planning.plan_file import Plan, Tuning, write_plan
from studies.engine.planning.tuning import Choice
from studies.engine.progress import Progress
from studies.engine.records import Trial
from studies.engine.searching.search_stage import SearchStage
from studies.engine.trials.fetching import fetch_for

Say = Callable[[str], None]
"""Takes one message for the person at the terminal."""


class Session:
    """`trials` is a whole stage of the study, `chosen` the part of it that this call is about.

    `choices` are what the stage before it, whose trials are `earlier`, found.
    """

    def __init__(
        self,
        study: Study,
        trials: Sequence[Trial],
        chosen: Sequence[Trial],
        runs_dir: Path,
        out: Console,
        say: Say,
        choices: Sequence[Choice] = (),
        earlier: Sequence[Trial] = (),
        search: SearchStage | None = None,
    ) -> None:
        self._study, self._trials, self._chosen = study, trials, chosen
        self._runs_dir, self._out, self._say = runs_dir, out, say
        self._choices, self._earlier, self._search = choices, earlier, search

    @property
    def unfinished(self) -> int:
        """How many of the chosen trials are not done."""
        return sum(self._value(trial) is None for trial in self._chosen)

    @property
    def waiting(self) -> int:
        """How many of the chosen trials have not ended in any way."""
        return sum(runs.result_of(trial, self._runs_dir) is None for trial in self._chosen)

    def train(self, slot_count: int, retry_failed: bool) -> None:
        """Run what has no result.

        Raises `StudyError`, `Interrupted` and `Stopped` as `dispatch.run`, and `Stopped` where a
        model or data cannot be fetched.
        """
        self._fetch()
        metric, command = self._study.objective.metric, self._command()
        with (
            tracking.Tracking(self._study, self._runs_dir, self._say) as page,
            Progress(self._out, len(self._chosen), metric) as progress,
        ):

            def on_event(event: Event) -> None:
                progress.show(event)
                # another host has the curve, and brings its trials to MLflow itself
                if event.result is not None and event.kind != "elsewhere":
                    page.end_trial(event.trial, event.result, event.run_dir)

            dispatch.run(
                self._study,
                self._chosen,
                self._runs_dir,
                slot_count=slot_count,
                retry_failed=retry_failed,
                on_event=on_event,
                say=self._say,
                command=command,
            )

    def find(self, slot_count: int, retry_failed: bool) -> None:
        """Run what is left of the search; raises as `train`."""
        assert self._search is not None
        self._fetch()
        command = self._command()
        with tracking.Tracking(self._study, self._runs_dir, self._say) as page:
            self._search.run(slot_count, retry_failed, self._out, page, command)

    def export(self, file: Path, retry_failed: bool, tuning: Tuning | None) -> int:
        """Write the chosen trials that are still to be run to `file`; how many there are.

        Where they tune, all of them are written: `tuning` needs their results.
        """
        states = ("waiting", "running", "failed") if retry_failed else ("waiting", "running")
        waiting = [
            trial
            for trial in self._chosen
            if tuning or runs.state_of(trial, self._runs_dir) in states
        ]
        write_plan(
            file,
            Plan(
                study=self._study.name,
                profile=self._study.profile,
                metric=self._study.objective.metric,
                per_trial_minutes=self._study.budget.per_trial_minutes,
                trials=tuple(waiting),
                tuning=tuning,
            ),
        )
        return len(waiting)

    def bring_in(self, source: Path, last: bool) -> None:
        """Take results that `studies.engine.work` found elsewhere, and tell Optuna of them.

        Results of unknown points are refused where this is the `last` stage of the study.
        """
        every = {trial.key: trial for trial in (*self._earlier, *self._trials)}
        found = import_results(self._study, list(every.values()), source, self._runs_dir)
        dispatch.record(self._study, self._trials, self._runs_dir)
        refused = [*found.refused, *(found.strangers if last else ())]
        ours = {trial.key for trial in self._chosen}
        taken, known = (
            sum(trial.key in ours for trial in each) for each in (found.taken, found.known)
        )
        stage = "" if last else "tuning stage: "
        left = f", {len(found.strangers)} of the next stage" if found.strangers and not last else ""
        self._print(f"{stage}{taken} results taken, {known} known already, "
                    f"{len(refused)} refused{left}")  # fmt: skip
        for folder, reason in refused:
            self._say(f"refused: {folder}: {reason}")

    def deliver(self) -> bool:
        """Write the report, bring everything to MLflow, print both; whether that worked."""
        found = [
            (trial, result, runs.trial_dir(trial, self._runs_dir))
            for trial in self._trials
            if (result := runs.result_of(trial, self._runs_dir)) is not None
        ]
        search = None if self._search is None else self._search.outcome()
        if not found and (search is None or not search.points):
            self._say(f"no trial of {self._study.name} has a result yet: nothing to report")
            return False
        from studies.engine.reporting.report import write_report  # matplotlib takes a second

        folder = runs.study_dir(self._study, self._runs_dir)
        pairs = [(trial, result) for trial, result, _ in found]
        report = write_report(
            self._study,
            pairs,
            folder / "report",
            folder / "trials",
            self._choices,
            search,
            edited.claims_changed(self._study, self._runs_dir),
        )
        self._print(report.text)
        self._print(f"Report: {report.markdown}")
        link = tracking.deliver(self._study, found, report, self._runs_dir, self._say)
        if link is None:
            return False
        if link.command:
            self._print(f"MLflow: {link.command}")
        self._print(f"        {link.url}")
        return True

    def _command(self) -> Command:
        """What trains a trial, on as many GPUs as the study gives one."""
        processes = self._study.budget.gpus_per_trial
        if processes == 1:
            return default_command
        if 0 < slots.gpus() < processes:
            raise StudyError(
                f"{self._study.place('budget', 'gpus_per_trial')}: budget.gpus_per_trial: this "
                f"machine has {slots.gpus()} GPUs, got {processes}"
            )
        return functools.partial(default_command, processes=processes)

    def _fetch(self) -> None:
        """Fetch what the trials that are left need, once, before several of them want it."""
        try:
            fetch_for([trial for trial in self._chosen if self._value(trial) is None])
        except ArchiveError as error:
            raise Stopped(str(error)) from error

    def _value(self, trial: Trial) -> float | None:
        result = runs.result_of(trial, self._runs_dir)
        return runs.value_of(result, self._study.objective.metric)

    def _print(self, text: str) -> None:
        self._out.print(text, markup=False, highlight=False, soft_wrap=True)
