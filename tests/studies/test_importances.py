"""What a search's settings decide, from its finished points."""

from pathlib import Path

import fake_points
import pytest
import yaml

from studies.engine.definition.sections import Search
from studies.engine.searching import optuna_storage


def test_importances_find_what_decides(tmp_path: Path) -> None:
    spec = load_spec()
    points = drawn(tmp_path, 60)
    values = [(-abs(p["train.learning_rate"] - 0.03), p["adapter.num_basis"]) for p in points]
    accuracy, parameters = optuna_storage.importances(spec, list(zip(points, values, strict=True)))
    assert set(accuracy) == set(parameters) == set(spec.space)
    assert sum(accuracy.values()) == pytest.approx(1)
    assert max(accuracy, key=accuracy.get) == "train.learning_rate"
    assert max(parameters, key=parameters.get) == "adapter.num_basis"


def test_settings_that_decide_nothing_have_no_importance(tmp_path: Path) -> None:
    spec = load_spec()
    points = drawn(tmp_path, 12)
    found = [(point, (0.52, point["adapter.num_basis"])) for point in points]  # all at chance
    accuracy, parameters = optuna_storage.importances(spec, found)
    assert accuracy == {} and sum(parameters.values()) == pytest.approx(1)


def drawn(folder: Path, count: int) -> list[dict]:
    lab = fake_points.Lab.unchecked(folder)
    sampler = optuna_storage.Sampler(lab.study, lab.make, optuna_storage.Storage(lab.runs_dir))
    return [sampler.draw() for _ in range(count)]


def load_spec() -> Search:
    return Search.model_validate(yaml.safe_load(fake_points.STUDY)["search"])
