"""The boundary behind which MLflow may fail: what it does not take is said, kept and offered again.

Results are in the trials' folders before MLflow hears of them, so nothing here can lose one.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from studies.engine import track
from studies.engine.records import Result, Trial
from studies.engine.report import Report
from studies.engine.study import Study


class Tracking:
    """A study in MLflow while it runs."""

    def __init__(self, study: Study, runs_dir: Path, say: Callable[[str], None]) -> None:
        """Open the study's page; `say` gets one line where something fails."""
        self._study, self._runs_dir, self._say = study, runs_dir, say
        self._live: track.TrackedStudy | None = None
        # "Creating initial MLflow database tables" is no news to someone who waits for results
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        try:
            self._live = track.TrackedStudy(study, runs_dir).__enter__()
        except Exception as error:
            self._failed(error)

    def end_trial(self, trial: Trial, result: Result, run_dir: Path) -> None:
        """Show a trial that ended; after a failure nothing more is shown until `deliver`."""
        if self._live is None:
            return
        try:
            self._live.end_trial(trial, result, run_dir)
        except Exception as error:
            self._live = None
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._say(f"MLflow: {_line(error)}. Training goes on; tried again at the end")


def deliver(
    study: Study,
    found: Sequence[tuple[Trial, Result, Path]],
    report: Report,
    runs_dir: Path,
    say: Callable[[str], None],
) -> track.MlflowLink | None:
    """Make the page show all of `found` and the report; says why and gives None where it fails."""
    try:
        return track.track_all(study, found, report, runs_dir)
    except Exception as error:
        say(f"MLflow: {_line(error)}. All results are kept; `--report` brings them to MLflow")
        return None


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
