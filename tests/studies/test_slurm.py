"""Jobs through submitit, with its local executor in the place of SLURM."""

import signal
import subprocess
import sys
from pathlib import Path

import fake_trials
import postgres_server
import pytest
from python_path import PYTHON_PATH
from waiting import wait_until

from studies.engine import cli, slots
from studies.engine.dispatching import slurm
from studies.engine.errors import StudyError

pytest.importorskip("submitit", reason="needs submitit: pip install 'basis-zoo[cluster]'")
ROOT = Path(cli.__file__).resolve().parents[2]
ADDRESS = "postgresql://ada:hush@127.0.0.1:1/zoo"


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    monkeypatch.setenv(slots.STORAGE_VARIABLE, ADDRESS)
    monkeypatch.setenv("PYTHONPATH", PYTHON_PATH)


def queue(folder: Path, *scripts: str) -> slurm.Submitted:
    commands = [[sys.executable, "-c", script] for script in scripts]
    return slurm.submit(commands, folder, "s", {"timeout_min": 5}, cluster="local")


def test_each_command_is_a_job_whose_exit_code_is_known(tmp_path: Path) -> None:
    submitted = queue(tmp_path, "import sys; sys.exit(0)", "import sys; sys.exit(3)")
    assert [job.result() for job in submitted.jobs] == [0, 3]
    assert str(submitted).startswith("2 jobs queued: ")


def test_two_jobs_complete_a_study_and_keep_the_password(tmp_path: Path, monkeypatch) -> None:
    for server in postgres_server.running():
        monkeypatch.setenv(slots.STORAGE_VARIABLE, server.create("zoo"))
        driver = [sys.executable, fake_trials.__file__]
        commands = [[*driver, tmp_path / str(i), tmp_path / "journal", "0.2", "2", "0.3"]
                    for i in range(2)]  # fmt: skip
        commands = [[str(part) for part in command] for command in commands]
        submitted = slurm.submit(commands, tmp_path, "s", {}, cluster="local")
        assert [job.result() for job in submitted.jobs] == [0, 0]
        done = [line for line in (tmp_path / "journal").read_text().splitlines() if "done" in line]
        assert len(done) == len({line.split()[1] for line in done}) == 8
        files = [path.read_bytes() for path in submitted.logs.rglob("*") if path.is_file()]
        words = (postgres_server.PASSWORD.encode(), postgres_server.QUOTED.encode())
        assert files and not any(word in content for content in files for word in words)


STUDY_PROCESS = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path("left").touch(), sys.exit(0)))
pathlib.Path("ready").touch()
time.sleep(240)
"""
JOB = """
import os, signal, sys
from studies.engine.dispatching import slurm
job = slurm.Dispatcher([sys.executable, "-c", sys.argv[1]])
def leave(*_):  # submitit calls `checkpoint` from a signal handler and exits
    again = job.checkpoint()
    os._exit(0 if again.function._command == job._command else 3)
signal.signal(signal.SIGUSR2, leave)
job()
os._exit(4)
"""


def test_a_job_that_has_to_go_ends_its_dispatcher_and_is_queued_again(tmp_path: Path) -> None:
    job = subprocess.Popen([sys.executable, "-c", JOB, STUDY_PROCESS], cwd=tmp_path)
    wait_until((tmp_path / "ready").exists)
    job.send_signal(signal.SIGUSR2)
    assert job.wait() == 0
    assert (tmp_path / "left").exists()


def test_a_job_without_the_address_does_not_run_the_study_alone(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv(slots.STORAGE_VARIABLE)
    with pytest.raises(StudyError, match="did not reach the job"):
        slurm.Dispatcher(["true"])()
    with pytest.raises(StudyError, match="set BASIS_ZOO_STORAGE"):
        queue(tmp_path, "pass")


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(slurm.shutil, "which", lambda name: None)
    with pytest.raises(StudyError, match="no SLURM on this machine"):
        slurm.submit([["true"]], tmp_path, "s", {})
    with pytest.raises(StudyError, match=r"--job: .*gpus_per_nod"):
        slurm.submit([["true"]], tmp_path, "s", {"gpus_per_nod": 4}, cluster="local")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(StudyError, match=r"pip install 'basis-zoo\[cluster\]'"):
        queue(tmp_path, "pass")


def test_the_command_line_makes_a_job_of_everything_it_was_given(tmp_path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(slurm, "submit", lambda *given: seen.append(given) or "queued")
    monkeypatch.setattr("studies.engine.dispatching.storage.Server.check", lambda server: None)
    study = ROOT / "studies" / "grid_size.yaml"
    code = cli.main([
        str(study), "--slurm", "2", "--only", "seed=0", "--slots", "3", "--retry-failed",
        "--job", "gpus_per_node=4", "--job", "slurm_partition=gpu", "--runs", str(tmp_path),
    ])  # fmt: skip
    assert code == cli.DONE
    [((first, second), folder, name, parameters)] = seen
    common = [str(study), "--profile", "embedded", "--only", "seed=0", "--slots", "3"]
    assert first[3:] == [*common, "--retry-failed", "--runs", str(tmp_path / "slurm" / "0")]
    assert second[3:] == [*common, "--runs", str(tmp_path / "slurm" / "1")]
    assert (folder, name) == (tmp_path / "slurm", "grid_size")
    assert parameters == {"gpus_per_node": 4, "slurm_partition": "gpu"}
    assert cli.main([str(study), "--slurm", "0"]) == cli.BAD_INPUT
    assert cli.main([str(study), "--slurm", "1", "--job", "gpus"]) == cli.BAD_INPUT
