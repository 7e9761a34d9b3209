"""Several dispatchers on one PostgreSQL database, started here; skipped where there is none."""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import fake_trials
import optuna
import postgres_server
import pytest
from python_path import environment
from waiting import wait_until

from studies.engine import cli, runs, session, slots
from studies.engine.dispatching import dispatch, hosts, storage, store
from studies.engine.errors import StudyError
from studies.engine.records import Trial

make_study, make_trials = fake_trials.make_study, fake_trials.make_trials
PASSWORDS = (postgres_server.PASSWORD, postgres_server.QUOTED)
HEARTBEAT = "0.3"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def postgres():
    yield from postgres_server.running()


@pytest.fixture(scope="module")
def with_tables(postgres) -> str:
    """A database with Optuna's tables, to be copied: making them takes a second."""
    url = postgres.create("tables")
    storage_ = optuna.storages.RDBStorage(url.replace("postgresql", "postgresql+psycopg", 1))
    storage_.engine.dispose()
    return "tables"


@pytest.fixture
def url(postgres, with_tables, monkeypatch) -> str:
    """The address of a database of one's own, in the environment."""
    url = postgres.create(f"d{next(_numbers)}", with_tables)
    monkeypatch.setenv(slots.STORAGE_VARIABLE, url)
    monkeypatch.setattr(slots, "gpus", lambda: 0)
    return url


class Host:
    """A dispatcher in a process of its own, with a run folder of its own."""

    def __init__(self, folder: Path, name: str, seconds: float, slot_count: int = 1) -> None:
        self.runs_dir, self._log = folder / name, folder / f"{name}.txt"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, fake_trials.__file__, self.runs_dir, folder / "journal",
                 str(seconds), str(slot_count), HEARTBEAT],
                env=environment(), stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self._log.read_text()

    def running(self) -> list[str]:
        return [path.parent.name for path in self.runs_dir.rglob("pid")]

    def results(self, trials: list[Trial]) -> list[str | None]:
        found = [runs.result_of(trial, self.runs_dir) for trial in trials]
        return [result.status if result else None for result in found]


@pytest.fixture
def start(tmp_path: Path):
    started = []

    def one(name: str, *arguments) -> Host:
        started.append(Host(tmp_path, name, *arguments))
        return started[-1]

    yield one
    for host in started:
        host.process.kill()


def trials_of_hosts(seconds: float) -> list[Trial]:
    return make_trials(*[{"seconds": seconds}] * 4, seeds=(0, 1))


def noted(folder: Path, word: str) -> collections.Counter[str]:
    journal = folder / "journal"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return collections.Counter(line.split()[1] for line in lines if line.startswith(word))


def rows() -> list[hosts.Row]:
    return store.Table(make_study(), storage.configured()).rows()


def complete() -> list[str]:
    return sorted(row.point for row in rows() if row.state == "complete")


def keys(trials: list[Trial]) -> list[str]:
    return sorted(trial.key for trial in trials)


def run(folder: Path, name: str, trials: list[Trial], **options) -> list[str]:
    """A dispatcher in this process; the kinds of its events."""
    events = []
    dispatch.run(
        options.pop("study", None) or make_study(),
        trials,
        folder / name,
        on_event=lambda event: events.append(event.kind),
        command=functools.partial(fake_trials.command, folder / "journal"),
        **options,
    )
    return events


def test_three_hosts_one_of_them_killed(url: str, tmp_path: Path, start) -> None:
    trials = trials_of_hosts(1.0)
    three = [start(name, 1.0) for name in "abc"]
    killed, *survivors = three
    wait_until(lambda: killed.running() and noted(tmp_path, "start")[killed.running()[0]])
    killed.process.kill()
    for host in survivors:
        assert host.process.wait(90) == 0, host.said
        assert host.results(trials) == ["done"] * 8
    assert complete() == keys(trials)
    assert set(noted(tmp_path, "done").values()) == {1}
    assert sum(noted(tmp_path, "start").values()) == 9
    assert sum(row.state == "failed" for row in rows()) == 1
    assert not any(row.alive for row in rows())
    assert not any(word in host.said for host in three for word in PASSWORDS)


def test_the_database_is_stopped_while_trials_run(
    postgres, url: str, tmp_path: Path, start
) -> None:
    trials = trials_of_hosts(1.0)
    host = start("a", 1.0, 2)
    wait_until(lambda: len(noted(tmp_path, "start")) == 2)
    postgres.stop()
    try:
        wait_until(lambda: len(noted(tmp_path, "done")) == 2)
        wait_until(lambda: "does not answer" in host.said)
        assert len(noted(tmp_path, "start")) == 2 and host.process.poll() is None
    finally:
        postgres.start()
    assert host.process.wait(90) == 0, host.said
    assert "the database is back after" in host.said
    assert complete() == keys(trials)
    assert set(noted(tmp_path, "start").values()) == {1}
    assert not any(word in host.said for word in PASSWORDS)


def test_a_dispatcher_that_was_killed_goes_on_at_once(url: str, tmp_path: Path, start) -> None:
    first = start("a", 1.0, 2)
    wait_until(lambda: len(noted(tmp_path, "start")) == 2)
    first.process.kill()
    first.process.wait()
    assert run(tmp_path, "a", trials_of_hosts(1.0), slot_count=8).count("done") == 8
    assert complete() == keys(trials_of_hosts(1.0))


def test_many_open_a_fresh_database_at_once(postgres, monkeypatch) -> None:
    monkeypatch.setenv(slots.STORAGE_VARIABLE, postgres.create("fresh"))
    server = storage.configured()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        tables = list(pool.map(lambda _: store.Table(make_study(), server), range(6)))
    assert [table.rows() for table in tables] == [[]] * 6


def test_planning_and_claiming_by_several_at_once_is_done_once(url: str, tmp_path: Path) -> None:
    trials, server = make_trials(*[{}] * 6), storage.configured()
    barrier = threading.Barrier(4)

    def work(name: str) -> list[str]:
        table = store.Table(make_study(), server)
        ledger = hosts.SharedLedger(table, "test/accuracy", tmp_path / name, name)
        barrier.wait(240)
        todo = ledger.sync(trials, False, lambda event: None)
        barrier.wait(240)
        return [trial.key for trial in todo if ledger.claim(trial) is not None]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        claimed = list(pool.map(work, "abcd"))
    assert sorted(itertools.chain(*claimed)) == keys(trials)
    assert [row.state for row in rows()] == ["running"] * 6


def test_results_and_failures_of_one_host_are_known_on_the_next(url: str, tmp_path: Path) -> None:
    trials = make_trials({}, {"failures": 1, "message": "flaky"}, {})
    run(tmp_path, "a", trials)
    assert run(tmp_path, "b", trials) == ["found"] * 3
    assert runs.result_of(trials[1], tmp_path / "b").failure.message == "flaky"
    kinds = run(tmp_path, "b", trials, retry_failed=True)
    assert kinds == ["found", "found", "started", "done"]
    assert runs.result_of(trials[1], tmp_path / "b").attempt == 2
    dispatch.pull(make_study(), trials, tmp_path / "c")
    assert [runs.result_of(trial, tmp_path / "c").status for trial in trials] == ["done"] * 3
    assert complete() == keys(trials)


def test_a_wrong_password_is_refused_without_being_shown(url: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(slots.STORAGE_VARIABLE, url.replace("s3cret", "wr0ng"))
    with pytest.raises(StudyError, match=r"cannot be used: .*password authentication") as caught:
        run(tmp_path, "a", make_trials({}))
    assert "wr0ng" not in str(caught.value) and not noted(tmp_path, "start")
    monkeypatch.setenv(slots.STORAGE_VARIABLE, url.rpartition("/")[0] + "/none")
    with pytest.raises(StudyError, match='database "none" does not exist'):
        run(tmp_path, "a", make_trials({}))


def test_neither_the_trial_nor_its_files_get_the_password(url: str, tmp_path: Path) -> None:
    monitor = fake_trials.SCRIPT.replace('note("start")', 'print(dict(os.environ))\nnote("start")')
    trials = make_trials({})
    (tmp_path / "fake_trial.py").write_text(monitor)
    dispatch.run(
        make_study(), trials, tmp_path / "a",
        command=lambda run_dir: [sys.executable, "-S", str(tmp_path / "fake_trial.py"),
                                 str(run_dir), str(tmp_path / "journal")],
    )  # fmt: skip
    texts = [path.read_text() for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert any("PYTHONPATH" in text for text in texts)
    assert not any(word in text for text in texts for word in PASSWORDS)


@pytest.fixture
def study_file(url: str, tmp_path: Path, monkeypatch) -> Path:
    """A study of three trials whose trials are fakes and whose page is not made."""
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(STUDY)
    command = functools.partial(fake_trials.command, tmp_path / "journal")
    monkeypatch.setattr(session, "default_command", command)
    monkeypatch.setattr(session, "fetch_for", lambda trials: None)
    script = fake_trials.SCRIPT.replace('["fake"]', '.get("fake", {})')
    monkeypatch.setattr(fake_trials, "SCRIPT", script)
    page = SimpleNamespace(end_trial=lambda *arguments: None)
    monkeypatch.setattr(
        session.tracking, "Tracking", lambda *arguments: contextlib.nullcontext(page)
    )
    link = session.tracking.track.MlflowLink("mlflow ui", "http://127.0.0.1:5000/#/x")
    monkeypatch.setattr(session.tracking, "deliver", lambda *arguments: link)
    return Path("s.yaml")


STUDY = """\
name: s
question: Which?
adapter: {method: basis, basis: sinc, num_basis: 8}
sweep: {adapter.r: [2, 4]}
arms: [{name: lora, adapter: {method: lora}}]
baseline: lora
objective: {metric: test/accuracy}
profiles: {embedded: {seeds: [0]}}
"""


def test_plan_and_report_on_a_host_that_trained_nothing(study_file: Path, capsys) -> None:
    assert cli.main(["s.yaml", "--runs", "a"]) == cli.DONE
    assert "[3/3] done" in capsys.readouterr().out
    assert cli.main(["s.yaml", "--runs", "b", "--plan"]) == cli.DONE
    assert "3 trials: 3 done" in capsys.readouterr().out
    assert cli.main(["s.yaml", "--runs", "c", "--report"]) == cli.DONE
    assert Path("c/s/embedded/report/report.md").exists()
    assert len(noted(Path(), "start")) == 3


def test_a_server_that_is_away_is_named_before_anything_is_trained(
    study_file: Path, url: str, monkeypatch, capsys
) -> None:
    monkeypatch.setenv(slots.STORAGE_VARIABLE, re.sub(r":\d+/", ":1/", url))
    assert cli.main(["s.yaml"]) == cli.BAD_INPUT
    said = capsys.readouterr().err
    assert "owner@127.0.0.1:1/" in said and "Start the server or correct the address" in said
    assert len(said.splitlines()) == 1 and not any(word in said for word in PASSWORDS)
    assert not noted(Path(), "start")
