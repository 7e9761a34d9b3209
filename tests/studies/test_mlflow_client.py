"""The page's database: made whole, made again once broken, in any folder, each trial there once."""

import contextlib
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from python_path import environment
from waiting import wait_until

from studies import databases
from studies.engine.command.session import Options, Session
from studies.engine.errors import StudyError
from studies.engine.records import Cost
from studies.engine.reporting.outcome import collect
from studies.engine.reporting.report import Report
from studies.engine.searching.optuna_storage import Storage
from studies.engine.tracking import background, mlflow_client, pages
from studies.files import locked

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def made_quickly(monkeypatch, mlflow_database):
    """MLflow's tables are copied, not made."""
    monkeypatch.delenv(mlflow_client.VARIABLE, raising=False)
    monkeypatch.setattr(mlflow_client, "_create", lambda file: shutil.copy(mlflow_database, file))
    monkeypatch.setattr(background, "RETRY_SECONDS", 0.05)


@pytest.fixture
def study(fabricate):
    fabricate.add("lora", [0.7, 0.71], {"adapter.method": "lora"})
    return fabricate.add("G=8", [0.72, 0.73], {"adapter.num_basis": 8})


def report(study) -> Report:
    """A small one: drawing figures takes long."""
    outcome = collect(study.study, study.pairs)
    return Report(study.study.path, study.study.path, (), "", "note", outcome, {})


def deliver(study, say=pytest.fail, runs_dir: Path | None = None):
    folder = runs_dir or study.runs_dir
    return background.deliver(study.study, study.rows, report(study), folder, say)


def found(runs_dir: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """Status and tags of the trials' runs that were not deleted, by run."""
    if not (runs_dir / "mlflow.db").exists():
        return {}
    with contextlib.closing(sqlite3.connect(runs_dir / "mlflow.db")) as file:
        tags: dict[str, dict[str, str]] = {}
        for run, key, value in file.execute("SELECT run_uuid, key, value FROM tags"):
            tags.setdefault(run, {})[key] = value
        rows = file.execute("SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'")
        known = [(run, status, tags.get(run, {})) for run, status in rows]  # a new run has none yet
        return {run: (status, own) for run, status, own in known if own.get("kind") == "trial"}


def assert_each_is_there_once(study, runs_dir: Path | None = None) -> None:
    runs = found(runs_dir or study.runs_dir).values()
    points = sorted(tags["point"] for _, tags in runs)
    assert points == sorted(trial.key for trial, _, _ in study.rows)
    assert {status for status, _ in runs} == {"FINISHED"}


def test_a_database_that_was_not_completed_is_none(study, monkeypatch) -> None:
    def killed(file: Path) -> None:
        file.write_bytes(b"SQLite")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_client, "_create", killed)
        with pytest.raises(KeyboardInterrupt):
            deliver(study)
    assert not list(study.runs_dir.glob("*mlflow.db*"))
    assert deliver(study) is not None
    assert_each_is_there_once(study)


def test_kill_9_while_the_database_is_made_leaves_none(tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
from studies.engine.tracking import mlflow_client
def create(file):
    file.write_bytes(b"SQLite format 3")
    print("now", flush=True)
    time.sleep(60)
mlflow_client._create = create
mlflow_client.prepare(Path({str(tmp_path / "mlflow.db")!r}), print)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "now\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("what", ["half", "empty", "nonsense", "torn", "folder"])
def test_a_broken_database_is_set_aside_and_made_again(study, mlflow_database, what) -> None:
    file, said = study.runs_dir / "mlflow.db", []
    study.runs_dir.mkdir(exist_ok=True)
    if what == "folder":
        file.mkdir()
    elif what == "half":  # as kill -9 left it while MLflow made its tables
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE experiments (experiment_id INTEGER)")
            connection.execute("CREATE TABLE runs (run_uuid TEXT)")
    else:
        whole = mlflow_database.read_bytes()
        torn = whole[: len(whole) // 2]
        file.write_bytes({"empty": b"", "nonsense": b"no database" * 999, "torn": torn}[what])
    (study.runs_dir / "mlflow.db-wal").write_bytes(b"old")
    assert deliver(study, said.append) is not None
    assert_each_is_there_once(study)
    (line,) = said
    assert "is now called mlflow.db.broken-1" in line and "\n" not in line
    assert "made again from the results of this study; other studies" in line
    assert "need --report" in line
    assert (study.runs_dir / "mlflow.db.broken-1").exists()
    assert deliver(study) is not None  # says nothing more
    file.write_bytes(b"broken again" * 999)
    assert deliver(study, said.append) is not None  # though this process has it open
    assert_each_is_there_once(study)
    assert (study.runs_dir / "mlflow.db.broken-2").is_file()


def test_a_log_of_a_removed_database_is_not_played_into_the_new_one(tmp_path: Path) -> None:
    file, log = tmp_path / "x.db", tmp_path / "x.db-wal"

    def create(draft: Path, name: str = "first") -> None:
        with contextlib.closing(sqlite3.connect(draft)) as connection:
            connection.execute(f"CREATE TABLE {name} (x)")

    databases.make(file, create)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE late (x)")
        kept = log.read_bytes()
    file.unlink()
    log.write_bytes(kept)
    databases.make(file, lambda draft: create(draft, "second"))
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert list(connection.execute("SELECT name FROM sqlite_master")) == [("second",)]
        assert list(connection.execute("PRAGMA journal_mode")) == [("wal",)]


def test_a_database_that_is_locked_or_may_not_be_read_stays(study, monkeypatch) -> None:
    assert deliver(study) is not None

    def refuse(*arguments: object, **options: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", refuse)
    said: list[str] = []
    assert deliver(study, said.append) is None
    assert "unable to open database file" in said[0]
    assert not list(study.runs_dir.glob("*broken*"))


def test_two_processes_that_track_one_trial_make_one_run(study) -> None:
    ready = threading.Barrier(2)

    def track() -> None:
        page = pages.TrackedStudy(study.study, study.runs_dir, pytest.fail).open()
        page.show_only(study.rows)  # what is known: no run
        ready.wait(60)
        for row in study.rows:
            page.end_trial(*row)

    with ThreadPoolExecutor(2) as pool:
        for ended in [pool.submit(track) for _ in range(2)]:
            ended.result()
    assert_each_is_there_once(study)


def test_a_run_that_another_process_writes_is_waited_for(study) -> None:
    page = pages.TrackedStudy(study.study, study.runs_dir, pytest.fail).open()
    writer = threading.Thread(target=page.end_trial, args=study.rows[0])
    with locked(study.runs_dir / ".mlflow.lock"):
        writer.start()
        time.sleep(0.5)
        assert found(study.runs_dir) == {}
    writer.join()
    assert len(found(study.runs_dir)) == 1


def test_a_folder_of_any_name_holds_a_page(study, tmp_path: Path) -> None:
    runs_dir = tmp_path / "a b#ä&'\"$(touch x);*~漢@c:d"
    study.study.path.rename(tmp_path / "s t.yaml")
    study.study.path = tmp_path / "s t.yaml"
    link = deliver(study, runs_dir=runs_dir)
    assert_each_is_there_once(study, runs_dir)
    words = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {link.command}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert words == shlex.split(link.command)
    assert words[3] == f"sqlite:///{runs_dir}/mlflow.db"
    assert len(list((runs_dir / "mlartifacts").rglob("result.json"))) == len(study.rows)
    assert sorted(path.name for path in runs_dir.iterdir() if path.is_dir()) == ["mlartifacts"]


@pytest.mark.parametrize("name", ["a?b", "a%20b", "50%", "a\nb", "a\x1bb", "a\udcffb"])
def test_a_folder_that_no_address_can_name_is_refused_at_once(tmp_path, name, monkeypatch) -> None:
    with pytest.raises(StudyError, match=r"--runs .*Choose another folder, or set MLFLOW") as error:
        Session(SimpleNamespace(), Options(runs_dir=tmp_path / name), None, None)
    str(error.value).encode()
    monkeypatch.setenv(mlflow_client.VARIABLE, "http://127.0.0.1:1")
    mlflow_client.check_store(tmp_path / name)


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "/data/mlruns", "file:///data/mlruns"])
def test_a_folder_as_mlflows_store_is_refused_at_once(uri, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(mlflow_client.VARIABLE, uri)
    with pytest.raises(StudyError, match=rf"{uri} names a folder.*Unset it.*sqlite:///.*http://"):
        Session(SimpleNamespace(), Options(runs_dir=tmp_path), None, None)


@pytest.mark.parametrize("uri", ["htp://host", "localhost:5000", "redis://u:secret@h/0", "s3://b"])
def test_an_address_that_mlflow_has_no_store_for_is_refused_at_once(
    uri, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv(mlflow_client.VARIABLE, uri)
    known = "http://, https://, sqlite://, postgresql://, mysql://, mssql://"
    with pytest.raises(StudyError, match=rf"no store '{uri.partition(':')[0]}:'.*{known}") as error:
        Session(SimpleNamespace(), Options(runs_dir=tmp_path), None, None)
    assert "secret" not in str(error.value)


def test_the_stores_are_those_of_mlflow(tmp_path, monkeypatch) -> None:
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    assert {*mlflow_client.SCHEMES, *mlflow_client.WORDS, "", "file"} == {
        *_tracking_store_registry._registry
    }


@pytest.mark.parametrize(
    "uri", ["sqlite:///m.db", "https://host", "postgresql://h/m", "uc", "mysql+pymysql://h/m"]
)
def test_databases_and_servers_are_taken(uri, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(mlflow_client.VARIABLE, uri)
    mlflow_client.check_store(tmp_path)


def test_optuna_works_in_a_folder_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a?b%20#ä\n'c"
    kept = Storage(folder, None, pytest.fail).storage
    kept.create_new_study([], "one")
    again = Storage(folder, None, pytest.fail).storage
    assert [study.study_name for study in again.get_all_studies()] == ["one"]
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert (folder / "optuna.db").is_file()


def odd(study, name: str, **update) -> None:
    """A trial whose result is `update`d."""
    study.add(name, [0.5])
    trial, result, folder = study.rows[-1]
    study.rows[-1] = (trial, result.model_copy(update=update), folder)


def test_odd_results_are_shown_as_well_as_they_can_be(study) -> None:
    odd(study, "year 1", started="0001-01-01T00:00:00+14:00")
    odd(study, "year 9999", started="9999-12-31T00:00:00", seconds=1e300)
    values = {"a@b": 1.0, "": 2.0, "../x//y": 3.0, "n" * 600: 4.0, "ä\n\0": 5.0}
    odd(study, "names", metrics={"test/accuracy": 0.5, **values})
    nan, inf = float("nan"), float("inf")
    odd(study, "values", metrics={"a": nan, "b": inf, "c": -inf, "d": 1e308})
    study.add("n" * 500, [0.5])
    study.add("\0\u202e", [0.5])
    study.add("params", [0.5], {"adapter.x@y": "v" * 100_000} | {f"p{i}": i for i in range(250)})
    study.add("steps", [0.5])
    lines = ['{"step": 1e18, "seconds": 1e300, "train/loss": 1e308, "x": true, "y": "s"}',
             f'{{"step": 2, "seconds": 1, "z": 1{"0" * 400}}}']  # fmt: skip
    (study.rows[-1][2] / "metrics.jsonl").write_text("\n".join(lines))
    assert deliver(study) is not None
    assert_each_is_there_once(study)
    with contextlib.closing(sqlite3.connect(study.runs_dir / "mlflow.db")) as file:
        names = {name for (name,) in file.execute("SELECT key FROM metrics")}
        (count,) = file.execute(
            "SELECT count(DISTINCT key) FROM params WHERE key GLOB 'adapter.p[0-9]*'"
        ).fetchone()
    assert {"a_b", "_", "x/y", "n" * 250, "ä_"} <= names and not {"x", "y", "z"} & names
    assert count == 250


def test_a_trial_that_mlflow_refuses_is_said_and_the_others_go_on(study) -> None:
    huge = Cost(**{name: 1 for name in Cost.model_fields} | {"total_parameters": 10**400})
    trial, result, folder = study.rows[1]
    study.rows[1] = (trial, result.model_copy(update={"cost": huge}), folder)
    (study.rows[2][2] / "metrics.jsonl").write_text("nonsense\n{}\n")
    said: list[str] = []
    with background.Tracking(study.study, study.runs_dir, said.append) as page:
        for row in study.rows:
            page.end_trial(*row)
        wait_until(lambda: len(said) + len(found(study.runs_dir)) == len(study.rows))
    for _ in range(2):  # while it runs, and at the end
        assert len(said) == 2
        assert "did not take lora s1: int too large" in said[0] and str(folder) in said[0]
        assert "did not take G=8 s0: " in said[1] and "remove this file" in said[1]
        said.clear()
        assert deliver(study, said.append) is not None
    study.rows = [study.rows[0], study.rows[3]]
    assert_each_is_there_once(study)


def test_a_trial_that_always_fails_holds_no_other_up(study, monkeypatch) -> None:
    real = pages.TrackedStudy._write_run
    bad, tried = {study.rows[1][0].key}, []

    def write(self, trial, *rest):
        tried.append(trial.key)
        if trial.key in bad:
            raise OSError("server error")
        return real(self, trial, *rest)

    monkeypatch.setattr(pages.TrackedStudy, "_write_run", write)
    said: list[str] = []
    with background.Tracking(study.study, study.runs_dir, said.append) as page:
        for row in study.rows:
            page.end_trial(*row)
        wait_until(lambda: len(found(study.runs_dir)) == len(study.rows) - 1)
        wait_until(lambda: sum(key in bad for key in tried) > 2)  # offered again meanwhile
    assert len(said) == 1 and "lora s1: server error" in said[0] and "Training goes on" in said[0]
    said.clear()
    assert deliver(study, said.append) is not None
    assert len(said) == 1 and "lora s1: server error" in said[0]
    bad.add(study.rows[2][0].key)  # two in a row: it is MLflow
    said.clear()
    other = study.runs_dir / "other"
    assert deliver(study, said.append, other) is None
    assert len(said) == 1 and "All results are kept" in said[0]
    bad.clear()
    assert deliver(study, runs_dir=other) is not None
    assert_each_is_there_once(study, other)
