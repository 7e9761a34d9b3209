"""What a person is told of a study before anything is trained: edits, data, room on the disk."""

from collections.abc import Callable, Sequence
from pathlib import Path

from studies.engine.command import keep_checks
from studies.engine.command.stages import SearchStage, SeedsStage, StudyStage, TuneStage
from studies.engine.definition.study import Study
from studies.engine.errors import StudyError
from studies.engine.planning import edits, preregistration
from studies.engine.planning.plan import plan
from studies.engine.records import Stage, Trial
from studies.engine.trials.fetching import check_data
from studies.engine.trials.training.schedule import unreached

Say = Callable[[str, str], None]
"""Takes one message for the person at the terminal, and its style."""


class Notices:
    """Says each thing once, however often it is asked for."""

    def __init__(
        self,
        study: Study,
        runs_dir: Path,
        before: SearchStage | TuneStage | None,
        say: Say,
    ) -> None:
        """`before` is the stage before the seeds."""
        self._study, self._runs_dir, self._before, self._say = study, runs_dir, before, say
        self._printed: list[str] = []
        self._remarked: set[Stage] = set()

    def edits(self, stage: StudyStage, *, keep: bool) -> None:
        """Say what an edit changed, of each stage up to `stage` once; `keep` notes the claims."""
        stages = [each for each in (self._before, stage) if each is not None]
        trials = list({t.key: t for each in stages for t in each.trials}.values())
        lines = []
        for each in dict.fromkeys(stages):
            if each.name not in self._remarked:
                self._remarked.add(each.name)
                lines += edits.remarks(
                    self._study, each.name, trials, self._runs_dir,
                    undecided=self._undecided() if each.name == "seeds" else (), again=each.again,
                    possible=each.may_follow if each.name == "tune" else (),
                )  # fmt: skip
        if stage is not self._before:
            lines += preregistration.remarks(self._study, self._runs_dir, keep=keep)
            lines += keep_checks.lacking(stage.trials, self._runs_dir)
        for line in lines:
            self._say(line, "yellow")

    def room(self, stage: StudyStage) -> None:
        """Say what the study's seeds will keep on the disk; refuse what has no room there."""
        if not self._study.keep:
            return
        if isinstance(stage, SeedsStage):
            trials = stage.selected
        else:  # the seeds that every arm has
            every, first = plan(self._study), self._study.first_seeds
            trials = [trial for trial in every if trial.seed in first]
        self._once(keep_checks.room(self._study, trials, self._runs_dir), "dim")

    def _once(self, lines: Sequence[str], style: str) -> None:
        for line in lines:
            if line not in self._printed:
                self._say(line, style)
        self._printed += lines

    def data(self, trials: Sequence[Trial]) -> None:
        """Check all rows of the user's own files; say what a split hides and what ends training."""
        try:
            lines = check_data(trials)
        except Exception as error:  # a reader's mistake about a strange file is the user's too
            named = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise StudyError(f"{self._study.place('task')}: {named}{error}") from error
        self._once([*lines, *unreached(trials)], "yellow")

    def _undecided(self) -> set[tuple[str, str]]:
        """Arms and tasks whose seeds are not known before their tuning, or the search, ended."""
        if self._before is None:
            return set()
        if isinstance(self._before, TuneStage):
            return {t.cell for t in self._before.trials} - {c.cell for c in self._before.choices}
        searched = self._study.search
        return {(searched.arm, "")} if searched is not None and self._before.missing else set()
