"""What the section `search` may say, and what is drawn from its space."""

from pathlib import Path

import fake_points
import pytest

from studies.engine.definition import search_rules
from studies.engine.definition.schema import load_study
from studies.engine.definition.sections import Range
from studies.engine.errors import StudyError
from studies.engine.searching import optuna_storage, search

STUDY = fake_points.STUDY
SPACE = {
    "a": ("x", None, 3),
    "b": Range("int", 4, 64, True),
    "c": Range("int", 1, 3, False),
    "d": Range("float", 1e-4, 1e-1, True),
    "e": Range("float", -1.0, 1.0, False),
}


def test_a_drawn_point_lies_in_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = fake_points.Lab.unchecked(tmp_path)
    storage = optuna_storage.Storage(lab.runs_dir)
    sampler = optuna_storage.Sampler(lab.study, lab.make, storage)
    monkeypatch.setattr(sampler, "_distributions", optuna_storage._distributions(SPACE))
    drawn = [sampler.draw() for _ in range(300)]
    assert all(search._contains(SPACE[k], v) for point in drawn for k, v in point.items())
    for path, domain in SPACE.items():
        seen = {repr(point[path]) for point in drawn}
        assert len(seen) == 3 if path in "ac" else len(seen) > 20, (path, domain)
    halves = [point["d"] < 10**-2.5 for point in drawn]
    assert 100 < sum(halves) < 200  # log: as many below the geometric mean as above
    assert search_rules.size(SPACE) == float("inf")
    assert search_rules.size({"a": SPACE["a"], "b": SPACE["b"]}) == 3 * 61


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{metric: valid/accuracy}",
            "{metric: test/accuracy}",
            "choices are made on validation, never on test",
        ),
        (
            "{metric: valid/accuracy}",
            "{metric: cost/step_seconds}",
            "the first objective is one of valid/",
        ),
        ("trainable_parameters", "trainable", "Did you mean 'cost/trainable_parameters'"),
        ("{metric: valid/accuracy}", "{metric: valid/loss}", "is to minimize, got maximize"),
        ("arm: phi", "arm: phy", "Did you mean 'phi'?"),
        ("seed: 100", "seed: 1", "1 is one of `seeds`"),
        ("sine, hat", "sine, hatt", "s.yaml:15: search.space.adapter.basis: 'hatt'"),
        ("adapter.num_basis", "adapter.num_bases", "Did you mean 'num_basis'"),
        ("train.learning_rate:", "train.learning_rat:", "Did you mean 'learning_rate'?"),
        ("train.learning_rate:", "task.train_rows:", "expected a setting of `train`"),
        (
            "{int: [4, 64], log: true}",
            "{int: [4, 64, 8]}",
            "search.space.adapter.num_basis: expect",
        ),
        ("{int: [4, 64], log: true}", "{int: [0, 64], log: true}", "both above 0 with log"),
        ("{int: [4, 64], log: true}", "{int: [64, 4]}", "expected low < high"),
        ("{int: [4, 64], log: true}", "[[4], [8]]", "expected different single values"),
        ("[1.0e-4, 1.0e-1]", "[-1.0, 1.0]", "both above 0"),
        ("startup: 3", "start_up: 3", "Did you mean 'startup'?"),
        ("train: {eval_every: 10}\nsearch:", "search:\n  pruning: {points: 3}", "set train.eval_e"),
        ("search:\n", "tune: {train.weight_decay: [0.0, 0.1], seeds: [5]}\nsearch:\n", "tunes or"),
        ("{float: [1.0e-4, 1.0e-1], log: true}", "[1.0e-3]\n    adapter.r: [8]", "trials"),
    ],
)
def test_a_search_that_means_nothing_is_refused(tmp_path: Path, old, new, message) -> None:
    path = tmp_path / "s.yaml"
    assert old in STUDY
    text = STUDY.replace(old, new)
    if message == "trials":
        text = text.replace("{int: [4, 64], log: true}", "[4, 8]")
        message = "search.trials: the space has only 6 points"
    path.write_text(text)
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert message in str(caught.value)
