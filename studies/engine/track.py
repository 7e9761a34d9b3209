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
import json
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from studies.engine.outcome import Study, setting
from studies.engine.records import Result, Trial
from studies.engine.report import Report, read_metrics
from studies.engine.runs import locked

ADDRESS = "127.0.0.1", 5000
VIEW = "arms"
"""Key of the shared view."""
BATCH = 1000
"""Metrics a request may carry."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MlflowLink:
    """How to open a tracked study."""

    command: str
    """Starts the page; empty where MLFLOW_TRACKING_URI names a server that runs already."""
    url: str


class TrackingError(RuntimeError):
    """MLflow did not take what a study found. Nothing is lost: the trials' folders have it."""


class TrackedStudy:
    """A study being tracked, while its trials end one by one.

    Tracking never stops a study: where MLflow fails (a full disk, a server that is away), the
    trial is kept for `finish`, which tries again and raises if it still fails.

        with TrackedStudy(study, runs_dir) as tracked:
            tracked.end_trial(trial, result, run_dir)      # as often as there are trials
            link = tracked.finish(report)

    Args:
        study: what is tracked; the tags say which arm is its baseline.
        runs_dir: holds `mlflow.db` and `mlartifacts`, unless the environment variable
            MLFLOW_TRACKING_URI names another store.

    Entering raises TrackingError where the store cannot be opened.
    """

    def __init__(self, study: Study, runs_dir: Path) -> None:
        self.study = study
        self._runs_dir = runs_dir.resolve()
        self._pending: list[tuple[Trial, Result, Path]] = []
        self._swept: set[str] = set()
        self._arms: set[str] = set()

    def __enter__(self) -> "TrackedStudy":
        # set before mlflow is first imported: it reports its use to its makers otherwise
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or (
            f"sqlite:///{self._runs_dir / 'mlflow.db'}"
        )
        self._failures = (mlflow.MlflowException, OSError)
        self._spec_sha = hashlib.sha256(self.study.path.read_bytes()).hexdigest()
        self._runs_dir.mkdir(parents=True, exist_ok=True)
        # two processes that create the database at once leave a file that no MLflow can open
        with self._explained(), locked(self._runs_dir / ".mlflow.lock"):
            self._client = mlflow.MlflowClient(self._uri)
            self._experiment = self._open_experiment()
            self._write_view()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for trial, result, run_dir in self._pending:
            log.warning("trial %s (%s) is not in MLflow: %s", trial.key, result.status, run_dir)

    def end_trial(self, trial: Trial, result: Result, run_dir: Path) -> None:
        """Make the run of a trial that ended, done or failed; again with the same is no new run.

        `run_dir` is the trial's folder; metrics.jsonl and log.txt are read from it where they are.
        """
        try:
            self._track(trial, result, run_dir)
        except self._failures as error:
            log.warning(
                "MLflow did not take trial %s, trying again at the end: %s", trial.key, error
            )
            self._pending.append((trial, result, run_dir))

    def finish(self, report: Report) -> MlflowLink:
        """Write what was kept back, the summary run, the note and the view.

        Raises TrackingError; results and report are on the disk whatever happens here.
        """
        with self._explained():
            while self._pending:
                self._track(*self._pending[0])
                self._pending.pop(0)
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
        if self._uri.startswith(("http://", "https://")):
            return MlflowLink("", f"{self._uri.rstrip('/')}/{page}")
        command = (
            f"mlflow ui --backend-store-uri {shlex.quote(self._uri)} --host {host} --port {port}"
        )
        return MlflowLink(command, f"http://{host}:{port}/{page}")

    def retire_others(self, trials: Sequence[Trial]) -> None:
        """Mark runs of points that are not among `trials` as superseded."""
        points = {trial.key for trial in trials}
        with self._explained():
            for run in self._runs("tags.kind = 'trial' and tags.superseded = 'false'"):
                if run.data.tags["point"] not in points:
                    self._client.set_tag(run.info.run_id, "superseded", "true")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            raise TrackingError(
                f"MLflow at {self._uri} did not take study {self.study.name!r}: {error}. The "
                f"results are in {self._runs_dir}; once MLflow works, "
                f"python run_study.py {self.study.path.name} --report tracks them"
            ) from error

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
        if trial.arm not in self._arms:
            self._arms.add(trial.arm)
            self._swept |= set(trial.swept)
            self._write_view()
        others = self._runs(f"tags.kind = 'trial' and tags.point = '{trial.key}'")
        same = [run for run in others if run.data.tags["attempt"] == str(result.attempt)]
        ended = [run for run in same if run.info.status in ("FINISHED", "FAILED")]
        for run in same:
            if run not in ended:  # cut off while being written: metrics cannot be written twice
                self._client.delete_run(run.info.run_id)
        tags = self._tags(trial, result)
        if ended:
            for name, value in tags.items():  # an arm may have been renamed since
                if ended[0].data.tags.get(name) != value and name != "superseded":
                    self._client.set_tag(ended[0].info.run_id, name, value)
            run_id = ended[0].info.run_id
        else:
            run_id = self._write_run(trial, result, run_dir, tags)
        # the latest attempt is the one that counts, whichever was tracked last
        attempts = {run_id: result.attempt} | {
            run.info.run_id: int(run.data.tags["attempt"]) for run in others if run not in same
        }
        latest = max(attempts, key=attempts.__getitem__)
        for one in attempts:
            self._client.set_tag(one, "superseded", "false" if one == latest else "true")

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
        self._client.log_batch(run_id, params=[Param(k, str(v)) for k, v in params.items()])
        for i in range(0, len(metrics), BATCH):
            self._client.log_batch(run_id, metrics[i : i + BATCH])
        self._client.log_text(run_id, yaml.safe_dump(trial.config, sort_keys=False), "config.yaml")
        self._client.log_text(run_id, trial.model_dump_json(indent=2), "trial.json")
        self._client.log_text(run_id, result.model_dump_json(indent=2), "result.json")
        if result.status == "failed" and (run_dir / "log.txt").is_file():
            self._client.log_artifact(run_id, str(run_dir / "log.txt"))
        status = "FINISHED" if result.status == "done" else "FAILED"
        self._client.set_terminated(run_id, status, end)
        return run_id

    def _write_summary(self, report: Report) -> None:
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
        objective = self.study.objective
        metrics = [objective.metric, objective.select_on, "train/loss"]
        widths = {f"metrics.`{name}`": 170 for name in metrics if name}
        widths |= {f"params.`{name}`": 150 for name in [*sorted(self._swept), "seed"]}
        view = {
            "searchFilter": "tags.kind = 'trial' and tags.superseded = 'false'",
            "orderByKey": f"metrics.`{objective.metric}`",
            "orderByAsc": objective.direction == "minimize",
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": [],
            "groupBy": {
                "aggregateFunction": "average",
                "groupByKeys": [{"mode": "tag", "groupByData": "arm"}],
            },
            "selectedColumns": ["attributes.`Duration`", *widths],
            "columnOrder": ["attributes.`Run Name`", *widths],
            "columnWidths": {"attributes.`Run Name`": 260} | widths,
            "groupsExpanded": {f"tag.arm.{arm}": False for arm in sorted(self._arms)},
            "runsHiddenMode": "SHOW_ALL",  # the charts draw ten arms otherwise
            "runsExpanded": {},
            "runsPinned": [],
            "runsHidden": [],
            "runListHidden": False,
        }
        self._client.set_experiment_tag(
            self._experiment, f"mlflow.sharedViewState.{VIEW}", json.dumps(view)
        )

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
    report: Report,
    runs_dir: Path,
) -> MlflowLink:
    """Make the study's page show exactly `trials` (each with its folder) and `report`.

    Runs that are there already stay; runs of other points are marked as superseded.
    """
    with TrackedStudy(study, runs_dir) as tracked:
        for trial, result, run_dir in trials:
            tracked.end_trial(trial, result, run_dir)
        tracked.retire_others([trial for trial, _, _ in trials])
        return tracked.finish(report)


def _milliseconds(started: str) -> int:
    """UTC ISO 8601 to milliseconds; now where a failed trial has no start."""
    moment = datetime.fromisoformat(started) if started else datetime.now(UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)
