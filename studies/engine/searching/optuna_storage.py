"""What Optuna keeps and chooses: attempts as rows, and samplers. The only file that knows it.

Only the points of a search come from Optuna's samplers: a grid is not run exactly once by them
(GridSampler repeats points, sqlite hands one trial to two workers). Of every other trial a row is
written when it ends; which trials are done is told by their folders, so the rows can be made again.
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
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from studies import databases, files
from studies.engine.definition.sections import Domain, Range, Search, SearchObjective
from studies.engine.definition.study import Objective, Study
from studies.engine.errors import StudyError, masked
from studies.engine.planning import runs
from studies.engine.records import Result, Trial
from studies.engine.running.events import Event, Stopped
from studies.engine.running.protocols import Queue, Task
from studies.engine.searching import params, search
from studies.engine.trials.seeds import derive

INTERRUPTED = "interrupted before it had a result; queued again"


class Storage:
    """Optuna's storage of a runs folder: its file `optuna.db`, or whatever `url` names.

    A file that is no whole database is set aside, which `say` is told, and made again.

    Raises:
        StudyError: `url` is none that Optuna takes, or needs a driver that is missing.
        Stopped: the file cannot be used.
    """

    def __init__(
        self, runs_dir: Path, url: str | None = None, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self._file = runs_dir / "optuna.db"
        self.name = masked(url) if url else str(self._file)
        runs_dir.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self.explained(OSError, sqlite3.Error):
            if url is None:
                # two processes that create one schema at once break each other
                with files.locked(self._file.with_name(".optuna.lock")):
                    if notice := databases.set_aside_broken(self._file, "version_info"):
                        say(f"{notice}; it is made again from the trials' folders")
                    if not self._file.exists():
                        databases.make(self._file, lambda file: _sqlite(file).engine.dispose())
                    self.storage: BaseStorage = _sqlite(self._file)
                return
            try:
                self.storage = optuna.storages.get_storage(url)
            except (ImportError, ValueError) as error:
                raise StudyError(f"BASIS_ZOO_STORAGE {self.name}: {masked(str(error))}") from None

    def close(self) -> None:
        """Close the file: a process that goes on, such as a notebook, leaves nothing beside it."""
        if isinstance(self.storage, RDBStorage):
            self.storage.remove_session()
            self.storage.engine.dispose()

    @contextlib.contextmanager
    def explained(self, *more: type[Exception]) -> Iterator[None]:
        """Turn the storage's trouble, and `more`, into `Stopped`, with what to do."""
        # a full disk reaches us as AssertionError("Should not reach") from inside Optuna
        known = StorageInternalError, SQLAlchemyError, AssertionError
        trouble: tuple[type[Exception], ...] = (*known, *more)
        try:
            yield
        except trouble as error:
            cause = masked(" ".join(str(error.__cause__ or error).split()))[:300]
            raise Stopped(
                f"{self.name} cannot be used: {cause}. Finished trials are kept in their folders: "
                "make room, or remove that file (it is made again from them), and run the same "
                "command again"
            ) from error

    def study(
        self, study: Study, part: str = "", objectives: Sequence[Objective | SearchObjective] = ()
    ) -> optuna.Study:
        """Optuna's study for `study`, or for a `part` of it, made where it is not there.

        Raises `StudyError` where it is there with another direction.
        """
        objectives = objectives or [study.objective_of()]
        wanted = [objective.direction for objective in objectives]
        own = optuna.create_study(
            study_name="/".join(filter(None, (study.name, study.profile, part))),
            storage=self.storage,
            directions=wanted,
            load_if_exists=True,
        )
        known = [direction.name.lower() for direction in own.directions]
        if known != wanted:
            raise StudyError(
                f"{self.name} holds this study with direction {', '.join(known)}, not "
                f"{', '.join(wanted)}: use --runs DIR for a new one"
            )
        with warnings.catch_warnings():  # optuna-dashboard shows them; Optuna calls them new
            warnings.simplefilter("ignore", ExperimentalWarning)
            own.set_metric_names([objective.metric for objective in objectives])
        return own


class _Connection(sqlite3.Connection):
    """Does not wait for the disk at each commit: what a power cut takes is made again from files.

    With a write-ahead log the database stays whole (sqlite.org/pragma.html#pragma_synchronous).
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = NORMAL")


def _sqlite(file: Path) -> RDBStorage:
    """The storage in `file`, whose path may hold anything."""
    path = str(file.resolve())
    return RDBStorage(
        "sqlite://",
        engine_kwargs={
            "creator": lambda: sqlite3.connect(
                path, timeout=60, factory=_Connection, check_same_thread=False
            ),
            "poolclass": None,
        },
    )


class OptunaLedger(Queue):
    """The trials of a study: queued by their folders; each attempt that ended is a row in Optuna.

    Where the study reads files of the user's, another content of them has rows of its own.

    A row has as params the trial's settings that the study sweeps or tries anywhere, and the user
    attributes `point` (the trial's key), `trial` (arm, task, seed, stage, attempt) and, where it
    failed, `message`: each costs Optuna about 2 ms.
    """

    def __init__(self, study: Study, runs_dir: Path, storage: Storage) -> None:
        super().__init__()
        self._spec, self._runs_dir, self._owner = study, runs_dir, storage
        identity = study.contents.identity
        self._part = f"data-{identity}" if identity else ""
        self._study, self._storage = storage.study(study, self._part), storage.storage
        self._paths = set[str]().union(*study.chosen.values())
        self._space: dict[str, BaseDistribution] = {}
        """Of the params, which are the settings at `_paths`."""

    def sync(
        self, trials: Sequence[Trial], retry_failed: bool, on_event: Callable[[Event], None]
    ) -> None:
        """Bring Optuna in line with the folders, and queue the trials that are to run now."""
        self._end_old()
        rows = self._with_params(trials)
        complete = {_point(row) for row in rows if row.state is TrialState.COMPLETE}
        known = {(_point(row), row.user_attrs.get("trial", {}).get("attempt", 1)) for row in rows}
        queued: set[str] = set()
        for trial in trials:
            task = self._task(trial)
            result = runs.result_of(trial, self._runs_dir)
            value = runs.value_of(result, task.metric)
            if result is None or (value is None and result.status == "failed" and retry_failed):
                if trial.key not in queued:  # a stage may have made two arms one
                    self._queued.append(task)
                queued.add(trial.key)
                continue
            new = trial.key not in complete if value is not None else (
                (trial.key, result.attempt) not in known)  # fmt: skip
            if new:
                self._write(trial, result)
            on_event(Event("found", trial, task.run_dir, result=result))

    def ended(self, task: Task, result: Result, again: bool) -> None:
        """Write a row, and queue the trial `again` where it is to be retried."""
        super().ended(task, result, again)
        self._write(task.trial, result)

    def give_back(self, task: Task) -> None:
        """Write that the trial was interrupted, and queue it again."""
        super().give_back(task)
        self._add(task.trial, None, INTERRUPTED)

    def _end_old(self) -> None:
        """End rows of a version that wrote them beforehand."""
        for row in self._study.get_trials(deepcopy=False):
            if not row.state.is_finished():
                self._storage.set_trial_state_values(row._trial_id, TrialState.FAIL)

    def _with_params(self, trials: Sequence[Trial]) -> list[FrozenTrial]:
        """The rows, with the params that the rows of `trials` are to have.

        A param whose values are others than before can be none of Optuna's: all rows are written
        again then. What a kill takes meanwhile is made again from the folders.
        """
        rows, known = self._study.get_trials(), {trial.key: trial.settings for trial in trials}
        before = [row.params or row.user_attrs.get("trial", {}).get("swept", {}) for row in rows]
        self._paths = self._paths.union(*before, *(trial.varied for trial in trials))
        wanted = [
            params.params(known.get(_point(row), own), self._paths)
            for row, own in zip(rows, before, strict=True)
        ]
        planned = [params.params(settings, self._paths) for settings in known.values()]
        self._space = _distributions(params.space([*wanted, *planned]))
        if any(
            row.params != own or not self._fits(row) for row, own in zip(rows, wanted, strict=True)
        ):
            optuna.delete_study(study_name=self._study.study_name, storage=self._storage)
            self._study = self._owner.study(self._spec, self._part)
            for row, own in zip(rows, wanted, strict=True):
                row.params, row.distributions = own, {path: self._space[path] for path in own}
                row.datetime_start = row.datetime_start or row.datetime_complete  # never begun
                self._study.add_trial(row)
        return rows

    def _fits(self, row: FrozenTrial) -> bool:
        """Whether Optuna takes the params of `row` beside the new ones: their kind, their words."""
        return all(
            type(old) is type(new := self._space[path])
            and (old == new or not isinstance(old, CategoricalDistribution))
            for path, old in row.distributions.items()
        )

    def _task(self, trial: Trial) -> Task:
        run_dir = runs.trial_dir(trial, self._runs_dir)
        metric = self._spec.objective_of(trial.task).metric
        return Task(trial, run_dir, metric, self._spec.budget)

    def _write(self, trial: Trial, result: Result) -> None:
        failure = result.failure
        message = "" if failure is None else f"{failure.kind}: {failure.message}"
        value = runs.value_of(result, self._spec.objective_of(trial.task).metric)
        self._add(trial, value, message, {"attempt": result.attempt})

    def _add(
        self, trial: Trial, value: float | None, message: str, more: Mapping[str, Any] = {}
    ) -> None:
        about = {"arm": trial.arm, "seed": trial.seed, "stage": trial.stage, **more}
        about |= {"task": trial.task} if trial.task else {}
        attributes = {"point": trial.key, "trial": about}
        if message:
            attributes["message"] = message
        own = params.params(trial.settings, self._paths)
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        row = _row(own, self._space, state=state, value=value, user_attrs=attributes)
        self._study.add_trial(row)


def _row(
    settings: search.Settings, space: Mapping[str, BaseDistribution], **about: Any
) -> FrozenTrial:
    distributions = {path: space[path] for path in settings}
    return create_trial(params=dict(settings), distributions=distributions, **about)


def _point(row: FrozenTrial) -> str:
    return str(row.user_attrs.get("point"))


def importances(
    spec: Search, points: Sequence[tuple[search.Settings, Sequence[float]]]
) -> list[dict[str, float]]:
    """For each objective how much each setting decides it (PED-ANOVA, shares that sum to 1).

    {} where no setting does: all points have the same value.
    """
    shares: list[dict[str, float]] = []
    space = _distributions(spec.space)
    for i, objective in enumerate(spec.objectives):
        if len({values[i] for _, values in points}) == 1:
            shares.append({})  # Optuna would give every setting the same share
            continue
        one = optuna.create_study(direction=objective.direction)
        for settings, values in points:
            one.add_trial(_row(settings, space, value=float(values[i])))
        shares.append(optuna.importance.get_param_importances(one))
    return shares


class Sampler:
    """Chooses the points of a search, and keeps what they found: one row a point asked for."""

    def __init__(self, study: Study, make: search.Make, storage: Storage) -> None:
        spec = search.search_of(study)
        self._distributions = _distributions(spec.space)
        part = f"search-{search.identity(study, make)}"
        self._study = storage.study(study, part, spec.objectives)
        self._storage = storage.storage
        self._id = self._storage.get_study_id_from_name(self._study.study_name)
        # a sampler that starts anew with the same seed would ask for its first points again
        seed = derive(spec.seed, f"sampler:{len(self._study.get_trials(deepcopy=False))}")
        self._chance = RandomSampler(derive(spec.seed, f"draw:{len(self.rows())}"))
        self._study.sampler = RandomSampler(seed)
        if spec.sampler == "tpe":
            self._study.sampler = TPESampler(seed=seed, n_startup_trials=spec.startup)
        for row in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "ordinal" not in row.user_attrs:  # cut off before it was kept
                self._study.tell(row.number, state=TrialState.FAIL)

    def rows(self) -> list[search.Proposal]:
        """Every point that was asked for."""
        return [
            search.Proposal(
                row.number, row.user_attrs["ordinal"], row.params, row.state is TrialState.RUNNING
            )
            for row in self._study.get_trials(deepcopy=False)
            if "ordinal" in row.user_attrs
        ]

    def draw(self) -> dict[str, Any]:
        """A point by chance."""
        one, nothing = self._chance.sample_independent, create_trial(value=0.0)
        return {p: one(self._study, nothing, p, d) for p, d in self._distributions.items()}

    def ask(self, point: int, settings: search.Settings | None = None) -> search.Proposal:
        """A new row, running: with `settings` of ours, else of the sampler's choice.

        Until it is kept it is none of `rows`, and who starts after a crash does not find it.
        """
        if settings is not None:
            # in one step: after a kill, whoever asks next would be given a row that waits
            given = _row(settings, self._distributions, state=TrialState.RUNNING)
            identity = self._storage.create_new_trial(self._id, given)
            number = self._storage.get_trial_number_from_id(identity)
            return search.Proposal(number, point, dict(settings), True)
        with warnings.catch_warnings():  # a search needs no heartbeats: one command runs it
            warnings.simplefilter("ignore", UserWarning)
            trial = self._study.ask(self._distributions)
        return search.Proposal(trial.number, point, trial.params, True)

    def keep(self, row: search.Proposal) -> None:
        """The point of the asked `row` is to be run."""
        identity = self._storage.get_trial_id_from_study_id_trial_number(self._id, row.number)
        self._storage.set_trial_user_attr(identity, "ordinal", row.point)

    def tell(self, number: int, values: Sequence[float] | None, pruned: bool = False) -> None:
        """The objectives of a running row; None where it failed, or was `pruned`."""
        self._study.tell(number, values, state=_state(values, pruned))

    def add(
        self,
        point: int,
        settings: search.Settings,
        values: Sequence[float] | None,
        pruned: bool = False,
    ) -> None:
        """A row for a point that ended without the sampler's knowledge; otherwise as `tell`."""
        about = {"state": _state(values, pruned), "values": values}
        row = _row(settings, self._distributions, user_attrs={"ordinal": point}, **about)
        self._study.add_trial(row)


def _state(values: Sequence[float] | None, pruned: bool) -> TrialState:
    """How Optuna calls the end of a point."""
    if values is not None:
        return TrialState.COMPLETE
    return TrialState.PRUNED if pruned else TrialState.FAIL


def _distributions(space: Mapping[str, Domain]) -> dict[str, BaseDistribution]:
    """Optuna's words for `space`."""

    def of(domain: Domain) -> BaseDistribution:
        if not isinstance(domain, Range):
            return CategoricalDistribution(domain)
        if domain.kind == "int":
            return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
        return FloatDistribution(domain.low, domain.high, log=domain.log)

    return {path: of(domain) for path, domain in space.items()}
