"""A study of several tasks from its command to its page, elsewhere trained trials included."""

import json
import shutil
from pathlib import Path

import mlflow
import optuna
import pytest

from studies import published, trained
from studies.engine.command import cli, work
from studies.engine.errors import StudyError
from studies.engine.tracking import mlflow_client

pytestmark = pytest.mark.slow

STUDY = """\
question: Which?
backbone: {{name: {bert}}}
task: {{valid_rows: 40, test_rows: 40}}
tasks:
  - {{name: first, set: {{task.name: {csv}, task.train_rows: 64}}}}
  - {{name: second, metric: test/loss, set: {{task.name: {csv}, task.train_rows: 32}}}}
adapter: {{method: lora, r: 4, alpha: 8, target_modules: [query, value]}}
train: {{max_steps: 2, batch_size: 16}}
arms: [{{name: lora}}, {{name: wide, set: {{adapter.r: 8}}}}]
baseline: lora
objective: {{metric: valid/loss, direction: minimize, mixed: true}}
seeds: [0, 1]
keep: adapter
claims: [{{claim: differs, arm: wide, than: lora, expect: not_within, margin: 5}}]
"""


def test_from_the_command_to_the_page(
    tiny_bert: Path,
    tiny_csv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mlflow_database: Path,
    trained_here: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(mlflow_client.VARIABLE, raising=False)
    Path("runs").mkdir()
    shutil.copy(mlflow_database, "runs/mlflow.db")
    Path("s.yaml").write_text(STUDY.format(bert=tiny_bert, csv=tiny_csv))

    assert cli.main(["s.yaml", "--only", "task=first", "--slots", "1"]) == cli.DONE
    printed = capsys.readouterr().out
    assert "done     wide on first  seed 1  valid/loss" in printed and "second  seed" not in printed
    assert cli.main(["s.yaml", "--export-plan", "plan.json"]) == cli.DONE
    plan = json.loads(Path("plan.json").read_text())
    assert plan["metric_of"] == {"first": "valid/loss", "second": "test/loss"}
    assert {trial["task"] for trial in plan["trials"]} == {"second"} and len(plan["trials"]) == 4
    assert work.main(["plan.json", "--runs", "far", "--slots", "1"]) == work.DONE
    assert "s wide on second seed 1  test/loss" in capsys.readouterr().out
    assert cli.main(["s.yaml", "--import", "far"]) == cli.DONE
    printed = capsys.readouterr().out
    assert "4 results taken, 0 known already, 0 refused" in printed
    assert "test/mean, mean over 2 tasks, lower is better" in printed and "refuted" in printed
    assert cli.main(["s.yaml", "--report"]) == cli.DONE

    folder = Path("runs/s/embedded/report")
    report = json.loads((folder / "report.json").read_text())
    assert (folder / "tasks.png").is_file() and not report["failed"]
    lora = report["arms"][0]
    own = [report["tasks"][task]["arms"][0] for task in ("first", "second")]
    for seed in ("0", "1"):
        values = [each["seeds"][seed] for each in own]
        assert lora["seeds"][seed] == pytest.approx(sum(values) / 2)
    assert lora["keys"] == {} and len({key for each in own for key in each["keys"].values()}) == 4

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs/mlflow.db'}")
    found = mlflow.search_runs(experiment_names=["s (embedded)"], output_format="list")
    trials = [run for run in found if run.data.tags["kind"] == "trial"]
    assert sorted(run.data.tags["task"] for run in trials) == ["first"] * 4 + ["second"] * 4
    arms = {run.data.tags["arm"]: run for run in found if run.data.tags["kind"] == "arm"}
    assert arms.keys() == {"lora", "wide"}
    metrics = arms["lora"].data.metrics
    assert metrics["test/mean"] == pytest.approx(lora["summary"]["mean"], rel=1e-3)
    for task, metric in plan["metric_of"].items():
        want = next(a for a in report["tasks"][task]["arms"] if a["arm"] == "lora")
        assert metrics[f"{task}/{metric}"] == pytest.approx(want["summary"]["mean"], rel=1e-3)
    assert arms["lora"].data.params["task.train_rows"] == "64+32"

    storage = "sqlite:///runs/optuna.db"
    [name] = optuna.get_all_study_names(storage)  # it ends with the hash of the data file
    rows = optuna.load_study(study_name=name, storage=storage).trials
    assert {row.user_attrs["trial"]["task"] for row in rows} == {"first", "second"}
    assert len(rows) == 8 and {row.state.name for row in rows} == {"COMPLETE"}

    with pytest.raises(StudyError, match=r"several tasks: say which one. Tasks: first, "):
        trained.find("s", "lora", 0)
    keys = {trained.find("s", "lora", 0, task=task).name for task in ("first", "second")}
    assert keys == {each["keys"]["0"] for each in own}
    with pytest.raises(StudyError, match="no finished trial on the task 'third'"):
        trained.find("s", "lora", 0, task="third")


def test_tables_of_tasks_are_read_as_they_are_printed() -> None:
    glue = published.printed("table_2_glue", "RoBERTa-base")
    assert glue.columns[0] == "SST-2" and glue.rows["LR-LoRA-4"][-1] == 84.5
    assert published.printed("table_8_clip_vit_b32", None).rows["SUN397"] == (
        66.8,
        66.5,
        67.2,
        68.1,
    )
    commonsense = published.printed("table_6_commonsense", "Qwen2-0.5B/15k")
    assert "gain_over_lora" not in commonsense.rows and commonsense.note
    every = [*glue.rows.values(), *commonsense.rows.values()]
    assert all(len(row) in (len(glue.columns), len(commonsense.columns)) for row in every)
    with pytest.raises(ValueError, match="table_8_clip_vit_b32 has no parts, got 'a'"):
        published.printed("table_8_clip_vit_b32", "a")
