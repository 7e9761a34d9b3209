"""A study in MLflow: flat runs, one a trial and one an arm, and a page that opens on the arms.

One experiment a study and profile; docs/studies.md says what runs and views there are. Runs of
trials are top level, because the page shows no metric and no chart of nested runs. Experiment tags
hold the views, see `view`; without them the link opens the plain table.

Nothing here is needed to train: every number comes from the trials' folders, so a page that was
lost, or a study that ran elsewhere, is rebuilt by `track_all`.
"""

import contextlib
import hashlib
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from studies.engine.definition.study import Study
from studies.engine.errors import masked
from studies.engine.program import program
from studies.engine.records import ADAPTER, Result, Trial
from studies.engine.tracking import contents, mlflow_client, summaries
from studies.engine.tracking.mlflow_client import VARIABLE
from studies.engine.tracking.view import ARMS, EARLIER_LIMIT, LIMIT, Row, merged, row_of, views
from studies.engine.trials.metrics_file import read_metrics
from studies.files import locked

if TYPE_CHECKING:  # matplotlib takes a second
    from studies.engine.reporting.report import Report

ADDRESS = "127.0.0.1", 5000
TRIALS = "tags.kind = 'trial'"


@dataclass(frozen=True)
class MlflowLink:
    """How to open a tracked study."""

    command: str
    """Starts the page; empty where MLFLOW_TRACKING_URI names a server that runs already."""
    url: str

    @property
    def text(self) -> str:
        """Both, for the terminal."""
        command = f"MLflow: {self.command}\n" if self.command else ""
        return f"{command}        {self.url}"


class TrackingError(RuntimeError):
    """MLflow did not take what a study found. Nothing is lost: the trials' folders have it."""


class TrialRefusedError(TrackingError):
    """MLflow works, and takes no such trial."""


@dataclass(frozen=True)
class _Run:
    """What is known of a trial's run."""

    run_id: str
    point: str
    attempt: int
    status: str
    tags: dict[str, str]
    params: frozenset[str]
    """Names of its settings."""

    @property
    def whole(self) -> bool:
        """False where it was cut off while being written."""
        return self.status in contents.STATUSES.values()


class TrackedStudy:
    """A study being tracked: `open`, `end_trial` as often as there are trials, then `finish`.

    Each call raises TrackingError where MLflow fails (a full disk, a server that is away); made
    again, it goes on from what MLflow has. Nothing is there twice, also where two processes track
    one study.

    Args:
        study: what is tracked; the tags say which arm is its baseline.
        runs_dir: holds `mlflow.db` and `mlartifacts`, unless the environment variable
            MLFLOW_TRACKING_URI names another store.
        say: is told where a broken `mlflow.db` was set aside.
    """

    def __init__(self, study: Study, runs_dir: Path, say: Callable[[str], None]) -> None:
        self.study = study
        self._runs_dir = runs_dir.resolve()
        self._say = say
        self._lock = self._runs_dir / ".mlflow.lock"
        self._about = {"study": study.name, "profile": study.profile}
        self._rows: dict[tuple[str, str], Row] = {}
        """What the views are to know of the trials, by label and task."""
        self._limit = LIMIT
        """Of the experiment's tags, in characters."""
        self._viewed = 0
        """How many of these they know."""
        self._known: dict[str, list[_Run]] | None = None
        """Runs by point; None: to be asked of MLflow."""

    def open(self) -> "TrackedStudy":
        """Find or make the store and the study's experiment; this study, once that worked."""
        own = self._runs_dir / "mlflow.db"
        named = os.environ.get(VARIABLE)
        self._uri = named or mlflow_client.uri_of(own)
        self._failures = mlflow_client.failures()
        self._spec_sha = hashlib.sha256(self.study.path.read_bytes()).hexdigest()
        with self._explained(), locked(self._lock):
            if not named:
                mlflow_client.prepare(own, self._say)
            self._client = mlflow_client.client_of(self._uri)
            self._experiment = self._open_experiment()
            known = mlflow_client.runs(self._client, self._experiment, summaries.RUNS)
            self._summarized = bool(known)
        return self

    def end_trial(self, trial: Trial, result: Result, run_dir: Path) -> None:
        """Make the run of a trial that ended, done or failed; again with the same is no new run.

        `run_dir` is the trial's folder; metrics.jsonl and log.txt are read from it where they are.
        Raises TrialRefusedError where it is this trial that MLflow does not take.
        """
        with self._explained():
            if (trial.label, trial.task) not in self._rows:
                self._rows[trial.label, trial.task] = row_of(trial, result)
            if len(self._rows) >= 2 * self._viewed:  # each point of a search is a label of its own
                self._write_views()
        with self._explained(trial, run_dir):
            self._track(trial, result, run_dir)
            self._keep_adapter(trial, result, run_dir)

    def finish(self, report: "Report | None") -> MlflowLink:
        """Write the runs of the arms and of the report, the note and the views."""
        with self._explained():
            if report is not None:
                with locked(self._lock):
                    self._write_summary(report)
                    configs = {label: row.settings for label, row in merged(self._rows).items()}
                    wanted = summaries.all_of(report, configs, self._about)
                    summaries.write(self._client, self._experiment, wanted)
                    self._summarized = True
                    self._describe(lambda limit: {"mlflow.note.content": report.note[:limit]})
            self._write_views()
        return self.link

    @property
    def link(self) -> MlflowLink:
        """The page of this study, grouped by arm."""
        host, port = ADDRESS
        page = (
            f"#/experiments/{self._experiment}/runs"
            f"?workflowType=machine_learning&viewStateShareKey={ARMS}"
        )
        address = masked(self._uri)
        if self._uri.startswith(("http://", "https://")):
            return MlflowLink("", f"{address.replace('***@', '').rstrip('/')}/{page}")
        # what is printed must not hold a password; the shell has it
        store = shlex.quote(self._uri) if address == self._uri else f'"${VARIABLE}"'
        command = f"mlflow ui --backend-store-uri {store} --host {host} --port {port}"
        return MlflowLink(command, f"http://{host}:{port}/{page}")

    def show_only(self, ended: Sequence[tuple[Trial, Result, Path]]) -> None:
        """Show the arms of the trials in `ended`, and mark runs of other points as superseded."""
        points = {trial.key for trial, _, _ in ended}
        self._rows = {(trial.label, trial.task): row_of(trial, r) for trial, r, _ in ended}
        with self._explained():
            for point, known in self._index().items():
                for run in known if point not in points else ():
                    self._tag(run, {"superseded": "true"})

    @contextlib.contextmanager
    def _explained(self, trial: Trial | None = None, run_dir: Path | None = None) -> Iterator[None]:
        """Turn what MLflow raises into TrackingError; what only `trial` causes, into its own."""
        try:
            yield
        except Exception as error:
            self._known = None  # what was written last may or may not be there
            what = f"study {self.study.name!r}" if trial is None else contents.run_name(trial)
            cause = masked(" ".join(str(error).split()))[:300]
            text = f"MLflow at {masked(self._uri)} did not take {what}: {cause}"
            if trial is not None and self._is_refusal(error):
                raise TrialRefusedError(f"{text}. Its result is kept in {run_dir}") from error
            if not isinstance(error, self._failures):
                raise
            raise TrackingError(
                f"{text}. The results are in {self._runs_dir}; once MLflow works, "
                f"{program()} {self.study.path.name} --report tracks them"
            ) from error

    def _is_refusal(self, error: Exception) -> bool:
        """Whether it is what was given that is at fault, not the store."""
        code = getattr(error, "error_code", None)
        return code == "INVALID_PARAMETER_VALUE" or not isinstance(error, self._failures)

    def _open_experiment(self) -> str:
        name = mlflow_client.experiment(self.study)
        known = self._client.get_experiment_by_name(name)
        if known is None:
            remote = self._uri.startswith(("http://", "https://"))
            root = None if remote else (self._runs_dir / mlflow_client.ARTIFACTS).as_uri()
            return self._client.create_experiment(name, artifact_location=root)
        if known.lifecycle_stage == "deleted":
            self._client.restore_experiment(known.experiment_id)
        return known.experiment_id

    def _track(self, trial: Trial, result: Result, run_dir: Path) -> None:
        known = self._index().setdefault(trial.key, [])
        more = {"spec_sha": self._spec_sha, "mlflow.source.name": self.study.path.name}
        tags = contents.tags(trial, result, self.study.baseline, more)
        if not any(run.attempt == result.attempt and run.whole for run in known):
            with locked(self._lock):  # another process may have written it, and none writes it now
                known[:] = self._runs(f"{TRIALS} and tags.point = '{trial.key}'")
                again = [run for run in known if run.attempt == result.attempt]
                for run in again:
                    if not run.whole:
                        self._client.delete_run(run.run_id)  # metrics cannot be written twice
                        known.remove(run)
                if not any(run.whole for run in again):
                    known.append(self._write_run(trial, result, run_dir, tags))
        # the latest attempt is the one that counts, whichever was tracked last
        latest = max(known, key=lambda run: run.attempt).run_id
        for run in known:
            superseded = {"superseded": str(run.run_id != latest).lower()}
            if run.attempt == result.attempt:
                self._tag(run, tags | superseded)  # an arm may have been renamed since
                self._complete(run, trial, result)
            else:
                self._tag(run, superseded)

    def _complete(self, run: _Run, trial: Trial, result: Result) -> None:
        """Add what runs of earlier versions lack: settings, and that pruned is not failed."""
        params = contents.params(trial)
        if missing := {name: params[name] for name in params.keys() - run.params}:
            mlflow_client.log(self._client, run.run_id, (), missing)
        if run.status != contents.status(result):
            self._client.update_run(run.run_id, contents.status(result))

    def _tag(self, run: _Run, tags: Mapping[str, str]) -> None:
        """Write those of `tags` that `run` has not."""
        for name, value in tags.items():
            if run.tags.get(name) != value:
                self._client.set_tag(run.run_id, name, value)
                run.tags[name] = value

    def _index(self) -> dict[str, list[_Run]]:
        """The runs of every point."""
        if self._known is None:
            index: dict[str, list[_Run]] = {}
            for run in self._runs(TRIALS):
                index.setdefault(run.point, []).append(run)
            self._known = index
        return self._known

    def _runs(self, query: str) -> list[_Run]:
        """The trials' runs that meet `query`."""
        return [
            _Run(
                run.info.run_id,
                run.data.tags["point"],
                int(run.data.tags["attempt"]),
                run.info.status,
                run.data.tags,
                frozenset(run.data.params),
            )
            for run in mlflow_client.runs(self._client, self._experiment, query)
        ]

    def _write_run(self, trial: Trial, result: Result, run_dir: Path, tags: dict[str, str]) -> _Run:
        start, params = contents.start_time(result), contents.params(trial)
        curve = run_dir / "metrics.jsonl"
        points = contents.points(result, read_metrics(curve) if curve.is_file() else [], start)
        run_id = self._client.create_run(
            self._experiment, start, tags, run_name=contents.run_name(trial)
        ).info.run_id
        mlflow_client.log(self._client, run_id, points, params)
        self._client.log_text(run_id, yaml.safe_dump(trial.config, sort_keys=False), "config.yaml")
        self._client.log_text(run_id, trial.model_dump_json(indent=2), "trial.json")
        self._client.log_text(run_id, result.model_dump_json(indent=2), "result.json")
        if result.status == "failed" and (run_dir / "log.txt").is_file():
            self._client.log_artifact(run_id, str(run_dir / "log.txt"))
        status = contents.status(result)
        self._client.set_terminated(run_id, status, contents.later(start, result.seconds))
        return _Run(run_id, trial.key, result.attempt, status, dict(tags), frozenset(params))

    def _keep_adapter(self, trial: Trial, result: Result, run_dir: Path) -> None:
        """Make what the trial has trained an artifact, where that is asked for and it is none."""
        folder, known = run_dir / ADAPTER, self._index()[trial.key]
        if "mlflow" not in trial.keep or result.status != "done" or not folder.is_dir():
            return
        for run in known:
            if run.attempt == result.attempt and ADAPTER not in run.tags:
                self._client.log_artifacts(run.run_id, str(folder), ADAPTER)
                self._tag(run, {ADAPTER: "kept"})

    def _write_summary(self, report: "Report") -> None:
        known = mlflow_client.runs(self._client, self._experiment, "tags.kind = 'summary'")
        about = self._about | {"kind": "summary"}
        run = (
            known[0]
            if known
            else self._client.create_run(self._experiment, tags=about, run_name="summary")
        )
        run_id = run.info.run_id
        tags = {"spec_sha": self._spec_sha, "mlflow.note.content": report.note[:8000]}
        if report.outcome.looks:
            verdicts = report.outcome.verdicts
            tags["open_claims"] = f"{sum(each.open for each in verdicts)} of {len(verdicts)}"
            tags["look"] = f"{max((each.look or 0 for each in verdicts), default=0)} seeds"
        for name, value in tags.items():
            self._client.set_tag(run_id, name, value)
        for path in (report.markdown, report.json, *report.figures, self.study.path):
            self._client.log_artifact(run_id, str(path))
        self._client.set_terminated(run_id)

    def _write_views(self) -> None:
        def tags(limit: int) -> dict[str, str]:
            found = views(
                self.study.objective,
                merged(self._rows),
                summarized=self._summarized,
                whole=self.study.objective_of(),
                tasks=self.study.compared(),
                limit=limit,
            )
            return {f"mlflow.sharedViewState.{key}": tag for key, tag in found.items()}

        with locked(self._lock):  # MLflow inserts a new tag without looking: two at once fail
            self._describe(tags)
        self._viewed = len(self._rows)

    def _describe(self, tags: Callable[[int], Mapping[str, str]]) -> None:
        """Write tags of the experiment, made for the most characters that this MLflow takes."""
        try:
            for name, tag in tags(self._limit).items():
                self._client.set_experiment_tag(self._experiment, name, tag)
        except self._failures as error:
            if self._limit == EARLIER_LIMIT or not self._is_refusal(error):
                raise
            self._limit = EARLIER_LIMIT
            self._describe(tags)


def track_all(
    study: Study,
    trials: Sequence[tuple[Trial, Result, Path]],
    report: "Report | None",
    runs_dir: Path,
    say: Callable[[str], None],
) -> MlflowLink:
    """Make the study's page show exactly `trials` (each with its folder), and `report` if any.

    Runs that are there already stay; runs of other points are marked as superseded. A trial that
    MLflow does not take is said, and the others are shown. Raises TrackingError where MLflow takes
    two of them in a row, or anything else, not.
    """
    tracked = TrackedStudy(study, runs_dir, say).open()
    tracked.show_only(trials)
    alone: TrackingError | None = None
    """Of the last trial, not said yet: the next tells whose fault it is."""
    for trial, result, run_dir in trials:
        try:
            tracked.end_trial(trial, result, run_dir)
        except TrialRefusedError as error:
            say(str(error))
        except TrackingError as error:
            if alone is not None:
                raise
            alone = error
        else:
            if alone is not None:
                say(str(alone))
            alone = None
    link = tracked.finish(report)
    if alone is not None:
        say(str(alone))
    return link
