"""Attempts and search points in Optuna's databases: the only file that knows Optuna.

One row an attempt, keyed by user attribute `point`. Only the points of a search come from Optuna's
samplers: a grid is not run exactly once by them (GridSampler repeats points, sqlite hands one trial
to two workers).
"""

import contextlib
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import (
    ExperimentalWarning,
    StorageInternalError,
    UpdateFinishedTrialError,
)
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from studies.engine import runs
from studies.engine.definition.sections import Domain, Range
from studies.engine.definition.study import Study
from studies.engine.dispatching import storage
from studies.engine.dispatching.attempts import INTERRUPTED, Row, attributes_of
from studies.engine.dispatching.loop import HEARTBEAT_SECONDS
from studies.engine.errors import StudyError
from studies.engine.events import Event, Stopped, Unreachable
from studies.engine.records import Result, Trial
from studies.engine.searching import search, search_points
from studies.engine.trials.seeds import derive

STATES = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
}


@contextlib.contextmanager
def explained(database: Path) -> Iterator[None]:
    """Turn the trouble of the sqlite file `database` into `Stopped`, with what to do."""
    try:
        yield
    # a full disk reaches us as AssertionError("Should not reach") from inside Optuna
    except (StorageInternalError, SQLAlchemyError, AssertionError) as error:
        cause = " ".join(str(error.__cause__ or error).split())[:300]
        raise Stopped(
            f"{database} cannot be used: {cause}. Finished trials are kept in their folders: make "
            "room, or remove that file (it is made again from them), and run the same command again"
        ) from error


def _open(
    study: Study, url: str, options: Mapping[str, Any], where: str
) -> tuple[RDBStorage, optuna.Study]:
    """Optuna's study in the database `url`, made where it is not there; one process at a time.

    Two processes that create one schema at once break each other. Raises `StudyError` where the
    study is there with another direction; `where` names the database.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats
        database = RDBStorage(
            url.replace("{", "{{").replace("}", "}}"),  # Optuna formats it
            engine_kwargs=dict(options),
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=6 * HEARTBEAT_SECONDS,
        )
    found = optuna.create_study(
        study_name=f"{study.name}/{study.profile}",
        storage=database,
        direction=study.objective.direction,
        load_if_exists=True,
    )
    if found.direction.name.lower() != study.objective.direction:
        raise StudyError(
            f"{where} holds this study with direction {found.direction.name.lower()}, not "
            f"{study.objective.direction}: use --runs DIR for a new one"
        )
    return database, found


class Table:
    """The study's rows in a database that several hosts use: the `attempts.Table`."""

    def __init__(self, study: Study, server: storage.Server) -> None:
        self._server, self._name = server, f"{study.name}/{study.profile}"
        with self._answering(), server.locked("schema"):
            self._storage, self._study = _open(
                study, server.address, server.engine_options, str(server)
            )
            self._id = self._storage.get_study_id_from_name(self._name)

    @contextlib.contextmanager
    def locked(self, wait: bool = True) -> Iterator[bool]:
        """Keep other planners of this study out; False where one is at work and `wait` is not."""
        with self._answering(), self._server.locked(self._name, wait) as held:
            yield held

    def rows(self) -> list[Row]:
        """All rows, oldest first."""
        with self._answering():
            found = self._study.get_trials(deepcopy=False)
        return [Row(r.number, STATES[r.state], r.user_attrs) for r in found if r.state in STATES]

    def add(self, attributes: Mapping[str, Any], value: float | None = None) -> None:
        """A new row: complete with `value`, or waiting."""
        state = TrialState.WAITING if value is None else TrialState.COMPLETE
        with self._answering():
            self._study.add_trial(
                create_trial(state=state, value=value, user_attrs=dict(attributes))
            )

    def claim(self, number: int) -> bool:
        """Waiting to running; False where another was first."""
        return self._changed(number, lambda i: self._set(i, TrialState.RUNNING))

    def write(self, number: int, name: str, value: Any) -> bool:
        """Set an attribute; False where the row has ended."""
        return self._changed(number, lambda i: self._storage.set_trial_user_attr(i, name, value))

    def end(self, number: int, value: float | None) -> bool:
        """Complete with `value`, or failed; False where the row had ended before."""
        if value is None:
            return self._changed(number, lambda i: self._set(i, TrialState.FAIL))
        return self._changed(number, lambda i: self._set(i, TrialState.COMPLETE, [value]))

    def _set(self, identity: int, state: TrialState, values: list[float] | None = None) -> bool:
        return self._storage.set_trial_state_values(identity, state, values)

    def _changed(self, number: int, change: Callable[[int], bool | None]) -> bool:
        with self._answering():
            identity = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
            try:
                return change(identity) is not False
            except UpdateFinishedTrialError:
                return False

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (StorageInternalError, SQLAlchemyError) as error:
            raise Unreachable(self._server.masked(error.__cause__ or error)) from error


class _Connection(sqlite3.Connection):
    """Does not wait for the disk at each commit: what a power cut takes is made again from files.

    With a write-ahead log the database stays whole (sqlite.org/pragma.html#pragma_synchronous).
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = NORMAL")


class Ledger:
    """The study in the sqlite file of one runs folder; a `loop.Ledger`.

    One row an attempt, keyed by user attribute `point`.
    """

    def __init__(self, study: Study, database: Path) -> None:
        self._metric, self._runs_dir = study.objective.metric, database.parent
        with runs.locked(database.with_name(".optuna.lock")):
            self.storage, self._study = _open(
                study,
                f"sqlite:///{database.resolve()}",
                {"connect_args": {"timeout": 60, "factory": _Connection}},
                str(database),
            )
        self._id = self.storage.get_study_id_from_name(self._study.study_name)
        self._waiting: dict[str, int] = {}

    def sync(
        self,
        trials: Sequence[Trial],
        retry_failed: bool,
        on_event: Callable[[Event], None],
    ) -> list[Trial]:
        """Bring the database in line with the files; the trials that are to run now, queued."""
        rows = self._study.get_trials(deepcopy=False)
        complete = {_point(row) for row in rows if row.state is TrialState.COMPLETE}
        by_key = {trial.key: trial for trial in trials}
        for row in rows:
            if row.state is TrialState.RUNNING:  # its dispatcher died: nobody else holds the lock
                known = by_key.get(_point(row))
                result = runs.result_of(known, self._runs_dir) if known is not None else None
                if result is None:
                    self._tell_failed(row.number, INTERRUPTED)
                else:
                    self.tell(row.number, result)
                if runs.value_of(result, self._metric) is not None:
                    complete.add(_point(row))
            elif row.state is TrialState.WAITING:
                self._waiting[_point(row)] = row.number
        todo = []
        for trial in trials:
            run_dir = runs.trial_dir(trial, self._runs_dir)
            result = runs.result_of(trial, self._runs_dir)
            value = runs.value_of(result, self._metric)
            if value is not None:
                if trial.key not in complete:
                    self._add_complete(trial, value)
                on_event(Event("found", trial, run_dir, result=result))
            elif result is not None and result.status == "failed" and not retry_failed:
                on_event(Event("found", trial, run_dir, result=result))
            else:
                todo.append(trial)
        self.enqueue(*todo)
        return todo

    def enqueue(self, *trials: Trial) -> None:
        """Queue those of `trials` that are not queued."""
        for trial in trials:
            if trial.key not in self._waiting:
                row = create_trial(state=TrialState.WAITING, user_attrs=attributes_of(trial))
                identity = self.storage.create_new_trial(self._id, template_trial=row)
                self._waiting[trial.key] = self.storage.get_trial_number_from_id(identity)

    def claim(self, trial: Trial) -> int:
        """Mark the queued `trial` as running; its number.

        `Study.ask` would hand out the oldest queued trial, which may be one that `--only` or an
        edited study leaves out of this run; those stay queued.
        """
        number = self._waiting.pop(trial.key)
        identity = self.storage.get_trial_id_from_study_id_trial_number(self._id, number)
        if not self.storage.set_trial_state_values(identity, TrialState.RUNNING):
            raise StudyError(f"trial {number} in optuna.db was taken by another program")
        self.heartbeat(number)
        return number

    def heartbeat(self, number: int) -> None:
        """Show that trial `number` is being watched."""
        self.storage.record_heartbeat(
            self.storage.get_trial_id_from_study_id_trial_number(self._id, number)
        )

    def tell(self, number: int, result: Result) -> bool:
        """Record what the claimed trial `number` found."""
        value = runs.value_of(result, self._metric)
        if value is None:
            failure = result.failure
            self._tell_failed(number, f"{failure.kind}: {failure.message}" if failure else "failed")
        else:
            self._study.tell(number, value)
        return True

    def give_back(self, number: int, trial: Trial) -> None:
        """Mark the claimed trial `number` as interrupted and queue it again."""
        self._tell_failed(number, INTERRUPTED)
        self.enqueue(trial)

    def _tell_failed(self, number: int, message: str) -> None:
        identity = self.storage.get_trial_id_from_study_id_trial_number(self._id, number)
        self.storage.set_trial_user_attr(identity, "message", message)
        self._study.tell(number, state=TrialState.FAIL)

    def _add_complete(self, trial: Trial, value: float) -> None:
        if trial.key in self._waiting:
            self._study.tell(self.claim(trial), value)
        else:
            attributes = attributes_of(trial)
            self._study.add_trial(create_trial(value=value, user_attrs=attributes))


def _point(row: FrozenTrial) -> str:
    return str(row.user_attrs.get("point"))


def importances(
    spec: search.Search, points: Sequence[tuple[search.Settings, Sequence[float]]]
) -> list[dict[str, float]]:
    """For each objective how much each setting decides it (PED-ANOVA, shares that sum to 1).

    {} where no setting does: all points have the same value.
    """
    found: list[dict[str, float]] = []
    distributions = _distributions(spec)
    for i, objective in enumerate(spec.objectives):
        if len({values[i] for _, values in points}) == 1:
            found.append({})  # Optuna would give every setting the same share
            continue
        one = optuna.create_study(direction=objective.direction)
        for settings, values in points:
            one.add_trial(
                create_trial(
                    params=dict(settings), distributions=distributions, value=float(values[i])
                )
            )
        found.append(optuna.importance.get_param_importances(one))
    return found


class Sampler:
    """Optuna as `search_points.Sampler`: one row a point that was asked for."""

    def __init__(
        self, study: Study, make: search.Make, storage: optuna.storages.BaseStorage
    ) -> None:
        spec = search.wanted(study)
        self._distributions = _distributions(spec)
        self._study = optuna.create_study(
            study_name=f"{study.name}/{study.profile}/search-{search.identity(study, make)}",
            storage=storage,
            directions=[objective.direction for objective in spec.objectives],
            load_if_exists=True,
        )
        self._storage = storage
        self._id = storage.get_study_id_from_name(self._study.study_name)
        # a sampler that starts anew with the same seed would ask for its first points again
        seed = derive(spec.seed, f"sampler:{len(self._study.get_trials(deepcopy=False))}")
        random = spec.sampler == "random"
        self._study.sampler = (
            RandomSampler(seed) if random else TPESampler(seed=seed, n_startup_trials=spec.startup)
        )
        for row in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "ordinal" not in row.user_attrs:  # cut off before it was kept
                self._study.tell(row.number, state=TrialState.FAIL)

    def rows(self) -> list[search_points.Row]:
        """Every point that was asked for."""
        return [
            search_points.Row(
                row.number, row.user_attrs["ordinal"], row.params, row.state is TrialState.RUNNING
            )
            for row in self._study.get_trials(deepcopy=False)
            if "ordinal" in row.user_attrs
        ]

    def ask(self, ordinal: int, settings: search.Settings | None = None) -> search_points.Row:
        """A new row, running: with `settings` of ours, else of the sampler's choice.

        Until it is kept it is none of `rows`, and who starts after a crash does not find it.
        """
        if settings is not None:
            self._study.enqueue_trial(dict(settings))
        with warnings.catch_warnings():  # a search needs no heartbeats: it has one dispatcher
            warnings.simplefilter("ignore", UserWarning)
            asked = self._study.ask(self._distributions)
        return search_points.Row(asked.number, ordinal, asked.params, True)

    def keep(self, row: search_points.Row) -> None:
        """The point of the asked `row` is to be run."""
        identity = self._storage.get_trial_id_from_study_id_trial_number(self._id, row.number)
        self._storage.set_trial_user_attr(identity, "ordinal", row.ordinal)

    def tell(self, number: int, values: Sequence[float] | None, pruned: bool = False) -> None:
        """The objectives of a running row; None where it failed, or was `pruned`."""
        state = TrialState.PRUNED if pruned else TrialState.FAIL
        self._study.tell(number, values, state=state if values is None else None)

    def add(self, ordinal: int, settings: search.Settings, values: Sequence[float] | None) -> None:
        """A row for a point that ended without the sampler's knowledge."""
        self._study.add_trial(
            create_trial(
                state=TrialState.FAIL if values is None else TrialState.COMPLETE,
                values=values,
                params=dict(settings),
                distributions=self._distributions,
                user_attrs={"ordinal": ordinal},
            )
        )


def _distributions(spec: search.Search) -> dict[str, BaseDistribution]:
    """Optuna's words for the space of `spec`."""

    def of(domain: Domain) -> BaseDistribution:
        if not isinstance(domain, Range):
            return CategoricalDistribution(domain)
        if domain.kind == "int":
            return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
        return FloatDistribution(domain.low, domain.high, log=domain.log)

    return {path: of(domain) for path, domain in spec.space.items()}
