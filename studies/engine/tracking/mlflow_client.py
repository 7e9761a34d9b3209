"""MLflow, imported here alone: its client, and the database `mlflow.db` of a runs folder."""

import contextlib
import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from studies import databases
from studies.engine.errors import StudyError, masked
from studies.engine.tracking.contents import Point

if TYPE_CHECKING:
    from mlflow import MlflowClient as MlflowClient  # for others: MLflow is imported here alone
    from mlflow.entities import Run

    from studies.engine.definition.study import Study

VARIABLE = "MLFLOW_TRACKING_URI"
"""The environment variable that names another store."""
ARTIFACTS = "mlartifacts"
"""Folder of the artifacts, beside the database."""
SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
"""What addresses of MLflow's own stores begin with, as mysql or mysql+pymysql."""
WORDS = ("databricks", "databricks-uc", "uc")
"""Stores that MLflow knows by a word alone."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""Seconds and retries of a request, unless the user has set them; MLflow's own (120 and 7) let a
dead server hold a study up for a quarter of an hour."""
BATCH, PARAMS = 900, 100
"""Metrics and params that a request carries; MLflow takes 1000 entries."""


def _configure() -> None:
    """Set what MLflow reads when it is imported; what the user has set stays."""
    # it reports its use to its makers otherwise
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # printed for every run, with user and password
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)


def experiment(study: "Study") -> str:
    """The name of the study's experiment."""
    return f"{study.name} ({study.profile})"


def client_of(uri: str) -> "MlflowClient":
    """What speaks with MLflow at `uri`."""
    _configure()
    from mlflow import MlflowClient

    return MlflowClient(uri)


def failures() -> tuple[type[Exception], ...]:
    """What MLflow's calls raise where they fail."""
    _configure()
    from mlflow import MlflowException

    return MlflowException, OSError, sqlite3.Error


def log(
    client: "MlflowClient", run_id: str, points: Sequence[Point], params: Mapping[str, str]
) -> None:
    """Write values of metrics, and settings, into a run."""
    from mlflow.entities import Metric, Param

    metrics = [Metric(*point) for point in points]
    given = [Param(name, value) for name, value in params.items()]
    for i in range(max(1, -(-len(metrics) // BATCH), -(-len(given) // PARAMS))):
        client.log_batch(
            run_id, metrics[i * BATCH : (i + 1) * BATCH], given[i * PARAMS : (i + 1) * PARAMS]
        )


def runs(client: "MlflowClient", experiment: str, query: str) -> "list[Run]":
    """Every run of `experiment` that meets `query`."""
    every: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment], query, page_token=token)
        every += page
        token = page.token
        if not token:
            return every


def check_store(runs_dir: Path) -> None:
    """Raise `StudyError` where MLflow could not keep a study that lies in `runs_dir`."""
    named = os.environ.get(VARIABLE)
    if named:
        _check_named(named)
        return
    path = str(runs_dir.resolve())
    odd = sorted({c for c in path if c in "?%" or not c.isprintable()})
    if odd:
        raise StudyError(
            f"--runs {ascii(path)[1:-1]}: MLflow's database cannot be opened below a folder with "
            f"{', '.join(map(ascii, odd))} in its path. Choose another folder, or set {VARIABLE} "
            "to a server"
        )


def _check_named(uri: str) -> None:
    """Refuse a folder, where MLflow 3 takes no new runs, and what MLflow has no store for."""
    scheme = urlsplit(uri).scheme
    more = entry_points(group="mlflow.tracking_store")
    known = [*SCHEMES, *WORDS, *sorted(each.name for each in more)]
    if scheme and scheme != "file" and scheme.partition("+")[0] not in known:
        raise StudyError(
            f"{VARIABLE}={masked(uri)}: MLflow has no store '{scheme}:'. Give an address that "
            f"begins with one of {', '.join(f'{each}://' for each in known)}, e.g. "
            "http://HOST:PORT, or unset it (the pages are then in mlflow.db of the --runs folder)"
        )
    if scheme in ("", "file") and uri not in WORDS:
        raise StudyError(
            f"{VARIABLE}={masked(uri)} names a folder, and MLflow keeps no new runs in folders. "
            "Unset it (the pages are then in mlflow.db of the --runs folder), or name a database "
            "(sqlite:////absolute/path/mlflow.db) or a server (http://HOST:PORT); `mlflow "
            "migrate-filestore` brings what is in the folder into a database"
        )


def uri_of(file: Path) -> str:
    """MLflow's address of the database `file`."""
    return f"sqlite:///{file}"


def prepare(file: Path, say: Callable[[str], None]) -> None:
    """Make `file` where it is not there; one that is broken is set aside, which `say` is told.

    Where its folder was moved or copied, its artifacts are those of the folder that it is in now.
    Nobody else may prepare it meanwhile. Raises OSError, sqlite3.Error or MlflowException where
    that fails.
    """
    # "Creating initial MLflow database tables" is no news to someone who waits for results
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    notice = databases.set_aside_broken(file, "experiments")
    if notice:
        say(
            f"{notice}. The page is made again from the results of this study; other studies in "
            f"{file.parent} need --report for that"
        )
    if not file.exists():
        _forget(uri_of(file))
        databases.make(file, _create)
    _bring_home(file)


def _bring_home(file: Path) -> None:
    """Have the artifacts beside `file`: MLflow notes absolute places, and makes them anew."""
    here = (file.parent / ARTIFACTS).as_uri()
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as connection, connection:
        away = connection.execute(
            "SELECT experiment_id, artifact_location FROM experiments "
            "WHERE artifact_location LIKE ? AND artifact_location != ?",
            (f"file:%/{ARTIFACTS}", here),
        ).fetchall()
        for experiment, there in away:
            connection.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (here, len(there) + 1, experiment, len(there), there),
            )
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                (here, experiment),
            )
    if away:  # this process may have written to the old places
        from mlflow.tracking._tracking_service import utils

        getattr(utils, "_artifact_repos_cache", {}).clear()


def state(file: Path, experiment: str) -> str | None:
    """A hash of the views and runs of `experiment` in `file`, read without MLflow.

    None where it has no such experiment, or cannot be read.
    """
    queries = (
        "SELECT * FROM experiments WHERE experiment_id = ?",
        "SELECT key, value FROM experiment_tags WHERE experiment_id = ? ORDER BY key",
        "SELECT * FROM tags JOIN runs USING (run_uuid) WHERE experiment_id = ? "
        "ORDER BY run_uuid, key",
    )
    own = "SELECT artifact_uri FROM runs WHERE experiment_id = ? ORDER BY run_uuid"
    uri = f"{file.resolve().as_uri()}?mode=rw"  # makes no file
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as connection:
            ask = connection.execute
            named = "SELECT experiment_id FROM experiments WHERE name = ?"
            known = ask(named, (experiment,)).fetchone()
            if known is None:
                return None
            rows = [ask(query, known).fetchall() for query in queries]
            places = [Path(url2pathname(urlsplit(place).path)) for (place,) in ask(own, known)]
            # an arm's run has no artifacts
            rows.append([place.stat().st_mtime_ns if place.exists() else 0 for place in places])
    except (OSError, sqlite3.Error):
        return None
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _create(file: Path) -> None:
    client_of(uri_of(file)).search_experiments(max_results=1)


def _forget(uri: str) -> None:
    """Close connections that this process still has to an earlier file of that name."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engine = getattr(SqlAlchemyStore, "_engine_map", {}).get(uri)
    if engine is not None:
        engine.dispose()
