"""Every registered method as the arm of a real trial of a tiny model."""

from pathlib import Path

import pytest

import adapters
from studies.engine.records import Trial
from studies.engine.trials.trial import run_trial

OPTIONS = {"aurora": {"alpha": 8}, "vera": {"r": 16}, "fourierft": {"n_frequency": 64}}


@pytest.mark.parametrize("method", adapters.list_methods())
def test_a_trial_of_every_method_is_done(
    method: str, tiny_bert: Path, tiny_csv: Path, tmp_path: Path
) -> None:
    common = {"method": method, "r": 4, "alpha": 8, "target_modules": ["query", "value"]}
    config = {
        "backbone": {"name": str(tiny_bert)},
        "task": {"name": str(tiny_csv), "train_rows": 64, "valid_rows": 40, "test_rows": 40},
        "adapter": {**common, **OPTIONS.get(method, {})},
        "train": {"max_steps": 10, "batch_size": 16, "epochs": 5, "learning_rate": 0.01},
        "split_seed": 0,
    }
    trial = Trial(study="s", profile="p", arm=method, seed=0, config=config)
    result = run_trial(trial, tmp_path)
    assert result.status == "done", result.failure
    assert result.metrics["test/accuracy"] >= 0
    adapted = adapters.get_method(method).config is not None or method in ("bitfit", "full")
    assert (result.cost.trainable_parameters > 66) == adapted
