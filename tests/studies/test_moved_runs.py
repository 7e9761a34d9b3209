"""A runs folder that is moved, copied or named from elsewhere: its page goes with it."""

import shutil
from pathlib import Path
from typing import Any

import fake_trials
import pytest
from mlflow import MlflowClient

from studies.engine.command import cli
from studies.engine.running import local
from studies.engine.tracking import mlflow_client
from studies.engine.trials import devices

STUDY = """\
name: s
question: Which?
adapter: {method: basis, basis: sinc, num_basis: 8}
arms: [{name: eight}, {name: lora, adapter: {method: lora}}]
baseline: lora
objective: {metric: test/accuracy}
seeds: [0, 1]
"""


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_database: Path) -> Path:
    """The folder of a study that was run there, with its page in `runs`."""
    folder = tmp_path / "first ä"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv(mlflow_client.VARIABLE, raising=False)
    monkeypatch.setattr(mlflow_client, "_create", lambda file: shutil.copy(mlflow_database, file))
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    monkeypatch.setattr(local, "LocalRunner", fake_trials.local_runner(tmp_path / "journal"))
    monkeypatch.setattr("studies.engine.command.session.fetch_for", lambda trials: None)
    script = fake_trials.SCRIPT.replace('["fake"]', '.get("fake", {})')
    monkeypatch.setattr(fake_trials, "SCRIPT", script)
    Path("s.yaml").write_text(STUDY)
    assert cli.main(["s.yaml", "--runs", "runs"]) == cli.DONE
    return folder


def artifacts(runs_dir: Path) -> dict[str, str]:
    """By run: what its client reads of it, from the folder that is asked for alone."""
    client = MlflowClient(f"sqlite:///{runs_dir.resolve()}/mlflow.db")
    experiment: Any = client.get_experiment_by_name("s (embedded)")
    found = {}
    for run in client.search_runs([experiment.experiment_id], "tags.kind != 'arm'"):
        name = "report.md" if run.data.tags["kind"] == "summary" else "result.json"
        listed = [file.path for file in client.list_artifacts(run.info.run_id)]
        assert name in listed
        assert run.info.artifact_uri.startswith(f"{runs_dir.resolve().as_uri()}/")
        found[run.info.run_name] = Path(
            client.download_artifacts(run.info.run_id, name)
        ).read_text()
    return found


def test_a_moved_folder_takes_its_page_along(ran: Path, tmp_path: Path) -> None:
    before = artifacts(Path("runs"))
    assert set(before) == {"eight s0", "eight s1", "lora s0", "lora s1", "summary"}
    there = tmp_path / "second _"
    (ran / "runs").rename(there)
    for _ in range(2):
        assert cli.main(["s.yaml", "--runs", str(there), "--report"]) == cli.DONE
        assert artifacts(there).keys() == before.keys()
    assert [str(path) for path in ran.rglob("*")] == [str(ran / "s.yaml")]


def test_a_copy_has_a_page_of_its_own(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(ran, tmp_path / "copy"))
    files = {path for path in (ran / "runs").rglob("*") if not path.name.startswith("mlflow.db")}
    monkeypatch.chdir(copy)
    Path("s.yaml").write_text(STUDY.replace("[0, 1]", "[0, 1, 2]"))
    assert cli.main(["s.yaml"]) == cli.DONE
    assert {"eight s2", "lora s2"} <= artifacts(copy / "runs").keys()
    after = {path for path in (ran / "runs").rglob("*") if not path.name.startswith("mlflow.db")}
    assert after == files and "eight s2" not in artifacts(ran / "runs")
