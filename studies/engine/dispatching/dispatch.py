"""Runs trials, each exactly once.

One dispatcher owns a study's run folder (a file lock), one thread claims, starts, watches and
tells, and every trial is a subprocess. On one host the files decide what is done (`result.json`);
Optuna's database is told the same and can be rebuilt from them. Several hosts, each with a
dispatcher and a run folder of its own, share a PostgreSQL database instead, see `hosts`.
"""

import contextlib
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from studies.engine import runs
from studies.engine.definition.study import Study
from studies.engine.dispatching import storage
from studies.engine.dispatching.child import Command, default_command
from studies.engine.dispatching.hosts import SharedLedger
from studies.engine.dispatching.loop import Loop, stop_signals
from studies.engine.dispatching.store import Ledger, Sampler, Table, explained
from studies.engine.errors import StudyError
from studies.engine.events import Event, Stopped, Unreachable
from studies.engine.records import Trial
from studies.engine.searching import search
from studies.engine.searching.search_points import Points


def run(
    study: Study,
    trials: Sequence[Trial],
    runs_dir: Path,
    *,
    slot_count: int = 1,
    retry_failed: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
    say: Callable[[str], None] = lambda message: None,
    command: Command = default_command,
) -> None:
    """Run those of `trials` that have no result, `slot_count` at a time.

    Where several hosts share the study, returns when all of `trials` have a result, whoever ran
    them, and `runs_dir` has them all. Failed trials are left as they are unless `retry_failed`.
    `on_event` and `say`, which gets news of the database, are called from this thread.

    Raises:
        StudyError: another dispatcher works on this study in `runs_dir`, or BASIS_ZOO_STORAGE
            names no database that can be used.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; running trials were ended and queued again.
        Stopped: no space, no time left (budget.max_hours), the first trials all failed alike, or
            the database stayed away.
    """
    with _ledger(study, runs_dir) as ledger:
        todo = ledger.sync(trials, retry_failed, on_event)
        hosts = ledger if isinstance(ledger, SharedLedger) else None
        with stop_signals() as signals:
            loop = Loop(study, runs_dir, slot_count, on_event, command, ledger, signals, hosts, say)
            loop.work(list(todo))


def record(study: Study, trials: Sequence[Trial], runs_dir: Path) -> None:
    """Tell Optuna the results that `trials` have in `runs_dir`; nothing is run.

    Raises `StudyError` and `Stopped` as `run`.
    """
    with _ledger(study, runs_dir) as ledger:
        ledger.sync(trials, False, lambda event: None)


def pull(study: Study, trials: Sequence[Trial], runs_dir: Path) -> None:
    """Write what other hosts found of `trials` into `runs_dir`; does nothing on one host.

    Raises `StudyError` and `Stopped` as `run`.
    """
    server = storage.configured()
    if server is not None and trials:
        with _connected(study, server) as table:
            SharedLedger(table, study.objective.metric, runs_dir, "").pull(trials)


def run_search(
    study: Study,
    make: search.Make,
    runs_dir: Path,
    *,
    slot_count: int = 1,
    retry_failed: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
    command: Command = default_command,
) -> None:
    """Run the points of the study's search that are left; arguments and errors are those of `run`.

    `make` gives the trial of a point. One host works on a search: where several share a database,
    this is refused, since each would choose other points.
    """
    if storage.configured() is not None:
        raise StudyError(
            f"the search of {study.name} is one host's: run it without {storage.STORAGE_VARIABLE}; "
            "with the same --runs its seeds can be shared afterwards"
        )
    with _ledger(study, runs_dir) as ledger:
        assert isinstance(ledger, Ledger)
        points = Points(study, make, runs_dir, Sampler(study, make, ledger.storage))
        points.sync(retry_failed, on_event)
        with stop_signals() as signals:
            loop = Loop(
                *(study, runs_dir, slot_count, on_event, command, points, signals),
                lagging=points.lagging,
            )
            loop.work(points)


@contextlib.contextmanager
def _ledger(study: Study, runs_dir: Path) -> "Iterator[Ledger | SharedLedger]":
    """The study's attempts, for this process alone as far as `runs_dir` goes."""
    server = storage.configured()
    folder = runs.study_dir(study, runs_dir)
    database = runs_dir / "optuna.db"
    refusal = f"{folder} is in use: another run of this study is under way; wait, or use --runs DIR"
    with runs.locked(folder / ".lock", refusal):
        if server is None:
            with explained(database):
                yield Ledger(study, database)
        else:
            with _connected(study, server) as table:
                yield SharedLedger(table, study.objective.metric, runs_dir, _owner(folder))


@contextlib.contextmanager
def _connected(study: Study, server: storage.Server) -> "Iterator[Table]":
    """The study in the database on `server`, and words for the database's trouble."""
    server.check()
    try:
        yield Table(study, server)
    except Unreachable as error:
        raise Stopped(
            f"{server} does not answer: {error}. Finished trials are kept in their folders: run "
            "the same command again once it does"
        ) from error


def _owner(folder: Path) -> str:
    """A name that no other host and folder has, the same whenever it is asked for."""
    path = folder / ".owner"
    if not path.exists():
        path.write_text(uuid.uuid4().hex, encoding="ascii")
    return f"{socket.gethostname()}/{path.read_text(encoding='ascii')}"
