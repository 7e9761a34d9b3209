"""One command on one study: plan, run, export, import or report, over the study's stages."""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from studies.archives import ArchiveError
from studies.engine.command import dispatch
from studies.engine.command.exits import DONE, INCOMPLETE
from studies.engine.command.importing import import_results
from studies.engine.command.notices import Notices, Say
from studies.engine.command.plan_table import plan_table
from studies.engine.command.progress import Progress
from studies.engine.command.report_cache import ReportCache
from studies.engine.command.stages import SearchStage, SeedsStage, StudyStage, TuneStage
from studies.engine.command.standing import Standing
from studies.engine.definition import verify
from studies.engine.definition.study import Study
from studies.engine.errors import StudyError
from studies.engine.labels import span
from studies.engine.planning import preregistration, runs
from studies.engine.planning.plan import plan_candidates
from studies.engine.planning.plan_file import Plan
from studies.engine.planning.tuning import Choice
from studies.engine.records import Result, Trial, write_record
from studies.engine.reporting.search_outcome import SearchOutcome
from studies.engine.running.events import Event, Stopped
from studies.engine.running.protocols import Runner
from studies.engine.tracking import mlflow_client
from studies.engine.trials.fetching import absent, fetch_for

if TYPE_CHECKING:  # which takes a second
    from studies.engine.tracking.background import EndedTrial

MakeRunner = Callable[[Sequence[Trial], int], Runner]
"""From the trials of a stage, and how many of them are left, to what runs them."""

Reported = tuple[
    Sequence[tuple[Trial, Result]], Sequence[Choice], SearchOutcome | None, preregistration.Changes
]
"""Results of the seeds, what tuning chose, what the search found, and what was changed since."""


@dataclass(frozen=True)
class Options:
    """What the command line says beside the study."""

    runs_dir: Path = Path("runs")
    only: tuple[str, ...] = ()
    retry_failed: bool = False
    fetch: bool = True
    """Whether trials run on this machine, which then fetches models and data first."""


class Session:
    """A study, how far it is, and what can be done next."""

    def __init__(self, study: Study, options: Options, out: Console, say: Say) -> None:
        """Raises `StudyError` where `options.runs_dir` cannot be used."""
        mlflow_client.check_store(options.runs_dir)
        self._study, self._options, self._out, self._say = study, options, out, say
        self._runs_dir = options.runs_dir
        self._hours = study.budget.max_hours
        """What is left of them; all stages and looks share them."""
        self.search = self.tuning = None
        if study.search is not None:
            self.search = SearchStage(study, self._runs_dir)
        elif study.tune:
            self.tuning = TuneStage(study, self._runs_dir, options.only)
        self.before = self.search or self.tuning
        self.notices = Notices(study, self._runs_dir, self.before, say)
        """What a person is told of the study, each thing once."""

    def seeds(self, *, whole: bool = False) -> SeedsStage:
        """The stage of the seeds, as the choices so far make it; the `whole` of it for a report."""
        only = () if whole else self._options.only
        return SeedsStage(self._study, self._runs_dir, only, self.before)

    def plan(self, slot_count: Callable[[Sequence[Trial]], int]) -> int:
        """Show what would run; starts nothing."""
        if self.search is not None:
            self._out.print(self.search.summary())
        tuning = self.tuning if self.tuning is not None and self.tuning.missing else None
        stage: StudyStage = tuning or self.seeds()
        self.notices.edits(stage, keep=False)
        self.notices.data(stage.to_fetch)
        self.notices.room(stage)
        for name in sorted({trial.config["backbone"]["name"] for trial in absent(stage.to_fetch)}):
            self._say(f"{name} is not on this machine yet: whether it fits its task, and has what "
                      "the arms adapt, is checked once it is fetched", "yellow")  # fmt: skip
        own = stage.selected
        self._out.print(plan_table(own, self._runs_dir, lambda: slot_count(own)))
        if tuning is not None:
            arms, tasks = (len({getattr(t, n) for t in stage.selected}) for n in ("arm", "task"))
            on = f" on {tasks} tasks" if self._study.tasks else ""
            least, most = len(self._study.first_seeds), len(self._study.seeds)
            self._print(*tuning.further)
            self._print(f"then {arms} tuned arms{on} with {span(least, most)} seeds each")
        elif isinstance(stage, SeedsStage):
            self._print(stage.look.plan if stage.look else "")
        return DONE

    def power(self, spread: float | None) -> int:
        """Show what numbers of seeds would find, by `spread` or that of results; trains nothing."""
        from studies.engine.command.power_table import power_table  # with scipy

        self._out.print(power_table(self._study, self.seeds().selected, self._runs_dir, spread))
        return DONE

    def run(self, make_runner: MakeRunner) -> int:
        """Run what is left of every stage, then report."""
        before = self.before
        try:
            if before is not None:
                self.notices.edits(before, keep=False)
                if self._is_due(before):
                    self._choose(before, make_runner)
                if before.missing:
                    return self._incomplete(before.missing, "yellow")
            seeds = self.seeds()
            self.notices.edits(seeds, keep=True)
            seeds = self._look_by_look(seeds, make_runner)
        except Stopped as stopped:
            return self._incomplete(str(stopped), "red")
        return self._end(seeds)

    def _incomplete(self, why: str, style: str) -> int:
        """Say why the study goes no further, and deliver what is there."""
        self._say(why, style)
        self.deliver(self.seeds(whole=True))
        return INCOMPLETE

    def _choose(self, stage: StudyStage, make_runner: MakeRunner) -> None:
        """Run the stage that chooses settings, and the values that `tune.extend` adds to it."""
        self._train(stage, make_runner, self._options.retry_failed)
        while self.tuning is not None and (more := self.tuning.look()):
            self._check_hours("the tuning goes on")
            self._print(*more)
            self._train(self.tuning, make_runner, retry=False)

    def _look_by_look(self, seeds: SeedsStage, make_runner: MakeRunner) -> SeedsStage:
        """Run `seeds` and, until the claims are decided, those that follow; the last stage."""
        retry = self._options.retry_failed
        while True:
            begins = seeds.look.begins if seeds.look else ""
            self._check_hours(begins or "the seeds", seeds.selected)
            self._print(begins)
            self._train(seeds, make_runner, retry)
            after = self.seeds()
            if after.look is None or seeds.look is None or after.look.number == seeds.look.number:
                return after
            seeds, retry = after, False  # what fails again is not tried a third time

    def _check_hours(self, what: str, trials: Sequence[Trial] | None = None) -> None:
        """Raise `Stopped` where no hours are left for `what`, or those of `trials` that wait."""
        if self._hours is None or self._hours > 0:
            return
        if trials is None or any(self._state(trial) == "waiting" for trial in trials):
            raise Stopped(
                f"{what}: budget.max_hours is used up; run the same command again to continue"
            )

    def report(self) -> int:
        """Report on what is there, and bring it to MLflow; trains nothing."""
        if self.before is not None and self.before.missing:
            self.notices.edits(self.before, keep=False)
            return self._incomplete(self.before.missing, "yellow")
        seeds = self.seeds()
        self.notices.edits(seeds, keep=True)
        return self._end(seeds)

    def bring_in(self, source: Path) -> int:
        """Take results that were found elsewhere, then report."""
        self._refuse_open_search()
        missing = ""
        if self.tuning is not None:
            self._import(source, self.tuning, last=False)
            self.tuning.look()
            missing = self.tuning.missing
            if missing and not self.tuning.settled:
                self.notices.edits(self.tuning, keep=False)
                return self._incomplete(missing, "yellow")
        seeds = self.seeds()
        self.notices.edits(seeds, keep=True)
        cells = {trial.cell for trial in self.tuning.trials} if self.tuning is not None else set()
        settled = {choice.cell for choice in seeds.choices}
        try:
            self._import(source, seeds, last=self.tuning is None or settled == cells)
        except Stopped as stopped:
            return self._incomplete(str(stopped), "red")
        return self._incomplete(missing, "yellow") if missing else self._end(self.seeds())

    def export(self, file: Path) -> int:
        """Write the trials that are still to be run to `file`, with the results that tuning has."""
        self._refuse_open_search()
        tuning, follow, known = self.tuning, None, dict[str, Result]()
        if tuning is not None and self._is_due(tuning):
            self.notices.edits(tuning, keep=False)
            trials = list(tuning.selected)
            stage = [*trials, *tuning.may_follow]
            follow = plan_candidates(self._study, stage)
            stage += [trial for arm in follow.arms for each in arm for trial in each.trials]
            again = "failed" if self._options.retry_failed else None
            known = {t.key: r for t, r, _ in self._results(stage) if r.status != again}
        else:
            seeds = self.seeds()
            self.notices.edits(seeds, keep=False)
            states = {"waiting", "running"} | ({"failed"} if self._options.retry_failed else set())
            trials = [t for t in seeds.selected if runs.state_of(t, self._runs_dir) in states]
            self._print(seeds.look.plan if seeds.look else "")
        self.notices.data(trials)
        whole = Plan(
            study=self._study.name,
            profile=self._study.profile,
            metric=self._study.objective_of().metric,
            metric_of={t.name: self._study.objective_of(t.name).metric for t in self._study.tasks},
            budget=self._study.budget,
            trials=tuple(trials),
            tuning=follow,
            results=tuple(known.values()),
        )
        write_record(file, whole)
        left = sum(trial.key not in known for trial in trials)
        more = f", and then the seeds of {len(follow.arms)} tuned arms" if follow else ""
        self._print(f"{left} trials{more} written to {file}")
        return DONE

    def deliver(self, seeds: SeedsStage) -> bool:
        """Write the report, unless tuning alone has results, bring everything to MLflow, and print
        both; whether that worked."""
        # a trial may be of both stages, or of two arms that a search has made one
        trials = [*self.earlier(), *seeds.trials]
        trials = [*{(trial.key, trial.arm): trial for trial in trials}.values()]
        results = self._results(trials)
        if not results:
            self._complain(f"no trial of {self._study.name} has a result yet: nothing to report")
            return False
        cache = ReportCache(self._study, trials, self._runs_dir)
        if texts := cache.texts():
            self._print(*texts)
            return True
        return self._make(seeds, results, cache)

    def _make(self, seeds: SeedsStage, results: "Sequence[EndedTrial]", cache: ReportCache) -> bool:
        """Write and print report and page anew; whether that worked."""
        from studies.engine.tracking import background

        complaints: list[str] = []

        def complain(message: str) -> None:
            complaints.append(message)
            self._complain(message)

        report = None
        if (reported := self.reported(seeds)) is not None:
            from studies.engine.reporting.report import draft

            folder = runs.study_dir(self._study, self._runs_dir)
            report = draft(self._study, folder / "trials", *reported).write(folder / "report")
        texts = [] if report is None else [f"{report.text}\nReport: {report.markdown}"]
        self._print(*texts)
        link = background.deliver(self._study, results, report, self._runs_dir, complain)
        if link is not None:
            self._print(link.text)
            if not complaints:
                cache.keep([*texts, link.text])
        return link is not None

    def reported(self, seeds: SeedsStage) -> Reported | None:
        """What a report of the seeds and the search is made from; None where neither has begun."""
        pairs = [(trial, result) for trial, result, _ in self._results(seeds.trials)]
        search = None if self.search is None else self.search.outcome()
        if not pairs and (search is None or not search.points):
            return None
        choices = self.tuning.choices if self.tuning is not None else ()
        return pairs, choices, search, preregistration.changes(self._study, self._runs_dir)

    def earlier(self) -> Sequence[Trial]:
        """The trials of the stage before the seeds that are known by now."""
        return () if self.before is None else self.before.trials

    def _results(self, trials: Iterable[Trial]) -> "list[EndedTrial]":
        """Those of `trials` that have ended, with their folders."""
        return [
            (trial, result, runs.trial_dir(trial, self._runs_dir))
            for trial in trials
            if (result := runs.result_of(trial, self._runs_dir)) is not None
        ]

    def _end(self, seeds: SeedsStage) -> int:
        """Report, and say what is missing."""
        complete = self.deliver(seeds)
        self._print(seeds.look.stands if seeds.look else "")
        states = [self._state(trial) for trial in seeds.selected]
        failed, waiting = states.count("failed"), states.count("waiting")
        if failed or waiting:
            why = [f"{failed + waiting} of {len(states)} trials have no result"]
            if failed:
                again = "once the cause is repaired, --retry-failed runs them again"
                why.append(f"{failed} failed: {again}")
            if waiting:
                runs_them = "the same command without --report or --import runs them"
                why.append(f"{waiting} not run yet: {runs_them}")
            self._complain("; ".join(why))
        return INCOMPLETE if failed or waiting or not complete else DONE

    def _train(self, stage: StudyStage, make_runner: MakeRunner, retry: bool) -> None:
        """Run what has no result; raises as `dispatch.run`, and `Stopped` without model or data."""
        from studies.engine.tracking import background

        left = [trial for trial in stage.to_fetch if self._state(trial) != "done"]
        self.notices.data(left)
        self.notices.room(stage)
        if self._options.fetch:
            unseen = absent(left)
            try:
                fetch_for(left)
            except ArchiveError as error:
                raise Stopped(str(error)) from error
            if unseen and (problems := verify.problems_of(self._study)):
                raise StudyError(*problems)
        standing = Standing(stage.metric_of, self._study.baseline, stage.selected)
        began = time.monotonic()
        with (
            background.Tracking(self._study, self._runs_dir, self._complain) as page,
            Progress(self._out, stage.total, stage.metric_of, standing) as progress,
        ):
            for ended in self._results(self.earlier()):  # a stage ends before MLflow has it all
                page.end_trial(*ended)

            def on_event(event: Event) -> None:
                progress.show(event)
                if event.result is not None:
                    page.end_trial(event.trial, event.result, event.run_dir)

            budget = self._study.budget.model_copy(update={"max_hours": self._hours})
            within = self._study.model_copy(update={"budget": budget})
            work = functools.partial(dispatch.run, within, stage.selected)
            if isinstance(stage, SearchStage):
                work = functools.partial(dispatch.run_search, within, stage.make)
            work(self._runs_dir, functools.partial(make_runner, stage.selected),
                 retry_failed=retry, on_event=on_event, say=self._complain)  # fmt: skip
        if self._hours is not None:
            self._hours -= (time.monotonic() - began) / 3600

    def _import(self, source: Path, stage: StudyStage, last: bool) -> None:
        """Take results of `stage`; those of unknown points are refused where it is the `last`."""
        before, more = () if stage is self.before else self.earlier(), list[Trial]()
        name, later = "tuning stage: ", "the next stage"
        if stage is not self.tuning:
            name, later = "", "settings that no arm has chosen: import again then"
            if self.tuning is not None:
                before, more = [*before, *self.tuning.may_follow], self.tuning.seeds_to_come
        cells = {trial.cell for trial in (self.tuning or stage).selected}
        trials = [*stage.trials, *stage.may_follow]
        with dispatch.owned(self._study, self._runs_dir):
            found = import_results(self._study, [*before, *trials, *more], source, self._runs_dir)
        dispatch.record(self._study, trials, self._runs_dir, self._complain)
        ours = {trial.key for trial in stage.selected}
        ours |= {trial.key for trial in (*stage.may_follow, *more) if trial.cell in cells}
        later = "" if last else later
        self._print(f"{name}{found.summary(ours, later)}")
        for line in found.refusals(later):
            self._complain(line)

    def _refuse_open_search(self) -> None:
        if self.search is not None and self.search.missing:
            raise StudyError(
                "the points of a search are chosen one after the other: run the study here until "
                "its search is complete, then its seeds can be exported"
            )

    def _is_due(self, stage: StudyStage) -> bool:
        """Whether something of `stage` is to run, or to run again."""
        failed = (self._state(trial) == "failed" for trial in stage.selected)
        return bool(stage.missing) or (self._options.retry_failed and any(failed))

    def _state(self, trial: Trial) -> str:
        """done, failed or waiting; without a value of the objective nothing is done."""
        result = runs.result_of(trial, self._runs_dir)
        if result is None:
            return "waiting"
        metric = self._study.objective_of(trial.task).metric
        return "failed" if runs.value_of(result, metric) is None else "done"

    def _complain(self, message: str) -> None:
        self._say(message, "red")

    def _print(self, *texts: str) -> None:
        for text in filter(None, texts):
            self._out.print(text, markup=False, highlight=False, soft_wrap=True)
