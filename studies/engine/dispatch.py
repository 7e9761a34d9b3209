"""Runs trials, each exactly once: the only file that knows Optuna.

One dispatcher owns a study's run folder (a file lock), one thread claims, starts, watches and
tells, and every trial is a subprocess. The files decide what is done (`result.json`); Optuna's
database is told the same and can be rebuilt from them. Only the points of a search come from
Optuna's samplers: a grid is not run exactly once by them (GridSampler repeats points, sqlite hands
one trial to two workers).
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from studies.engine import runs, search
from studies.engine.child import Command, default_command
from studies.engine.errors import StudyError
from studies.engine.events import Event, Stopped
from studies.engine.loop import HEARTBEAT_SECONDS, Loop, stop_signals
from studies.engine.records import Result, Trial
from studies.engine.search_points import Points, Row
from studies.engine.sections import Domain, Range
from studies.engine.seeds import derive
from studies.engine.study import Study

INTERRUPTED = "interrupted before it had a result; queued again"


def run(
    study: Study,
    trials: Sequence[Trial],
    runs_dir: Path,
    *,
    slot_count: int = 1,
    retry_failed: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
    command: Command = default_command,
) -> None:
    """Run those of `trials` that have no result, `slot_count` at a time.

    Failed trials are left as they are unless `retry_failed`. `on_event` is called from this thread.

    Raises:
        StudyError: another dispatcher works on this study in `runs_dir`.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; running trials were ended and queued again.
        Stopped: no space, no time left (budget.max_hours), or the first trials all failed alike.
    """
    folder = runs.study_dir(study, runs_dir)
    database = runs_dir / "optuna.db"
    refusal = f"{folder} is in use: another run of this study is under way; wait, or use --runs DIR"
    with runs.locked(folder / ".lock", refusal), _explained(database):
        ledger = _Ledger(study, database)
        todo = ledger.sync(trials, runs_dir, retry_failed, on_event)
        with stop_signals() as signals:
            Loop(study, runs_dir, slot_count, on_event, command, ledger, signals).work(list(todo))


def record(study: Study, trials: Sequence[Trial], runs_dir: Path) -> None:
    """Tell Optuna the results that `trials` have in `runs_dir`; nothing is run.

    Raises `StudyError` and `Stopped` as `run`.
    """
    folder = runs.study_dir(study, runs_dir)
    database = runs_dir / "optuna.db"
    refusal = f"{folder} is in use: another run of this study is under way; wait, or use --runs DIR"
    with runs.locked(folder / ".lock", refusal), _explained(database):
        _Ledger(study, database).sync(trials, runs_dir, False, lambda event: None)


@contextlib.contextmanager
def _explained(database: Path) -> Iterator[None]:
    try:
        yield
    # a full disk reaches us as AssertionError("Should not reach") from inside Optuna
    except (StorageInternalError, SQLAlchemyError, AssertionError) as error:
        cause = " ".join(str(error.__cause__ or error).split())[:300]
        raise Stopped(
            f"{database} cannot be used: {cause}. Finished trials are kept in their folders: make "
            "room, or remove that file (it is made again from them), and run the same command again"
        ) from error


class _Ledger:
    """The study in Optuna's database: one row an attempt, keyed by user attribute `point`."""

    def __init__(self, study: Study, database: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._metric = study.objective.metric
        # two processes that create one schema at once break each other
        with runs.locked(database.with_name(".optuna.lock")), warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats
            self._storage = RDBStorage(
                f"sqlite:///{database.resolve()}",
                engine_kwargs={"connect_args": {"timeout": 60}},
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=6 * HEARTBEAT_SECONDS,
            )
            self._study = optuna.create_study(
                study_name=f"{study.name}/{study.profile}",
                storage=self._storage,
                direction=study.objective.direction,
                load_if_exists=True,
            )
        if self._study.direction.name.lower() != study.objective.direction:
            raise StudyError(
                f"{database} holds this study with direction "
                f"{self._study.direction.name.lower()}, not {study.objective.direction}: "
                "use --runs DIR for a new one"
            )
        self._id = self._storage.get_study_id_from_name(self._study.study_name)
        self._waiting: dict[str, int] = {}

    def sync(
        self,
        trials: Sequence[Trial],
        runs_dir: Path,
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
                result = runs.result_of(known, runs_dir) if known is not None else None
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
            run_dir = runs.trial_dir(trial, runs_dir)
            result = runs.result_of(trial, runs_dir)
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
                self._study.enqueue_trial({}, user_attrs=_attributes(trial))
        queued = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        self._waiting = {_point(row): row.number for row in queued}

    def claim(self, trial: Trial) -> int:
        """Mark the queued `trial` as running; its number.

        `Study.ask` would hand out the oldest queued trial, which may be one that `--only` or an
        edited study leaves out of this run; those stay queued.
        """
        number = self._waiting.pop(trial.key)
        identity = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        if not self._storage.set_trial_state_values(identity, TrialState.RUNNING):
            raise StudyError(f"trial {number} in optuna.db was taken by another program")
        self.heartbeat(number)
        return number

    def heartbeat(self, number: int) -> None:
        """Show that trial `number` is being watched."""
        self._storage.record_heartbeat(
            self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        )

    def tell(self, number: int, result: Result) -> None:
        """Record what the claimed trial `number` found."""
        value = runs.value_of(result, self._metric)
        if value is None:
            failure = result.failure
            self._tell_failed(number, f"{failure.kind}: {failure.message}" if failure else "failed")
        else:
            self._study.tell(number, value)

    def give_back(self, number: int, trial: Trial) -> None:
        """Mark the claimed trial `number` as interrupted and queue it again."""
        self._tell_failed(number, INTERRUPTED)
        self.enqueue(trial)

    def _tell_failed(self, number: int, message: str) -> None:
        identity = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        self._storage.set_trial_user_attr(identity, "message", message)
        self._study.tell(number, state=TrialState.FAIL)

    def _add_complete(self, trial: Trial, value: float) -> None:
        if trial.key in self._waiting:
            self._study.tell(self.claim(trial), value)
        else:
            attributes = _attributes(trial)
            self._study.add_trial(create_trial(value=value, user_attrs=attributes))


def _point(row: FrozenTrial) -> str:
    return str(row.user_attrs.get("point"))


def _attributes(trial: Trial) -> dict[str, object]:
    return {"point": trial.key, "arm": trial.arm, "seed": trial.seed, "swept": trial.swept}


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

    `make` gives the trial of a point. One dispatcher works on a search, whatever the storage.
    """
    folder = runs.study_dir(study, runs_dir)
    database = runs_dir / "optuna.db"
    refusal = f"{folder} is in use: another run of this study is under way; wait, or use --runs DIR"
    with runs.locked(folder / ".lock", refusal), _explained(database):
        sampler = _Sampler(study, make, _Ledger(study, database)._storage)
        points = Points(study, make, runs_dir, sampler)
        points.sync(retry_failed, on_event)
        with stop_signals() as signals:
            Loop(
                study, runs_dir, slot_count, on_event, command, points, signals, points.lagging
            ).work(points)


def importances(
    spec: search.Search, points: Sequence[tuple[search.Settings, Sequence[float]]]
) -> list[dict[str, float]]:
    """For each objective how much each setting decides it (PED-ANOVA, shares that sum to 1)."""
    found = []
    distributions = _distributions(spec)
    for i, objective in enumerate(spec.objectives):
        one = optuna.create_study(direction=objective.direction)
        for settings, values in points:
            one.add_trial(
                create_trial(
                    params=dict(settings), distributions=distributions, value=float(values[i])
                )
            )
        found.append(optuna.importance.get_param_importances(one))
    return found


class _Sampler:
    """Optuna as `studies.engine.search_points.Sampler`: one row a point that was asked for."""

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
        # a sampler that starts anew with the same seed would ask for its first points again
        seed = derive(spec.seed, f"sampler:{len(self._study.get_trials(deepcopy=False))}")
        random = spec.sampler == "random"
        self._study.sampler = (
            RandomSampler(seed) if random else TPESampler(seed=seed, n_startup_trials=spec.startup)
        )

        for row in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "ordinal" not in row.user_attrs:  # cut off while it was being asked for
                self._study.tell(row.number, state=TrialState.FAIL)

    def rows(self) -> list[Row]:
        return [
            Row(row.number, row.user_attrs["ordinal"], row.params, row.state is TrialState.RUNNING)
            for row in self._study.get_trials(deepcopy=False)
            if "ordinal" in row.user_attrs
        ]

    def ask(self, ordinal: int, settings: search.Settings | None = None) -> Row:
        if settings is not None:
            self._study.enqueue_trial(dict(settings))
        with warnings.catch_warnings():  # a search needs no heartbeats: it has one dispatcher
            warnings.simplefilter("ignore", UserWarning)
            asked = self._study.ask(self._distributions)
        asked.set_user_attr("ordinal", ordinal)
        return Row(asked.number, ordinal, asked.params, True)

    def tell(self, number: int, values: Sequence[float] | None, pruned: bool = False) -> None:
        state = TrialState.PRUNED if pruned else TrialState.FAIL
        self._study.tell(number, values, state=state if values is None else None)

    def add(self, ordinal: int, settings: search.Settings, values: Sequence[float] | None) -> None:
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
