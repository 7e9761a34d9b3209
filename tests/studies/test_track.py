import json
import re
import resource
import shutil

import pytest

from basis_zoo.drawing.styles import INK
from studies.engine.records import Failure
from studies.engine.tracking import contents
from studies.engine.tracking.background import deliver
from studies.engine.tracking.pages import TrackedStudy, TrackingError, track_all

TRIALS = "tags.kind = 'trial'"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_figures")]


@pytest.fixture(autouse=True)
def own_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def tracked(grid_study, mlflow_database):
    """The grid study with a database that is there already."""
    grid_study.runs_dir.mkdir(exist_ok=True)
    shutil.copy(mlflow_database, grid_study.runs_dir / "mlflow.db")
    return grid_study


def report_of(study):
    return study.report()


def track(study):
    return track_all(study.study, study.rows, report_of(study), study.runs_dir, pytest.fail)


def store(study):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{study.runs_dir / 'mlflow.db'}")
    return client, client.get_experiment_by_name("grid_size (embedded)")


def runs(study, query=TRIALS):
    client, experiment = store(study)
    return client.search_runs([experiment.experiment_id], query)


def test_a_fresh_folder_gets_a_database_and_flat_runs(grid_study):
    link = track(grid_study)
    found = runs(grid_study)
    assert len(found) == len(grid_study.rows)
    assert not any("mlflow.parentRunId" in run.data.tags for run in found)
    assert (grid_study.runs_dir / "mlartifacts").is_dir()
    _, experiment = store(grid_study)
    assert link.command == (
        f"mlflow ui --backend-store-uri sqlite:///{grid_study.runs_dir}/mlflow.db "
        "--host 127.0.0.1 --port 5000"
    )
    assert link.url == (
        f"http://127.0.0.1:5000/#/experiments/{experiment.experiment_id}/runs"
        "?workflowType=machine_learning&viewStateShareKey=arms"
    )


def views(study):
    _, experiment = store(study)
    found = {name.rpartition(".")[2]: json.loads(value) for name, value in experiment.tags.items()
             if name.startswith("mlflow.sharedViewState.")}  # fmt: skip
    return {key: tag | json.loads(tag["state"]) for key, tag in found.items()}


def test_the_experiment_carries_views_and_note(tracked):
    track(tracked)
    view = views(tracked)["trials"]
    assert view["groupBy"] == {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "tag", "groupByData": "arm"}],
    }
    assert view["orderByKey"] == "metrics.`test/accuracy`"
    assert view["groupsExpanded"]["tag.arm.G=512"] is False
    assert "params.`adapter.num_basis`" in view["selectedColumns"]
    _, experiment = store(tracked)
    assert experiment.tags["mlflow.note.content"] == report_of(tracked).note
    assert len(runs(tracked, view["searchFilter"])) == len(tracked.rows)


def test_the_page_opens_on_one_run_an_arm_with_its_answer(tracked):
    track(tracked)
    view, report = views(tracked)["arms"], report_of(tracked)
    found = {run.info.run_name: run for run in runs(tracked, view["searchFilter"])}
    assert list(found) and found.keys() == {arm.name for arm in report.outcome.arms}
    run, arm = found["G=8"], report.outcome.arms[1]
    compared, metrics = arm.comparison, run.data.metrics
    assert metrics["test/accuracy"] == round(arm.summary.mean, 4)
    assert metrics["difference/mean"] == pytest.approx(compared.difference, rel=0.005)
    assert metrics["p"] == pytest.approx(compared.p_holm, rel=0.005) and metrics["n"] == 3
    assert run.data.tags["interval"].startswith(f"[{arm.summary.low:.4f}, ")
    assert run.data.tags["finding"] == compared.words("maximize")
    assert (run.data.params["adapter.num_basis"], metrics["cost/phi_parameters"]) == ("8", 2400)
    assert (found["lora"].data.tags["finding"], "p" in found["lora"].data.metrics) == (
        "baseline", False)  # fmt: skip
    colours = [run.data.tags["mlflow.runColor"] for run in found.values()]
    assert len(set(colours)) == len(found) and found["lora"].data.tags["mlflow.runColor"] == INK
    client, _ = store(tracked)
    curve = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in curve] == [10, 20, 30, 40]
    columns = {name.strip("`") for c in view["selectedColumns"] for name in [c.partition(".")[2]]}
    known = {*metrics, *run.data.tags, *found["paper-start"].data.params}
    assert columns <= known


def test_runs_of_arms_follow_the_report(tracked):
    track(tracked)
    query = views(tracked)["arms"]["searchFilter"]
    before = {run.info.run_name: run.info.run_id for run in runs(tracked, query)}
    tracked.rows = [row for row in tracked.rows if (row[0].arm, row[0].seed) != ("G=8", 2)]
    tracked.rows = [row for row in tracked.rows if row[0].arm != "paper-start"]
    track(tracked)
    after = {run.info.run_name: run.info.run_id for run in runs(tracked, query)}
    assert after.keys() == before.keys() - {"paper-start"}
    assert after["lora"] == before["lora"] and after["G=8"] != before["G=8"]


def test_a_run_holds_what_the_trial_found(tracked):
    track(tracked)
    trial, result, _ = tracked.rows[0]
    (run,) = runs(tracked, f"{TRIALS} and tags.arm = 'G=8' and tags.seed = '0'")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "G=8 s0"
    assert run.info.end_time - run.info.start_time == 20_000
    settings = {"adapter.num_basis": "8", "adapter.method": "basis", "adapter.r": "8", "seed": "0"}
    assert settings | {"backbone.name": "tiny", "arm": "G=8", "split_seed": "0"} == run.data.params
    assert run.data.metrics["test/accuracy"] == result.metrics["test/accuracy"]
    assert run.data.metrics["cost/phi_parameters"] == 2400
    expected = {"study": "grid_size", "profile": "embedded", "attempt": "1", "baseline": "false",
                "point": trial.key, "git_sha": "abc", "data_sha": "d1"}  # fmt: skip
    assert expected.items() <= run.data.tags.items()
    client, _ = store(tracked)
    curve = client.get_metric_history(run.info.run_id, "valid/accuracy")
    assert [point.step for point in curve] == [20, 40]  # the final value is the curve's last
    assert [p.step for p in client.get_metric_history(run.info.run_id, "test/accuracy")] == [0]
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert artifacts == {"config.yaml", "trial.json", "result.json"}


def test_a_failed_trial_is_a_failed_run_with_its_log(tracked):
    track(tracked)
    (run,) = runs(tracked, f"{TRIALS} and tags.failure = 'out_of_memory'")
    assert run.info.status == "FAILED"
    assert "smaller batch" in run.data.tags["mlflow.note.content"]
    client, _ = store(tracked)
    assert "log.txt" in {file.path for file in client.list_artifacts(run.info.run_id)}


def test_every_setting_is_a_param_to_filter_by_written_to_be_read(tracked):
    trial, result, folder = tracked.rows[0]
    train = {"learning_rate": 0.1 + 0.2, "max_steps": None, "deterministic": False}
    adapter = {"method": "basis", "target_modules": ["query", "value"], "options": {"degree": 3}}
    config = trial.config | {"train": train, "adapter": adapter}
    tracked.rows = [(trial.model_copy(update={"config": config}), result, folder)]
    track(tracked)
    (run,) = runs(tracked, f"{TRIALS} and params.`train.learning_rate` = '0.3'")
    shown = {"train.max_steps": "null", "train.deterministic": "false", "adapter.method": "basis",
             "adapter.target_modules": "query+value", "adapter.options.degree": "3"}  # fmt: skip
    assert shown.items() <= run.data.params.items()


def test_a_run_of_an_earlier_version_gets_what_it_lacks(tracked, monkeypatch):
    trial, result, folder = tracked.rows[0]
    pruned = Failure(kind="pruned", message="worse than the median")
    result = result.model_copy(update={"status": "failed", "failure": pruned})
    tracked.rows = [(trial, result, folder)]
    with monkeypatch.context() as earlier:
        earlier.setattr(contents, "params", lambda trial: {"seed": "0", "method": "basis"})
        earlier.setattr(contents, "status", lambda result: "FAILED")
        track(tracked)
    track(tracked)
    (run,) = runs(tracked)
    assert run.info.status == "KILLED"  # what lags behind is ended on purpose
    assert (run.data.tags["state"], run.data.tags.get("failure")) == ("pruned", None)
    assert run.data.params["adapter.num_basis"] == "8"


def test_one_summary_run_holds_the_report(tracked, without_figures):
    without_figures.undo()
    track(tracked)
    track(tracked)
    (run,) = runs(tracked, "tags.kind = 'summary'")
    client, _ = store(tracked)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "report.md", "report.json", "grid_size.yaml", "comparison.png", "comparison.svg",
        "learning.png", "learning.svg",
    }  # fmt: skip


def test_the_same_again_makes_no_second_run(tracked):
    track(tracked)
    first = {run.info.run_id for run in runs(tracked)}
    track(tracked)
    assert {run.info.run_id for run in runs(tracked)} == first


def test_a_new_attempt_supersedes_the_old_run(tracked):
    track(tracked)
    place = next(i for i, row in enumerate(tracked.rows) if row[1].status == "failed")
    trial, result, folder = tracked.rows[place]
    again = result.model_copy(
        update={"status": "done", "failure": None, "attempt": 2, "metrics": {"test/accuracy": 0.7}}
    )
    tracked.rows[place] = (trial, again, folder)
    track(tracked)
    both = runs(tracked, f"{TRIALS} and tags.point = '{trial.key}'")
    marks = {run.data.tags["attempt"]: run.data.tags["superseded"] for run in both}
    assert marks == {"1": "true", "2": "false"}
    assert {run.info.status for run in both} == {"FAILED", "FINISHED"}


def test_a_run_cut_off_while_written_is_written_anew(tracked):
    track(tracked)
    client, _ = store(tracked)
    cut = runs(tracked)[0]
    client.update_run(cut.info.run_id, status="RUNNING")
    track(tracked)
    found = runs(tracked)
    assert len(found) == len(tracked.rows)
    assert cut.info.run_id not in {run.info.run_id for run in found}


def test_a_renamed_arm_and_a_dropped_one_are_shown_as_such(tracked):
    track(tracked)
    tracked.rows = [
        (trial.model_copy(update={"arm": "sixty-four" if trial.arm == "G=64" else trial.arm}), r, d)
        for trial, r, d in tracked.rows
        if trial.arm != "paper-start"
    ]
    track(tracked)
    shown = runs(tracked, f"{TRIALS} and tags.superseded = 'false'")
    assert {run.data.tags["arm"] for run in shown} == {"lora", "G=8", "sixty-four", "G=512"}
    assert len(runs(tracked)) == 15


def test_a_trial_that_mlflow_refused_is_taken_when_offered_again(tracked, monkeypatch):
    report = report_of(tracked)
    study = TrackedStudy(tracked.study, tracked.runs_dir, pytest.fail).open()
    with monkeypatch.context() as broken:
        broken.setattr(study._client, "log_batch", lambda *a, **k: raise_disk_full())
        with pytest.raises(TrackingError, match=r"disk is full.*--report tracks them"):
            study.end_trial(*tracked.rows[0])
    assert [run.info.status for run in runs(tracked)] == ["RUNNING"]
    study.end_trial(*tracked.rows[0])
    study.finish(report)
    assert [run.info.status for run in runs(tracked)] == ["FINISHED"]


def test_a_run_that_is_there_twice_counts_once(tracked):
    track(tracked)
    client, experiment = store(tracked)
    run = runs(tracked)[0]
    twin = client.create_run(experiment.experiment_id, tags=run.data.tags)
    client.set_terminated(twin.info.run_id)
    track(tracked)
    shown = runs(tracked, f"{TRIALS} and tags.superseded = 'false'")
    assert len(shown) == len(tracked.rows)


def test_a_full_disk_is_said_and_everything_is_there_once_there_is_room(tracked):
    said = []
    report = report_of(tracked)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tracked.runs_dir / "mlflow.db").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 2**12, hard))  # no file may grow beyond
    try:
        link = deliver(tracked.study, tracked.rows, report, tracked.runs_dir, said.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert link is None
    assert re.search(r"disk.*All results are kept; `--report` brings them", said[0]), said
    assert deliver(tracked.study, tracked.rows, report, tracked.runs_dir, pytest.fail)
    found = runs(tracked)
    assert len(found) == len({run.data.tags["point"] for run in found}) == len(tracked.rows)
    assert {run.info.status for run in found} == {"FINISHED", "FAILED"}


def test_the_environment_names_another_store(tracked, monkeypatch, tmp_path):
    other = tmp_path / "other.db"
    (tracked.runs_dir / "mlflow.db").rename(other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    link = track(tracked)
    assert f"sqlite:///{other}" in link.command
    assert not (tracked.runs_dir / "mlflow.db").exists()


def test_a_server_needs_no_command(tracked, monkeypatch):
    study = TrackedStudy(tracked.study, tracked.runs_dir, pytest.fail)
    study._uri, study._experiment = "http://tracking.example:8080/", "7"
    assert study.link.command == ""
    assert study.link.url.startswith("http://tracking.example:8080/#/experiments/7/runs?")


def raise_disk_full():
    raise OSError("database or disk is full")


def test_views_are_written_again_for_twice_as_many_arms_and_at_the_end(fabricate, mlflow_database):
    for number in range(9):
        fabricate.add(f"point {number}", [0.5])
    shutil.copy(mlflow_database, fabricate.runs_dir / "mlflow.db")
    shown = []
    study = TrackedStudy(fabricate.study, fabricate.runs_dir, pytest.fail).open()
    for row in fabricate.rows:
        study.end_trial(*row)
        shown.append(len(views(fabricate)["trials"]["groupsExpanded"]))
    study.finish(None)
    assert shown == [1, 2, 2, 4, 4, 4, 4, 8, 8]
    assert len(views(fabricate)["trials"]["groupsExpanded"]) == 9


def test_an_mlflow_of_shorter_tags_gets_what_fits(tracked, monkeypatch):
    """Before 3.16 an experiment's tag had 5,000 characters: every page was refused."""
    from mlflow.store.tracking import sqlalchemy_store
    from mlflow.utils import validation

    before = sqlalchemy_store._validate_experiment_tag
    asked = []

    def checked(key, value):
        asked.append(len(value))
        with monkeypatch.context() as patch:
            patch.setattr(validation, "MAX_EXPERIMENT_TAG_VAL_LENGTH", 5_000)
            before(key, value)

    monkeypatch.setattr(sqlalchemy_store, "_validate_experiment_tag", checked)
    tracked.study.question = "Does it? " * 1_000
    track(tracked)
    assert max(asked) > 5_000  # the page was offered whole
    assert "params.`adapter.num_basis`" in views(tracked)["arms"]["selectedColumns"]
    assert len(store(tracked)[1].tags["mlflow.note.content"]) == 5_000
