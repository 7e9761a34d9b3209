"""Runs what is left of a study: its ledger, a runner and the loop, for one command at a time.

Optuna takes half a second to import, so it comes in where something is run, not for `--plan`.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studies.engine.definition.study import Study
from studies.engine.planning import runs
from studies.engine.records import Trial
from studies.engine.running.events import Event
from studies.engine.running.loop import Loop, stop_signals
from studies.engine.running.protocols import Ledger, Runner
from studies.engine.running.slots import STORAGE_VARIABLE
from studies.engine.searching import search

if TYPE_CHECKING:
    from studies.engine.searching.optuna_storage import Storage

MakeRunner = Callable[[int], Runner]
"""From the number of trials that are left to what runs them."""
OnEvent = Callable[[Event], None]


Say = Callable[[str], None]
"""Takes a line about what was mended."""


def ignore(event: Event | str) -> None:
    """Nobody watches."""


def run(
    study: Study,
    trials: Sequence[Trial],
    runs_dir: Path,
    make_runner: MakeRunner,
    *,
    retry_failed: bool = False,
    on_event: OnEvent = ignore,
    say: Say = ignore,
) -> None:
    """Run those of `trials` that have no result; failed ones only if `retry_failed`.

    Raises:
        StudyError: another command works on this study in `runs_dir`.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; running trials were ended and queued again.
        Stopped: no space, no time left (budget.max_hours), the first trials all failed alike, or
            the runner or Optuna's storage is gone.
    """
    from studies.engine.searching.optuna_storage import OptunaLedger

    with _storage(study, runs_dir, say) as storage:
        ledger = OptunaLedger(study, runs_dir, storage)
        ledger.sync(trials, retry_failed, on_event)
        _work(ledger, runs_dir, make_runner, on_event)


def record(study: Study, trials: Sequence[Trial], runs_dir: Path, say: Say = ignore) -> None:
    """Tell Optuna the results that `trials` have in `runs_dir`; nothing is run.

    Raises `StudyError` and `Stopped` as `run`.
    """
    from studies.engine.searching.optuna_storage import OptunaLedger

    with _storage(study, runs_dir, say) as storage:
        OptunaLedger(study, runs_dir, storage).sync(trials, False, ignore)


def run_search(
    study: Study,
    make: search.Make,
    runs_dir: Path,
    make_runner: MakeRunner,
    *,
    retry_failed: bool = False,
    on_event: OnEvent = ignore,
    say: Say = ignore,
) -> None:
    """Run the points of the study's search that are left, as `run`; `make` gives their trials."""
    from studies.engine.searching.optuna_storage import Sampler
    from studies.engine.searching.points import SearchLedger

    with _storage(study, runs_dir, say) as storage:
        ledger = SearchLedger(study, make, runs_dir, Sampler(study, make, storage))
        ledger.sync(retry_failed, on_event)
        _work(ledger, runs_dir, make_runner, on_event)


def _work(ledger: Ledger, runs_dir: Path, make_runner: MakeRunner, on_event: OnEvent) -> None:
    if not len(ledger):
        return
    runner = make_runner(len(ledger))  # may take minutes: signals end the command as they are
    with stop_signals() as signals:
        Loop(ledger, runner, runs_dir, signals=signals, on_event=on_event).work()


@contextlib.contextmanager
def owned(study: Study, runs_dir: Path) -> Iterator[None]:
    """Keep other commands away from the study in `runs_dir`; raises `StudyError` where one is."""
    folder = runs.study_dir(study, runs_dir)
    refusal = f"{folder} is in use: another run of this study is under way; wait, or use --runs DIR"
    with runs.locked(folder / ".lock", refusal):
        yield


@contextlib.contextmanager
def _storage(study: Study, runs_dir: Path, say: Say) -> "Iterator[Storage]":
    """Optuna's storage, while this process alone works on the study in `runs_dir`."""
    from studies.engine.searching.optuna_storage import Storage

    with owned(study, runs_dir):
        storage = Storage(runs_dir, os.environ.get(STORAGE_VARIABLE), say)
        with contextlib.closing(storage), storage.explained():
            yield storage
