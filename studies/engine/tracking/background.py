"""The boundary behind which MLflow may fail: what it does not take is said, kept and offered again.

Results are in the trials' folders before MLflow hears of them, so nothing here can lose one: the
folders are the spool, and `deliver` brings all of them.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from studies.engine.definition.study import Study
from studies.engine.errors import masked
from studies.engine.records import Result, Trial
from studies.engine.tracking import pages

if TYPE_CHECKING:  # matplotlib takes a second
    from studies.engine.reporting.report import Report

RETRY_SECONDS = 30.0
"""Between two attempts while MLflow is away."""

EndedTrial = tuple[Trial, Result, Path]


class Tracking:
    """A study in MLflow while it runs, written by a thread: however slow MLflow is, nobody waits.

    with Tracking(study, runs_dir, say) as page:
        page.end_trial(trial, result, run_dir)

    Leaving waits for the request that is under way; what is still queued then is left to `deliver`.
    """

    def __init__(self, study: Study, runs_dir: Path, say: Callable[[str], None]) -> None:
        """`say` gets one line where something fails, the first time of each trial."""
        self._study, self._runs_dir, self._say = study, runs_dir, say
        self._queue: queue.SimpleQueue[EndedTrial | None] = queue.SimpleQueue()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._away = False
        self._said: set[str] = set()

    def __enter__(self) -> "Tracking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._queue.put(None)
        self._thread.join()

    def end_trial(self, trial: Trial, result: Result, run_dir: Path) -> None:
        """Show a trial that ended as soon as MLflow takes it; returns at once."""
        self._queue.put((trial, result, run_dir))

    def _work(self) -> None:
        page = pages.TrackedStudy(self._study, self._runs_dir, self._say)
        while not self._leaving.is_set() and not self._attempt(page.open, ""):
            self._leaving.wait(RETRY_SECONDS)
        # now, while trials train: after the last one somebody waits for the seconds that it takes
        from studies.engine.reporting import report  # noqa: F401

        while not self._leaving.is_set():
            ended = self._queue.get()
            if ended is None:
                return
            if not self._attempt(partial(page.end_trial, *ended), ended[0].key):
                self._queue.put(ended)  # behind the others: it may be the only one that fails
                self._leaving.wait(RETRY_SECONDS)

    def _attempt(self, call: Callable[[], object], key: str) -> bool:
        """Whether `call` is settled; what fails is said once a trial, and once while all fail."""
        try:
            call()
        except pages.TrialRefusedError as error:
            self._say(str(error))  # the same again would be refused again
        except Exception as error:
            if not self._away and key not in self._said:
                self._say(f"MLflow: {_line(error)}. Training goes on; tried again by itself")
            self._away = True
            self._said.add(key)
            return False
        self._away = False
        return True


def deliver(
    study: Study,
    ended: Sequence[EndedTrial],
    report: "Report | None",
    runs_dir: Path,
    say: Callable[[str], None],
) -> pages.MlflowLink | None:
    """Make the page show all of `ended` and the report, if any.

    Says why, and gives None, where that fails. A trial that MLflow does not take is said as well,
    and the page shows the others.
    """
    try:
        return pages.track_all(study, ended, report, runs_dir, say)
    except Exception as error:
        say(f"MLflow: {_line(error)}. All results are kept; `--report` brings them to MLflow")
        return None


def _line(error: Exception) -> str:
    return masked(" ".join(f"{type(error).__name__}: {error}".split()).rstrip("."))
