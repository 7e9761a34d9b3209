"""MLflow's server away, slow, broken, losing answers: training goes on, each trial is there once.

MLflow is asked over HTTP by its own client.
"""

import fake_mlflow
import pytest
from waiting import wait_until

from studies.engine.errors import masked
from studies.engine.tracking import background, mlflow_client, pages

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_figures")]


@pytest.fixture
def server(monkeypatch):
    with fake_mlflow.FakeMlflow() as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:lovelace@127.0.0.1:{server.port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setattr(background, "RETRY_SECONDS", 0.1)
        yield server


@pytest.fixture
def study(fabricate):
    fabricate.add("lora", [0.7, 0.71], {"adapter.method": "lora"})
    return fabricate.add("G=8", [0.72, 0.73], {"adapter.num_basis": 8})


def assert_each_is_there_once(server, study):
    assert sorted(run["tags"]["point"] for run in server.trials()) == sorted(
        trial.key for trial, _, _ in study.rows
    )
    for run in server.trials():
        assert run["status"] == "FINISHED"
        assert run["tags"]["superseded"] == "false"
        points = [(m["key"], m["step"], m["value"]) for m in run["metrics"]]
        assert len(points) == len(set(points)) and len(points) > 5


def delivered(study, say):
    report = study.report()
    return background.deliver(study.study, study.rows, report, study.runs_dir, say)


@pytest.mark.parametrize("mode", ["error", "lost", "hang"])
def test_a_server_that_comes_back_gets_everything_once(server, study, mode, capsys):
    said = []
    with background.Tracking(study.study, study.runs_dir, said.append) as page:
        page.end_trial(*study.rows[0])
        wait_until(lambda: [run["status"] for run in server.trials()] == ["FINISHED"])
        server.mode, before = mode, server.asked
        for row in study.rows[1:3]:
            page.end_trial(*row)
        wait_until(lambda: said and server.asked > before + 1)
        server.mode = "ok"
        page.end_trial(*study.rows[3])
        wait_until(lambda: sum(run["status"] == "FINISHED" for run in server.trials()) == 4)
    assert_each_is_there_once(server, study)
    assert all("Training goes on" in line for line in said)
    link = delivered(study, said.append)
    assert_each_is_there_once(server, study)
    assert link.url.startswith(f"{server.url}/#/experiments/1/runs?")
    printed = capsys.readouterr()
    assert "lovelace" not in "".join([*said, link.url, link.command, printed.out, printed.err])


def test_a_server_that_stays_away_costs_the_dispatcher_no_time(server, study):
    """The queue takes a trial at once; what was not delivered is delivered from the folders."""
    server.mode, said = "hang", []
    with background.Tracking(study.study, study.runs_dir, said.append) as page:
        wait_until(lambda: server.asked > 0)
        for row in study.rows:
            page.end_trial(*row)  # while a request hangs: were it made here, this would hang too
        assert said == []
    assert "lovelace" not in "".join(said)
    assert delivered(study, said.append) is None
    assert "All results are kept; `--report` brings them to MLflow" in said[-1]
    assert server.trials() == []
    server.mode = "ok"
    assert delivered(study, said.append) is not None
    assert_each_is_there_once(server, study)


def test_a_server_that_is_not_there_is_said_without_its_password(study, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:lovelace@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = []
    assert delivered(study, said.append) is None
    assert "127.0.0.1" in said[0] and "lovelace" not in said[0] and "ada" not in said[0]


def test_a_slow_server_is_left_to_the_end_once_training_is_over(server, study):
    server.mode = "slow"
    with background.Tracking(study.study, study.runs_dir, pytest.fail) as page:
        for row in study.rows:
            page.end_trial(*row)
    server.mode = "ok"
    assert len(server.trials()) < len(study.rows)  # leaving did not wait for all of them
    assert delivered(study, pytest.fail) is not None
    assert_each_is_there_once(server, study)


def test_requests_are_bounded_unless_the_user_says_otherwise(study, monkeypatch):
    for name in mlflow_client.PATIENCE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    with fake_mlflow.FakeMlflow() as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        pages.TrackedStudy(study.study, study.runs_dir, pytest.fail).open()
        from mlflow import environment_variables as mlflow_settings

        assert mlflow_settings.MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 10
        assert mlflow_settings.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 5


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at postgresql://u:p@h/db: no", "at postgresql://***@h/db: no"),
        ("http://u:p%40/@h:80/#/x", "http://***@h:80/#/x"),
        ("http://token@h", "http://***@h"),
        ("x?password=abc&y=1 a@b.c", "x?password=***&y=1 a@b.c"),
        ("http://h:5000/#/experiments/1", "http://h:5000/#/experiments/1"),
        ("sqlite:////a/b@c.db", "sqlite:////a/b@c.db"),
        ("two http://a:b@c and http://d:e@f.", "two http://***@c and http://***@f."),
    ],
)
def test_addresses_are_shown_without_user_and_password(text, shown):
    assert masked(text) == shown


def test_the_command_leaves_a_password_in_the_environment(study, monkeypatch):
    tracked = pages.TrackedStudy(study.study, study.runs_dir, pytest.fail)
    tracked._uri, tracked._experiment = "postgresql://u:secret@h/db", "7"
    assert tracked.link.command == (
        'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI" --host 127.0.0.1 --port 5000'
    )
    assert "disable-security" not in tracked.link.command
