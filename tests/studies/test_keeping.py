"""`keep: adapter`: what a trial has trained is kept, and is the trained model when loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

import adapters
from studies import tasks
from studies.engine.errors import StudyError
from studies.engine.records import ADAPTER, Trial
from studies.engine.trials import keeping
from studies.engine.trials.trial import run_trial
from studies.tasks.kinds.prepared import Prepared

OPTIONS = {
    "aurora": {"alpha": 8},
    "vera": {"r": 16},
    "fourierft": {"n_frequency": 64},
    "adalora": {"tinit": 1, "tfinal": 2},
    "elalora": {"interval": 1, "initial_steps": 1, "final_steps": 1},
}
TRAIN = {"max_steps": 6, "learning_rate": 0.02, "warmup_ratio": 0.0, "schedule": "constant"}


@pytest.fixture
def trial_of(make: Any) -> Any:
    """A trial of a method that keeps its adapter."""

    def build(method: str, **sections: Any) -> Trial:
        adapter = {"method": method, **OPTIONS.get(method, {})}
        trial = make(adapter=adapter, train=TRAIN, **sections)
        return trial.model_copy(update={"keep": "adapter"})

    return build


def measured(trial: Trial, folder: Path) -> dict[str, float]:
    """What the loaded model finds on validation and test."""
    model, processor = keeping.load(folder)
    data = tasks.load(trial.config["task"], 0)
    prepared: Prepared = tasks.prepare(trial.config["task"], data, processor)
    return {
        f"{split}/{metric}": value
        for split in ("valid", "test")
        for metric, value in prepared.evaluate(model, split, 64, None).items()
    }


@pytest.mark.parametrize("method", adapters.list_methods())
def test_the_loaded_model_finds_what_the_trained_one_found(
    method: str, trial_of: Any, tmp_path: Path
) -> None:
    trial = trial_of(method)
    result = run_trial(trial, tmp_path)
    assert result.status == "done", result.failure
    found = measured(trial, tmp_path)
    assert found == {name: result.metrics[name] for name in found} and len(found) >= 4
    before, after = (tmp_path / name for name in ("metrics.jsonl", ADAPTER))
    assert before.is_file() and not (tmp_path / f".{ADAPTER}").exists()
    names = {path.name for path in after.iterdir()}
    peft = {"adapter_config.json", keeping.WEIGHTS, "README.md"}
    has_config = adapters.get_method(method).config is not None
    assert names == {"trained.json", *(peft if has_config else {keeping.PLAIN})}
