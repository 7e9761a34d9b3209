"""Keys of trials, written down: a key that changed makes every finished trial run again."""

import json
from pathlib import Path
from typing import Any

import pytest

from studies import backbones
from studies.engine.definition import schema
from studies.engine.planning.plan import plan, plan_tuning
from studies.engine.records import Trial
from tools import results_index

SHIPPED = schema.PROFILES.parent

FIRST_AND_LAST = {
    ("grid_size", "embedded"): ("39467c5811e67808", "8c3123b91b5e3f9f"),
    ("grid_size", "paper_glue"): ("5cee2ff372dc3946", "b8cacebd03996f6b"),
    ("methods", "smollm2"): ("e757bfb300539f44", "bffe06f00e292f0f"),
    ("sharing", "paper_vision"): ("bf545de6bc37960e", "5a6dbe7f7ad68564"),
    ("model_scale", "gpu"): ("9828e2bb0ca070af", "f5df4efb59b52072"),
    ("learned_phi_search", "embedded"): ("46d0ca6ea3026403", "a738f1a9ccd47ed4"),
    ("para", "paper"): ("f0e0dbc4d825c76a", "2273e1c3e9daa0cb"),
}

COLUMNS = """\
name: columns
question: Does it read columns?
backbone: {name: smollm2_135m, dtype: float32, gradient_checkpointing: true, attention: null}
task:
  name: ./rows.csv
  text: [question]
  label: answer
  template: "Q: {question}"
  choices: [one, two]
  max_length: 128
  evaluate: loglikelihood
  augment: false
  valid_rows: null
adapter: {method: lora, r: 4, target_modules: [q_proj]}
sweep:
  task.train_rows: [10, 20]
  backbone.dtype: [bfloat16]
  train.epochs: [1]
arms:
  - {name: base, set: {task.max_length: null, train.max_grad_norm: null}}
  - {name: other, set: {backbone: minilm, task: {name: ./rows.csv, text: question, label: answer}}}
baseline: base
objective: {metric: test/accuracy}
seeds: [7]
train: {schedule: cosine, checkpoint_minutes: null}
"""


def ends(trials: list[Trial]) -> tuple[str, str]:
    return trials[0].key, trials[-1].key


@pytest.mark.parametrize(("name", "profile"), FIRST_AND_LAST)
def test_keys_of_shipped_studies(name: str, profile: str) -> None:
    trials = plan(schema.load_study(SHIPPED / f"{name}.yaml", profile))
    assert ends(trials) == FIRST_AND_LAST[name, profile]


REPORTS = sorted(results_index.RESULTS.glob("*/*/report.json"))


@pytest.mark.parametrize("file", REPORTS, ids=lambda file: "-".join(file.parts[-3:-1]))
def test_committed_results_are_still_those_of_their_studies(file: Path) -> None:
    """Arms may be added and renamed; where a study tunes, the report alone knows the choice."""
    report, (name, profile) = json.loads(file.read_text()), file.parts[-3:-1]
    study = schema.load_study(SHIPPED / f"{name}.yaml", profile)
    arms = [arm for arm in report["arms"] if not report["tuning"] and not report["search"]]
    done = {key for arm in arms for key in arm["keys"].values()}
    assert done <= {trial.key for trial in plan(study)}


def test_keys_of_the_tuning_stage() -> None:
    study = schema.load_study(SHIPPED / "methods.yaml", "smollm2")
    assert ends(plan_tuning(study)) == ("8cd4e291a55ba3c9", "549e90d25a99382c")


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arms are about keys, some would fit no model."""
    monkeypatch.setattr(backbones, "config_file", lambda spec: None)


def test_keys_of_a_task_with_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("question,answer,one,two\nq,a,a,b\n")
    Path("columns.yaml").write_text(COLUMNS)
    trials = plan(schema.load_study("columns.yaml"))
    assert {trial.arm: trial.key for trial in trials} == {
        "train_rows=10 dtype=bfloat16 epochs=1": "00efac5a04c4bb75",
        "train_rows=20 dtype=bfloat16 epochs=1": "de2f23440f94095d",
        "base": "50feaa213acbf537",
        "other": "bd2025fc4136ac59",
    }
    # what an earlier version wrote, which noted no contents, keeps its key
    before = [trial.model_copy(update={"contents": {}}).key for trial in trials[2:]]
    assert before == ["6427084e1ae49e1f", "36799f4d6879f75a"]


def test_a_configuration_holds_what_was_given_and_all_of_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("question,answer,one,two\nq,a,a,b\n")
    Path("columns.yaml").write_text(COLUMNS)
    config: dict[str, Any] = plan(schema.load_study("columns.yaml"))[-2].config
    assert config["backbone"] == {
        "name": "smollm2_135m", "dtype": "float32", "gradient_checkpointing": True
    }  # fmt: skip
    assert "max_length" not in config["task"] and config["task"]["augment"] is False
    assert config["train"]["max_grad_norm"] is None and config["train"]["max_steps"] is None
