"""The search of a study as one stage of the command line: what is left, run it, what it chose."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from studies.engine import tracking
from studies.engine.definition.study import Study
from studies.engine.dispatching import dispatch, store
from studies.engine.dispatching.child import Command
from studies.engine.events import Event
from studies.engine.planning.plan import plan_search
from studies.engine.planning.tuning import Choice
from studies.engine.progress import Progress
from studies.engine.records import Result, Trial
from studies.engine.reporting.search_outcome import SearchOutcome, gather
from studies.engine.searching import search


class SearchStage:
    """The stage of a study that has a section `search`."""

    def __init__(self, study: Study, plugins: Sequence[Path], runs_dir: Path) -> None:
        """Raises `StudyError` where the study cannot be planned."""
        self._study, self._runs_dir = study, runs_dir
        self._spec = search.wanted(study)
        self._make = plan_search(study, plugins)

    @property
    def complete(self) -> bool:
        """Whether all points have ended."""
        return len(self._history()) >= self._spec.trials

    @property
    def points(self) -> list[Trial]:
        """The points that have ended."""
        return [trial for trial, _ in self._history()]

    @property
    def choices(self) -> list[Choice]:
        """What validation chose for the arm; nothing where no point is done."""
        best = search.best(self._spec, self._history())
        if best is None:
            return []
        return [Choice(self._spec.arm, search.settings_of(self._spec, best), ())]

    def run(
        self,
        slot_count: int,
        retry_failed: bool,
        out: Console,
        page: tracking.Tracking,
        command: Command,
    ) -> None:
        """Run the points that are left; errors are those of `dispatch.run`."""
        with Progress(out, self._spec.trials, self._spec.objectives[0].metric) as progress:

            def on_event(event: Event) -> None:
                progress.show(event)
                if event.result is not None:
                    page.end_trial(event.trial, event.result, event.run_dir)

            dispatch.run_search(
                self._study,
                self._make,
                self._runs_dir,
                slot_count=min(slot_count, self._spec.trials),
                retry_failed=retry_failed,
                on_event=on_event,
                command=command,
            )

    def summary(self) -> RenderableType:
        """How many points there are, for `--plan`."""
        history = self._history()
        states = [point.state for point in self.outcome().points]
        counts = [f"{states.count(s)} {s}" for s in ("done", "pruned", "failed") if s in states]
        left = self._spec.trials - len(history)
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
        return gather(self._study, self._history(), store.importances)

    def _history(self) -> list[tuple[Trial, Result]]:
        return search.history(self._study, self._make, self._runs_dir)
