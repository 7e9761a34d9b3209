"""Arms are held to the model and the rows that are at hand before anything is trained."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from studies import backbones
from studies.engine.command import cli
from studies.engine.definition import checks
from studies.engine.definition.schema import load_study
from studies.engine.errors import StudyError

LINE = {"backbone": 2, "adapter": 4, "arms": 5}


@pytest.fixture
def load(tmp_path: Path, tiny_bert: Path, tiny_csv: Path):
    """Reads a study about the tiny model; its sections come one a line, in this order."""

    def of(adapter: dict = {}, arms: list = [], **sections: object):  # noqa: B006
        study = {
            "question": "Which?",
            "backbone": str(tiny_bert),
            "task": {"name": str(tiny_csv), "train_rows": 128, "valid_rows": 60, "test_rows": 90},
            "adapter": {"method": "basis", "num_basis": 8, **adapter},
            "arms": [{"name": "lora", "adapter": {"method": "lora"}}, *arms],
            "baseline": "lora",
            "objective": {"metric": "test/accuracy"},
        } | sections
        lines = [
            f"{key}: {yaml.safe_dump(value, default_flow_style=True, width=9999).strip()}"
            for key, value in study.items()
        ]
        (tmp_path / "s.yaml").write_text("\n".join(line.removesuffix("\n...") for line in lines))
        return load_study(tmp_path / "s.yaml")

    return of


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"target_modules": ["query", "valeu"]}, "`target_modules` 'valeu' matches no layer"),
        ({"layers_to_transform": [0, 7]}, "adapter.layers_to_transform: "),
        ({"modules_to_save": ["clasifier"]}, "adapter.modules_to_save: "),
        ({"rank_pattern": {"querry": 2}}, "'querry' matches no adapted layer"),
    ],
)  # fmt: skip
def test_names_that_match_nothing_are_refused_where_they_stand(load, arm, message) -> None:
    with pytest.raises(StudyError) as caught:
        load(arms=[{"name": "other", "adapter": {"method": "lora", **arm}}])
    (problem,) = caught.value.problems
    assert message in problem and f"s.yaml:{LINE['arms']}: adapter." in problem


def test_arms_that_differ_in_numbers_alone_are_asked_once(load, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(checks, "check_modules", lambda *given: asked.append(given[2]))
    load(sweep={"adapter.num_basis": [8, 16], "adapter.basis": ["sinc", "hat"]})
    assert len(asked) == 3  # each family, and lora


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "qasc"}, "backbone: {} is an encoder (bert), and this task needs a decoder"),
        ("cifar10", "backbone: {} reads text (bert), and this task needs a vision model"),
    ],
)
def test_a_backbone_that_does_not_fit_its_task_is_refused(load, tiny_bert, task, message) -> None:
    with pytest.raises(StudyError) as caught:
        load(task=task)
    (problem,) = caught.value.problems
    assert message.format(tiny_bert) in problem and f"s.yaml:{LINE['backbone']}: " in problem


def test_more_rows_than_a_shipped_task_has_are_refused(load) -> None:
    with pytest.raises(StudyError, match=r"qasc has 6,500 rows, but train_rows 6,000, valid_rows"):
        load(task={"name": "qasc", "train_rows": 6000})


def test_what_is_not_at_hand_is_checked_once_it_is_fetched(
    tmp_path: Path, tiny_bert: Path, tiny_csv: Path, load, monkeypatch, capsys
) -> None:
    there = tmp_path / "elsewhere"
    monkeypatch.setattr(
        backbones, "config_file", lambda spec: there / "config.json" if there.exists() else None
    )
    study = load(adapter={"target_modules": "valeu"}).path
    monkeypatch.chdir(tmp_path)
    assert cli.main([str(study), "--plan"]) == cli.DONE, capsys.readouterr().err
    assert "is not on this machine yet: whether it fits its task" in capsys.readouterr().err

    def fetch(spec: object) -> None:
        there.symlink_to(tiny_bert)

    room = SimpleNamespace(fetch=fetch)
    monkeypatch.setattr("studies.engine.trials.fetching.backbones", room)
    assert cli.main([str(study)]) == cli.BAD_INPUT
    assert "'valeu' matches no layer" in capsys.readouterr().err
    assert not list(Path("runs").rglob("trial.json"))


def test_texts_longer_than_the_positions_of_a_backbone_are_refused(load, tiny_csv) -> None:
    rows = {"name": str(tiny_csv), "train_rows": 128, "valid_rows": 60, "test_rows": 90}
    with pytest.raises(StudyError) as caught:
        load(task={**rows, "max_length": 129})
    (problem,) = caught.value.problems
    assert "has 128 positions" in problem and "set task.max_length: 128" in problem
    load(task={**rows, "max_length": 128})


def test_positions_that_begin_after_the_padding_are_fewer(tmp_path: Path) -> None:
    config = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    for name, content in (("roberta", config), ("llama", config | {"model_type": "llama"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(content))
    backbones.check_length(str(tmp_path / "roberta"), 512)
    with pytest.raises(ValueError, match="has 512 positions, fewer than the 513 tokens"):
        backbones.check_length(str(tmp_path / "roberta"), 513)
    backbones.check_length(str(tmp_path / "llama"), 4096)  # turns vectors instead
