"""A runs folder that is moved, copied or named from elsewhere: its page goes with it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from studies.engine.command import cli

pytestmark = pytest.mark.slow


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


def test_a_copy_has_a_page_of_its_own(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(ran, tmp_path / "copy"))
    files = {path for path in (ran / "runs").rglob("*") if ".db" not in path.name}
    monkeypatch.chdir(copy)
    Path("s.yaml").write_text(Path("s.yaml").read_text().replace("[0, 1]", "[0, 1, 2]"))
    assert cli.main(["s.yaml"]) == cli.DONE
    assert {"eight s2", "lora s2"} <= artifacts(copy / "runs").keys()
    after = {path for path in (ran / "runs").rglob("*") if ".db" not in path.name}
    assert after == files and "eight s2" not in artifacts(ran / "runs")


def test_a_moved_folder_takes_its_page_along(ran: Path, tmp_path: Path) -> None:
    before = artifacts(Path("runs"))
    assert set(before) == {"eight s0", "eight s1", "lora s0", "lora s1", "summary"}
    there = tmp_path / "second _"
    (ran / "runs").rename(there)
    for _ in range(2):
        assert cli.main(["s.yaml", "--runs", str(there), "--report"]) == cli.DONE
        assert artifacts(there).keys() == before.keys()
    assert [str(path) for path in ran.rglob("*")] == [str(ran / "s.yaml")]
