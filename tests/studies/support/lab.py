"""A runs folder with fake trials, and what has happened there."""

import collections
from pathlib import Path

import fake_trials
import optuna

from studies.engine.command import dispatch
from studies.engine.planning import runs
from studies.engine.records import Trial
from studies.engine.running.events import Event


class Lab:
    """A run folder, and what has happened there."""

    def __init__(self, folder: Path) -> None:
        self.runs_dir, self.journal = folder / "runs", folder / "journal"
        self.events: list[Event] = []
        self.make_runner: dispatch.MakeRunner | None = None
        """Where that is not a local one."""

    def run(self, trials: list[Trial], study=None, slot_count: int = 1, **options) -> list[str]:
        """Dispatch; the kinds of the events in order."""
        self.events.clear()
        dispatch.run(
            study or fake_trials.make_study(),
            trials,
            self.runs_dir,
            self.make_runner or fake_trials.runners(self.journal, slot_count),
            on_event=self.events.append,
            **options,
        )
        return [event.kind for event in self.events]

    def noted(self, word: str) -> collections.Counter[str]:
        """How often each key is in the journal with `word`."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return collections.Counter(line.split()[1] for line in lines if line.startswith(word))

    def pids(self) -> list[int]:
        """Processes of all trials that ever started."""
        lines = self.journal.read_text().splitlines()
        return [int(line.split()[2]) for line in lines if line.startswith("start")]

    def rows(self) -> list[optuna.trial.FrozenTrial]:
        """Optuna's trials."""
        url = f"sqlite:///{self.runs_dir / 'optuna.db'}"
        return optuna.load_study(study_name="fake/embedded", storage=url).trials

    def states(self) -> collections.Counter[str]:
        """How many of Optuna's trials are in each state."""
        return collections.Counter(row.state.name for row in self.rows())

    def result(self, trial: Trial):
        """The trial's result."""
        return runs.result_of(trial, self.runs_dir)

    def assert_each_done_once(self, trials: list[Trial]) -> None:
        """Every trial has a result, none was run again after it had one, Optuna says the same."""
        self.assert_each_complete_once(trials)
        assert set(self.noted("done").values()) == {1}  # written after the result: may be cut off

    def assert_each_complete_once(self, trials: list[Trial]) -> None:
        """Every trial has a result here, and Optuna has each of them once."""
        assert [self.result(t).failure for t in trials if self.result(t).status != "done"] == []
        complete = [row.user_attrs["point"] for row in self.rows() if row.state.name == "COMPLETE"]
        assert sorted(complete) == sorted(trial.key for trial in trials)


def lives(pid: int) -> bool:
    """Whether the process is there, and no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
