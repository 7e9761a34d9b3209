"""The stages of a study: `search` or `tune` chooses settings, then `seeds` measures the arms."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from studies.engine.command import looks
from studies.engine.definition.study import Study
from studies.engine.planning import runs
from studies.engine.planning.plan import plan, plan_candidates, plan_tuning
from studies.engine.planning.selection import only
from studies.engine.planning.tuning import Choice, extension
from studies.engine.records import Result, Stage, Trial
from studies.engine.reporting.search_outcome import SearchOutcome, gather, state
from studies.engine.searching import search

if TYPE_CHECKING:
    from studies.engine.verdicts.claims import Verdict


class TuneStage:
    """Every arm tries the same values, and what `tune.extend` and `tune.race` give it beyond."""

    name: Stage = "tune"
    again = None

    def __init__(self, study: Study, runs_dir: Path, conditions: Sequence[str] = ()) -> None:
        """Raises `StudyError` where no trial meets `conditions`."""
        self._study, self._runs_dir = study, runs_dir
        self._planned = plan_tuning(study)
        # a seed of the next stage says nothing of this one
        reported = [f"seed={seed}" for seed in study.seeds]
        self._conditions = [c for c in conditions if c.replace(" ", "") not in reported]
        self._tuning = plan_candidates(study, self._planned)
        self._by_key = {trial.key: trial for trial in self._planned}
        self.trials: list[Trial] = []
        self.may_follow: list[Trial] = []
        self.look()

    def look(self) -> list[str]:
        """Take in what results ask for by now: a line for each arm that gets more trials."""
        before = self.trials
        known = {trial.key for trial in before}
        arms = self._tuning.arms if self._tuning.may_follow else ()
        asked = {key for arm in arms for key in self._tuning.walk(arm, self._result_of)[1]}
        self.may_follow = [t for t in self._tuning.may_follow if t.key not in asked]
        later = {trial.key for trial in self.may_follow}
        self.trials = [trial for trial in self._planned if trial.key not in later]
        conditions = self._conditions
        self.selected = only(self.trials, conditions) if conditions else self.trials
        self.to_fetch, self.total = self.selected, len(self.selected)
        new = [trial for trial in self.selected if trial.key not in known]
        return [extension(own.title, more, [t.candidate for t in before if t.cell == own.cell])
                for *_, own in arms
                if (more := [trial for trial in new if trial.cell == own.cell])]  # fmt: skip

    def metric_of(self, task: str = "") -> str:
        """What is chosen by."""
        objective = self._study.objective_of(task)
        return objective.select_on or objective.metric

    def _result_of(self, key: str) -> Result | None:
        return runs.result_of(self._by_key[key], self._runs_dir)

    @property
    def choices(self) -> list[Choice]:
        """What validation chose, for the arms whose trials have all ended, on each task."""
        return self._tuning.choices(self._result_of)

    @property
    def further(self) -> Iterator[str]:
        """What results may yet ask for, in words."""
        tune = self._study.tune
        assert tune is not None, "made only for a study that tunes"
        cells = self.open_cells
        open_yet = [trial for trial in self.may_follow if trial.cell in cells]
        if any(trial.seed not in tune.race_seeds for trial in open_yet):
            yield "an arm whose best is the last of a list also tries values beyond it"
        if len({repr(trial.candidate) for trial in open_yet if trial.seed in tune.race_seeds}) > 1:
            yield f"values that their seeds do not tell apart get more of them, up to {tune.race}"

    @property
    def open_cells(self) -> dict[tuple[str, str], str]:
        """The arms in question that have yet to choose, by arm and task, as they are called."""
        cells = {t.cell for t in self.selected} - {choice.cell for choice in self.choices}
        return {own.cell: own.title for *_, own in self._tuning.arms if own.cell in cells}

    @property
    def settled(self) -> bool:
        """Whether an arm in question has chosen."""
        return len(self.open_cells) < len({trial.cell for trial in self.selected})

    @property
    def seeds_to_come(self) -> list[Trial]:
        """First seeds of the arms that have yet to choose, with each value that they may take."""
        open_cells = self.open_cells
        arms = [arm for arm in self._tuning.arms if arm[-1].cell in open_cells]
        return [trial for arm in arms for candidate in arm for trial in candidate.trials]

    @property
    def missing(self) -> str:
        """Which trials of which arms have no result."""
        cells = self.open_cells
        own = [trial for trial in self.trials if trial.cell in cells]
        waiting = sum(runs.result_of(trial, self._runs_dir) is None for trial in own)
        arms = ", ".join(cells.values())
        return "" if not arms else (
            f"the tuning stage has {waiting} trials without a result ({arms}): run all "
            "trials of these arms first, or name the other arms by --only 'arm=NAME'"
        )  # fmt: skip


class SearchStage:
    """Optuna chooses settings of one arm, point by point."""

    name: Stage = "search"
    may_follow = ()

    def __init__(self, study: Study, runs_dir: Path) -> None:
        self._study, self._runs_dir = study, runs_dir
        self._spec = search.search_of(study)
        self.make = search.plan_search(study)
        """Makes the trial of a point."""
        self.total = self._spec.trials

    def metric_of(self, task: str = "") -> str:
        """What the search goes by first."""
        return self._spec.objectives[0].metric

    @property
    def trials(self) -> list[Trial]:
        """The points that have ended."""
        return [trial for trial, _ in self._history()]

    selected = trials
    """A search is run as a whole."""

    @property
    def to_fetch(self) -> list[Trial]:
        """One point, whatever it is: a search is about settings of adapter and training."""
        return [self.make(1, search.lowest(self._spec))]

    @property
    def choices(self) -> list[Choice]:
        """What validation chose for the arm; nothing where no point is done."""
        best = search.best(self._spec, self._history())
        return [] if best is None else [Choice(self._spec.arm, best.candidate, ())]

    @property
    def missing(self) -> str:
        """What has to be done before the seeds."""
        left = self._spec.trials - len(self.trials)
        if left > 0:
            return f"{left} points of the search are to be asked for"
        if not self.choices:
            return "no point of the search is done: repair the cause and use --retry-failed"
        return ""

    def again(self, old: Trial) -> Trial | None:
        """What the point would be now; None where another arm is searched."""
        known = old.arm == self._spec.arm and old.candidate.keys() == self._spec.space.keys()
        return self.make(old.point or 0, old.candidate) if known else None

    def summary(self) -> RenderableType:
        """How many points there are, for `--plan`."""
        states = [state(self._spec, result) for _, result in self._history()]
        counts = [f"{states.count(s)} {s}" for s in ("done", "pruned", "failed") if s in states]
        left = self._spec.trials - len(states)
        counts += [f"{left} to be asked for"] if left > 0 else []
        lines = [f"search of {self._spec.arm}: {self._spec.trials} points: {', '.join(counts)}"]
        if left > 0:
            lines.append(
                f"the seeds follow it; {self._spec.arm} then has the best point's settings"
            )
        elif choices := self.choices:
            settings = ", ".join(f"{path}={value}" for path, value in choices[0].settings.items())
            lines.append(f"chosen: {settings}")
        return Text("\n".join(lines))

    def outcome(self) -> SearchOutcome:
        """What was found so far."""
        return gather(self._study, self._history())

    def _history(self) -> list[tuple[Trial, Result]]:
        return search.history(self._study, self.make, self._runs_dir)


class SeedsStage:
    """Every arm is trained with the study's seeds, with the settings that were chosen for it."""

    name: Stage = "seeds"
    again = None
    missing = ""

    def __init__(
        self,
        study: Study,
        runs_dir: Path,
        conditions: Sequence[str],
        before: SearchStage | TuneStage | None,
    ) -> None:
        """Raises `StudyError` where no trial meets `conditions`."""
        self._study, self._runs_dir = study, runs_dir
        self.choices = [] if before is None else before.choices
        self.trials = reached = plan(study, self.choices)
        untuned: dict[str, None] = {}
        if isinstance(before, TuneStage):
            settled = {choice.cell for choice in self.choices}
            untuned = {trial.title: None for trial in reached if trial.cell not in settled}
            self.trials = reached = [trial for trial in reached if trial.cell in settled]
        self.look: looks.Look | None = None
        """How far seeds are that go on until the claims are decided; None of a list."""
        self.may_follow: Sequence[Trial] = ()
        if study.until_decided:
            results = {trial.key: runs.result_of(trial, runs_dir) for trial in reached}
            self.look = looks.reached(study, reached, results, self._judge, [*untuned])
            reached = list(self.look.trials)
            known = {trial.key for trial in reached}
            # results beyond the look, such as of a list of seeds, stay in the report
            beyond = [trial for trial in self.trials if trial.key not in known]
            self.may_follow = [trial for trial in beyond if results[trial.key] is None]
            self.trials = reached + [trial for trial in beyond if results[trial.key] is not None]
        self.selected = self.to_fetch = only(reached, conditions) if conditions else reached
        self.total = len(self.selected)

    def metric_of(self, task: str = "") -> str:
        """What is compared."""
        return self._study.objective_of(task).metric

    def _judge(self, pairs: Sequence[tuple[Trial, Result]]) -> "Sequence[Verdict]":
        from studies.engine.reporting.outcome import collect  # with scipy
        from studies.engine.verdicts.row_scores import row_reader

        read = row_reader(self._study, runs.study_dir(self._study, self._runs_dir) / "trials")
        return collect(self._study, pairs, read=read).verdicts


StudyStage = SearchStage | TuneStage | SeedsStage
"""A stage knows its `trials` by now, those that this command is about (`selected`, `total`), those
that need every model and data set (`to_fetch`), those that results may yet ask for (`may_follow`),
what was chosen for arms (`choices`), what is `missing` before the next stage, and what a trial that
was run would be now where `trials` do not tell (`again`)."""
