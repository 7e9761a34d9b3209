"""A study in MLflow: flat runs, one a trial, and a page that opens grouped by arm.

The only file that imports mlflow. Layout: one experiment a study and profile, `grid_size
(embedded)`; in it one run a trial (tag `kind=trial`), top level, because the page shows no metric
and no chart of nested runs; and one run `kind=summary` with the report. An experiment tag
`mlflow.sharedViewState.arms` holds the view that the link asks for: grouped by arm, averaged over
seeds. MLflow does not document that tag; without it the link opens the plain table.

Nothing here is needed to train: every number comes from the trials' folders, so a page that was
lost, or a study that ran elsewhere, is rebuilt by `track_all`.
"""

import contextlib
import hashlib
import os
import shlex
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import yaml

from studies.engine.errors import masked
from studies.engine.records import Result, Trial
from studies.engine.reporting.outcome import Study, setting
from studies.engine.runs import locked
from studies.engine.trials.metrics_file import read_metrics
from studies.engine.view import shared_view

if TYPE_CHECKING:  # matplotlib takes a second
    from studies.engine.reporting.report import Report

ADDRESS = "127.0.0.1", 5000
VIEW = "arms"
"""Key of the shared view."""
BATCH = 900
"""Metrics a request carries; MLflow takes 1000 entries, of which 100 may be params."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""Seconds and retries of a request, unless the user has set them; MLflow's own (120 and 7) let a
dead server hold a study up for a quarter of an hour."""
VARIABLE = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class MlflowLink:
    """How to open a tracked study."""

    command: str
    """Starts the page; empty where MLFLOW_TRACKING_URI names a server that runs already."""
    url: str


class TrackingError(RuntimeError):
    """MLflow did not take what a study found. Nothing is lost: the trials' folders have it."""


@dataclass(frozen=True)
class _Run:
    """What is known of a trial's run."""

    run_id: str
    attempt: int
    whole: bool
    """False where it was cut off while being written."""
    tags: Mapping[str, str]


class TrackedStudy:
    """A study being tracked, while its trials end one by one.

        with TrackedStudy(study, runs_dir) as tracked:
            tracked.end_trial(trial, result, run_dir)      # as often as there are trials
            link = tracked.finish(report)

    Each call raises TrackingError where MLflow fails (a full disk, a server that is away); made
    again, it goes on from what MLflow has, so nothing is there twice.

    Args:
        study: what is tracked; the tags say which arm is its baseline.
        runs_dir: holds `mlflow.db` and `mlartifacts`, unless the environment variable
            MLFLOW_TRACKING_URI names another store.
    """

    def __init__(self, study: Study, runs_dir: Path) -> None:
        self.study = study
        self._runs_dir = runs_dir.resolve()
        self._swept: set[str] = set()
        self._arms: set[str] = set()
        self._known: dict[str, list[_Run]] | None = None
        """Runs by point; None: to be asked of MLflow."""

    def __enter__(self) -> "TrackedStudy":
        # set before mlflow is first imported: it reports its use to its makers otherwise
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # printed for every run, with user and password
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        import mlflow

        self._uri = os.environ.get(VARIABLE) or f"sqlite:///{self._runs_dir / 'mlflow.db'}"
        self._failures = (mlflow.MlflowException, OSError, sqlite3.Error)
        self._spec_sha = hashlib.sha256(self.study.path.read_bytes()).hexdigest()
        self._runs_dir.mkdir(parents=True, exist_ok=True)
        # two processes that create the database at once leave a file that no MLflow can open
        with self._explained(), locked(self._runs_dir / ".mlflow.lock"):
            self._client = mlflow.MlflowClient(self._uri)
            self._experiment = self._open_experiment()
            self._set_write_ahead()
            self._write_view()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._known = None

    def end_trial(self, trial: Trial, result: Result, run_dir: Path) -> None:
        """Make the run of a trial that ended, done or failed; again with the same is no new run.

        `run_dir` is the trial's folder; metrics.jsonl and log.txt are read from it where they are.
        """
        with self._explained():
            if trial.arm not in self._arms:
                self._arms.add(trial.arm)
                self._swept |= set(trial.swept)
                self._write_view()
            self._track(trial, result, run_dir)

    def finish(self, report: "Report") -> MlflowLink:
        """Write the summary run, the note and the view."""
        with self._explained():
            self._write_summary(report)
            self._client.set_experiment_tag(self._experiment, "mlflow.note.content", report.note)
            self._write_view()
        return self.link

    @property
    def link(self) -> MlflowLink:
        """The page of this study, grouped by arm."""
        host, port = ADDRESS
        page = (
            f"#/experiments/{self._experiment}/runs"
            f"?workflowType=machine_learning&viewStateShareKey={VIEW}"
        )
        shown = masked(self._uri)
        if self._uri.startswith(("http://", "https://")):
            return MlflowLink("", f"{shown.replace('***@', '').rstrip('/')}/{page}")
        # what is printed must not hold a password; the shell has it
        store = shlex.quote(self._uri) if shown == self._uri else f'"${VARIABLE}"'
        command = f"mlflow ui --backend-store-uri {store} --host {host} --port {port}"
        return MlflowLink(command, f"http://{host}:{port}/{page}")

    def show_only(self, trials: Sequence[Trial]) -> None:
        """Show the arms of `trials`, and mark runs of other points as superseded."""
        points = {trial.key for trial in trials}
        self._arms = {trial.arm for trial in trials}
        self._swept = {path for trial in trials for path in trial.swept}
        with self._explained():
            for point, found in self._index().items():
                for run in found if point not in points else ():
                    self._tag(run, {"superseded": "true"})

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            self._known = None  # what was written last may or may not be there
            raise TrackingError(
                f"MLflow at {masked(self._uri)} did not take study {self.study.name!r}: "
                f"{masked(str(error))}. The results are in {self._runs_dir}; once MLflow works, "
                f"python run_study.py {self.study.path.name} --report tracks them"
            ) from error

    def _set_write_ahead(self) -> None:
        """One wait for the disk a commit instead of four, and a page that reads meanwhile.

        The file keeps it: https://www.sqlite.org/wal.html
        """
        if self._uri.startswith("sqlite:///"):
            with contextlib.closing(sqlite3.connect(self._uri.removeprefix("sqlite:///"))) as file:
                file.execute("PRAGMA journal_mode = WAL")

    def _open_experiment(self) -> str:
        name = f"{self.study.name} ({self.study.profile})"
        known = self._client.get_experiment_by_name(name)
        if known is None:
            remote = self._uri.startswith(("http://", "https://"))
            root = None if remote else (self._runs_dir / "mlartifacts").as_uri()
            return self._client.create_experiment(name, artifact_location=root)
        if known.lifecycle_stage == "deleted":
            self._client.restore_experiment(known.experiment_id)
        return known.experiment_id

    def _track(self, trial: Trial, result: Result, run_dir: Path) -> None:
        known = self._index().setdefault(trial.key, [])
        for run in [run for run in known if run.attempt == result.attempt and not run.whole]:
            self._client.delete_run(run.run_id)  # metrics cannot be written twice
            known.remove(run)
        tags = self._tags(trial, result)
        if not any(run.attempt == result.attempt for run in known):
            run_id = self._write_run(trial, result, run_dir, tags)
            known.append(_Run(run_id, result.attempt, True, tags))
        # the latest attempt is the one that counts, whichever was tracked last
        latest = max(known, key=lambda run: run.attempt).run_id
        for i, run in enumerate(known):
            superseded = str(run.run_id != latest).lower()
            # an arm may have been renamed since
            wanted = (tags if run.attempt == result.attempt else {}) | {"superseded": superseded}
            known[i] = self._tag(run, wanted)

    def _tag(self, run: _Run, tags: Mapping[str, str]) -> _Run:
        """Write those of `tags` that `run` has not; the run with them."""
        for name, value in tags.items():
            if run.tags.get(name) != value:
                self._client.set_tag(run.run_id, name, value)
        return replace(run, tags={**run.tags, **tags})

    def _index(self) -> dict[str, list[_Run]]:
        """The runs of every point."""
        if self._known is None:
            found: dict[str, list[_Run]] = {}
            for run in self._runs("tags.kind = 'trial'"):
                tags, whole = run.data.tags, run.info.status in ("FINISHED", "FAILED")
                known = _Run(run.info.run_id, int(tags["attempt"]), whole, tags)
                found.setdefault(tags["point"], []).append(known)
            self._known = found
        return self._known

    def _tags(self, trial: Trial, result: Result) -> dict[str, str]:
        tags = {
            "study": trial.study,
            "profile": trial.profile,
            "kind": "trial",
            "arm": trial.arm,
            "seed": str(trial.seed),
            "point": trial.key,
            "attempt": str(result.attempt),
            "baseline": str(trial.arm == self.study.baseline).lower(),
            "superseded": "false",
            "git_sha": str(result.environment.get("commit", "unknown")),
            "spec_sha": self._spec_sha,
            "mlflow.source.name": self.study.path.name,
        }
        if "hash" in result.data:
            tags["data_sha"] = str(result.data["hash"])
        if result.failure is not None:
            tags["failure"] = result.failure.kind
            tags["mlflow.note.content"] = result.failure.message
        return tags

    def _write_run(self, trial: Trial, result: Result, run_dir: Path, tags: dict[str, str]) -> str:
        from mlflow.entities import Metric, Param

        start = _milliseconds(result.started)
        end = start + int(result.seconds * 1000)
        run_id = self._client.create_run(
            self._experiment, start, tags, run_name=f"{trial.arm} s{trial.seed}"
        ).info.run_id
        params = {"seed": trial.seed, "method": setting(trial, "adapter.method")} | trial.swept
        curve = run_dir / "metrics.jsonl"
        entries = read_metrics(curve) if curve.is_file() else []
        metrics = [
            Metric(name, value, start + int(entry["seconds"] * 1000), int(entry["step"]))
            for entry in entries
            for name, value in entry.items()
            if name not in ("seconds", "step") and isinstance(value, int | float)
        ]
        last = max((metric.step for metric in metrics), default=0)
        logged = {(metric.key, metric.step, metric.value) for metric in metrics}
        final = dict(result.metrics)
        if result.cost is not None:
            cost = result.cost.model_dump(exclude_none=True)
            final |= {f"cost/{name}": float(value) for name, value in cost.items()}
        curved = {metric.key for metric in metrics}
        metrics += [  # the page draws bars, not a curve, for what is known at step 0 only
            Metric(name, value, end, last if name in curved else 0)
            for name, value in final.items()
            if (name, last, value) not in logged
        ]
        written = [Param(name, str(value)) for name, value in params.items()]
        for i in range(0, max(len(metrics), 1), BATCH):
            self._client.log_batch(run_id, metrics[i : i + BATCH], written if i == 0 else [])
        self._client.log_text(run_id, yaml.safe_dump(trial.config, sort_keys=False), "config.yaml")
        self._client.log_text(run_id, trial.model_dump_json(indent=2), "trial.json")
        self._client.log_text(run_id, result.model_dump_json(indent=2), "result.json")
        if result.status == "failed" and (run_dir / "log.txt").is_file():
            self._client.log_artifact(run_id, str(run_dir / "log.txt"))
        status = "FINISHED" if result.status == "done" else "FAILED"
        self._client.set_terminated(run_id, status, end)
        return run_id

    def _write_summary(self, report: "Report") -> None:
        known = self._runs("tags.kind = 'summary'")
        if known:
            run_id = known[0].info.run_id
        else:
            tags = {"study": self.study.name, "profile": self.study.profile, "kind": "summary"}
            run_id = self._client.create_run(
                self._experiment, tags=tags, run_name="summary"
            ).info.run_id
        self._client.set_tag(run_id, "spec_sha", self._spec_sha)
        self._client.set_tag(run_id, "mlflow.note.content", report.note[:8000])
        for path in (report.markdown, report.json, *report.figures, self.study.path):
            self._client.log_artifact(run_id, str(path))
        self._client.set_terminated(run_id)

    def _write_view(self) -> None:
        view = shared_view(self.study.objective, self._swept, self._arms)
        self._client.set_experiment_tag(self._experiment, f"mlflow.sharedViewState.{VIEW}", view)

    def _runs(self, query: str) -> list[Any]:
        found, token = [], None
        while True:
            page = self._client.search_runs([self._experiment], query, page_token=token)
            found += page
            token = page.token
            if not token:
                return found


def track_all(
    study: Study,
    trials: Sequence[tuple[Trial, Result, Path]],
    report: "Report",
    runs_dir: Path,
) -> MlflowLink:
    """Make the study's page show exactly `trials` (each with its folder) and `report`.

    Runs that are there already stay; runs of other points are marked as superseded. Raises
    TrackingError at the first thing that MLflow does not take.
    """
    with TrackedStudy(study, runs_dir) as tracked:
        tracked.show_only([trial for trial, _, _ in trials])
        for trial, result, run_dir in trials:
            tracked.end_trial(trial, result, run_dir)
        return tracked.finish(report)


def _milliseconds(started: str) -> int:
    """UTC ISO 8601 to milliseconds; now where a failed trial has no start."""
    moment = datetime.fromisoformat(started) if started else datetime.now(UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)
