"""The boundary behind which MLflow may fail: what it does not take is said, kept and offered again.

Results are in the trials' folders before MLflow hears of them, so nothing here can lose one: the
folders are the spool, and `deliver` brings all of them.
"""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from studies.engine import track
from studies.engine.definition.study import Study
from studies.engine.errors import masked
from studies.engine.records import Result, Trial

if TYPE_CHECKING:  # matplotlib takes a second
    from studies.engine.reporting.report import Report

RETRY_SECONDS = 30.0
"""Between two attempts while MLflow is away."""

Found = tuple[Trial, Result, Path]


class Tracking:
    """A study in MLflow while it runs, written by a thread: however slow MLflow is, nobody waits.

    with Tracking(study, runs_dir, say) as page:
        page.end_trial(trial, result, run_dir)

    Leaving waits for the request that is under way; what is still queued then is left to `deliver`.
    """

    def __init__(self, study: Study, runs_dir: Path, say: Callable[[str], None]) -> None:
        """`say` gets one line where something fails, the first time of each trial."""
        self._study, self._runs_dir, self._say = study, runs_dir, say
        self._queue: queue.SimpleQueue[Found | None] = queue.SimpleQueue()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        # "Creating initial MLflow database tables" is no news to someone who waits for results
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)

    def __enter__(self) -> "Tracking":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leaving.set()
        self._queue.put(None)
        self._thread.join()

    def end_trial(self, trial: Trial, result: Result, run_dir: Path) -> None:
        """Show a trial that ended as soon as MLflow takes it; returns at once."""
        self._queue.put((trial, result, run_dir))

    def _work(self) -> None:
        page = track.TrackedStudy(self._study, self._runs_dir)
        self._until_taken(page.__enter__)
        while not self._leaving.is_set():
            found = self._queue.get()
            if found is not None:
                self._until_taken(lambda found=found: page.end_trial(*found))

    def _until_taken(self, call: Callable[[], object]) -> None:
        """Make `call` until it works, or the study is left."""
        said = False
        while not self._leaving.is_set():
            try:
                call()
                return
            except Exception as error:
                if not said:
                    self._say(f"MLflow: {_line(error)}. Training goes on; tried again by itself")
                said = True
                self._leaving.wait(RETRY_SECONDS)


def deliver(
    study: Study,
    found: Sequence[Found],
    report: "Report",
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
    return masked(" ".join(f"{type(error).__name__}: {error}".split()).rstrip("."))
