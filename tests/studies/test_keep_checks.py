"""A study that keeps adapters: what is said of the disk, what is lacking, and what is found."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from studies import trained
from studies.engine.command import cli, keep_checks
from studies.engine.definition.schema import load_study
from studies.engine.errors import StudyError
from studies.engine.planning import runs
from studies.engine.planning.plan import plan, plan_tuning
from studies.engine.records import ADAPTER, Result, Trial, write_record
from studies.engine.tracking import mlflow_client
from studies.engine.trials import devices
from studies.engine.trials.size import expected_bytes
from studies.trained.__main__ import main

STUDY = """\
name: s
question: Which?
backbone: {{name: {bert}}}
task: {{name: {csv}, train_rows: 64, valid_rows: 40, test_rows: 40}}
adapter: {{method: basis, r: 4, alpha: 8, target_modules: [query, value], basis: sinc}}
train: {{max_steps: 4, batch_size: 16, eval_every: 1, keep: best}}
arms:
  - {{name: lora, adapter: {{method: lora}}}}
  - {{name: bare, adapter: {{method: full}}}}
baseline: lora
objective: {{metric: test/accuracy, select_on: valid/{select_on}}}
seeds: [0, 1]
"""
DOCS = Path(trained.__file__).parents[2] / "docs" / "studies.md"
LORA, FULL = 4360, 92936
"""Bytes of the tiny BERT's adapter, and of all of it."""


@pytest.fixture
def write(
    tiny_bert: Path, tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[Trial]]:
    """Writes the study with more lines; its trials."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    monkeypatch.delenv(mlflow_client.VARIABLE, raising=False)

    def of(more: str = "", select_on: str = "loss") -> list[Trial]:
        text = STUDY.format(bert=tiny_bert, csv=tiny_csv, select_on=select_on)
        Path("s.yaml").write_text(text + more)
        return plan(load_study("s.yaml"))

    return of


def said_of_room(trials: list[Trial]) -> list[str]:
    return keep_checks.room(load_study("s.yaml"), trials, Path("runs"))


def finish(trial: Trial, size: int | None = None) -> Path:
    """Make `trial` look done, with an adapter of `size` bytes."""
    folder = runs.trial_dir(trial, Path("runs"))
    write_record(folder / "trial.json", trial)
    metrics = {"test/accuracy": 0.5}
    write_record(folder / "result.json", Result(key=trial.key, status="done", metrics=metrics))
    if size is not None:
        (folder / ADAPTER).mkdir()
        (folder / ADAPTER / "trained.json").write_bytes(b"x" * size)
    return folder


def test_the_plan_says_what_will_be_kept(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert said_of_room(write()) == []
    trials = write("keep: adapter\n")
    assert {trial.keep for trial in trials} == {("adapter",)}
    assert [t.key for t in trials] == [t.key for t in write()]
    line = said_of_room(write("keep: adapter\n"))[0]
    total = 2 * (LORA + FULL) / 1024
    assert line.startswith(f"keep: 4 trials keep about 4.26 KiB to 90.8 KiB each, {total:.3g} KiB")
    assert (
        said_of_room(write("keep: mlflow\n"))[0].count(f"{2 * total:.3g} KiB in all, in the") == 1
    )
    assert cli.main(["s.yaml", "--plan"]) == cli.DONE
    assert "keep: 4 trials keep about" in capsys.readouterr().err and not Path("runs").exists()


def test_what_was_kept_tells_more_than_what_is_expected(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = write("keep: adapter\n")
    monkeypatch.setattr(keep_checks, "expected_bytes", lambda trial: None)
    assert "known once the first has ended" in said_of_room(trials)[0]
    finish(trials[0], 10 * 1024)
    assert said_of_room(trials)[0].startswith("keep: 3 trials keep about 10 KiB each, 30 KiB in")
    for trial in trials[1:]:
        finish(trial, 1)
    assert said_of_room(trials) == []


def test_a_disk_without_room_is_refused_before_anything_is_trained(
    write: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("keep: adapter\n")
    free = keep_checks.MIN_FREE_BYTES + 100_000
    monkeypatch.setattr(keep_checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    for arguments in (["s.yaml", "--plan"], ["s.yaml"]):
        assert cli.main(arguments) == cli.BAD_INPUT
        told = capsys.readouterr().err
        assert "s.yaml:13: keep: 4 trials keep about" in told and "remove `keep`" in told
    assert not list(Path("runs").rglob("trial.json"))


def test_only_the_seeds_keep_and_the_stage_before_them_is_told(
    write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write("keep: adapter\ntune: {train.learning_rate: [1e-3, 2e-3], seeds: [7]}\n", "accuracy")
    assert {trial.keep for trial in plan_tuning(load_study("s.yaml"))} == {()}
    assert cli.main(["s.yaml", "--plan"]) == cli.DONE
    assert "keep: 4 trials keep about" in capsys.readouterr().err


def test_finished_trials_without_an_adapter_are_told_with_the_remedy(write: Any) -> None:
    before = write()
    folders = [finish(trial) for trial in before[:3]]
    assert keep_checks.lacking(write(), Path("runs")) == []
    trials = write("keep: adapter\n")
    (line,) = keep_checks.lacking(trials, Path("runs"))
    assert (
        line.startswith("keep: 3 of 3 finished trials have no adapter") and "(lora, bare)" in line
    )
    assert all(folder.name in line for folder in folders)
    shutil.rmtree(folders[0])
    finish(before[0], 10)
    assert "2 of 3 finished trials" in keep_checks.lacking(trials, Path("runs"))[0]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("nobody", 0, {}), "no finished arm is called 'nobody'.*Finished: bare, lora"),
        (("lora", 9, {}), "'lora' has no finished trial with seed 9. Finished seeds: 0, 1"),
        (("lora", 0, {"key": "abc"}), "no finished trial with seed 0 and key abc"),
        (("lora", 1, {}), "kept no adapter: put `keep: adapter` into the study, remove runs"),
        (("bare", 0, {}), "was trained with several settings.*say which by its key"),
        (("lora", 0, {"profile": "gpu"}), "gpu/trials: no finished trial: run the study"),
    ],
)
def test_what_cannot_be_found_is_said(
    write: Any, asked: tuple[str, int, dict[str, Any]], message: str
) -> None:
    lora_0, bare_0, lora_1, _ = write("keep: adapter\n")
    for trial in (lora_0, bare_0):
        finish(trial, 10)
    finish(lora_1)
    other = bare_0.model_copy(update={"config": bare_0.config | {"split_seed": 1}})
    finish(other, 10)
    assert trained.find("s", "lora", 0) == runs.trial_dir(lora_0, Path("runs"))
    assert trained.find("s", "bare", 0, key=other.key).name == other.key
    arm, seed, more = asked
    with pytest.raises(StudyError, match=message):
        trained.find("s", arm, seed, **more)


@pytest.mark.slow
@pytest.mark.usefixtures("trained_here", "without_figures")
def test_a_study_keeps_its_adapters_in_folders_and_in_mlflow(
    write: Any, mlflow_database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("runs").mkdir()
    shutil.copy(mlflow_database, "runs/mlflow.db")
    first = write()[0]
    assert cli.main(["s.yaml", "--only", "seed=0", "--only", "arm=lora"]) == cli.DONE
    assert not (runs.trial_dir(first, Path("runs")) / ADAPTER).exists()
    write("keep: mlflow\n")
    capsys.readouterr()
    assert cli.main(["s.yaml", "--only", "seed=0"]) == cli.DONE
    assert "1 of 1 finished trials have no adapter" in capsys.readouterr().err
    shutil.rmtree(runs.trial_dir(first, Path("runs")))
    assert cli.main(["s.yaml", "--only", "seed=0"]) == cli.DONE
    printed = capsys.readouterr()
    assert "no adapter" not in printed.err and "done     lora  seed 0" in printed.out
    artifacts = sorted(path.parent.name for path in Path("runs/mlartifacts").rglob("trained.json"))
    assert artifacts == [ADAPTER, ADAPTER]

    assert main(["s", "lora", "0", "--to", "mine"]) == 0
    assert main(["s", "lora", "0", "--to", "mine"]) == 2
    assert "mine is there already: name a new folder" in capsys.readouterr().err
    (shown,) = re.findall(r"```python\n(from adapters.export.*?)```", DOCS.read_text(), re.DOTALL)
    exec(shown.replace("grid_size", "s"), found := {})
    assert found["export"].parameters > 0
    model, tokenizer = trained.load("mine")
    assert set(model.peft_config) == {"default"} and tokenizer.pad_token
    assert main(["s", "bare", "0"]) == 0
    there = Path(capsys.readouterr().out.strip())
    assert there.name == ADAPTER and not hasattr(trained.load(there)[0], "peft_config")
    result = runs.result_of(first, Path("runs"))
    assert result is not None and result.kept is not None


@pytest.mark.parametrize("backbone", ["minilm", "nobody/has-this"])
def test_the_size_is_not_known_before_the_backbone_is_on_this_machine(
    backbone: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BASIS_ZOO_CACHE", str(tmp_path))
    adapter = {"method": "lora", "r": 4, "target_modules": "attention"}
    config = {
        "backbone": {"name": backbone}, "task": {"name": "movie_sentences"}, "adapter": adapter
    }  # fmt: skip
    assert expected_bytes(Trial(study="s", profile="p", arm="a", seed=0, config=config)) is None
