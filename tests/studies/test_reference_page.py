"""The page of keys is the models', every key is described, and its examples are valid."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from adapters import AdapterSection, get_method
from basis_zoo.registry import SYNONYMS
from studies.backbones import BackboneSpec
from studies.engine.definition.schema import load_study
from studies.engine.definition.seeds_rules import UntilDecided
from studies.engine.definition.study import ClaimRule, StudyBody
from studies.engine.definition.train import Train
from studies.sections import model_in
from studies.tasks import TaskSpec
from tools import study_reference as reference

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"


def fields(model: type[BaseModel], path: str) -> list[Any]:
    """Every key of `model` and of the models below it."""
    found = []
    for name, info in model.model_fields.items():
        found.append(pytest.param(info, id=f"{path}{name}"))
        inner = model_in(info.annotation)
        found += fields(inner, f"{path}{name}.") if inner is not None else []
    return found


KEYS = [*fields(StudyBody, ""), *fields(AdapterSection, "adapter.")]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference.page(), (
        "run python -m tools.study_reference docs/reference.md to make it again"
    )


@pytest.mark.parametrize("info", KEYS)
def test_every_key_is_described_with_a_valid_example(info: FieldInfo) -> None:
    assert info.description, "give the field a docstring"
    if model_in(info.annotation) is not None or info.annotation == dict[str, Any]:
        return
    assert reference.example_of(info) is not None, "give the field examples"
    kind = TypeAdapter(info.rebuild_annotation())
    for example in info.examples or [reference.example_of(info)]:
        kind.validate_python(example)


LEFT_OUT = [
    ("search", "match", "tasks"), ("tune", "match", "tasks"), ("tune", "search", "tasks"),
    ("search", "match", "task", "published"),
]  # fmt: skip


@pytest.mark.parametrize("left_out", LEFT_OUT)
@pytest.mark.parametrize("profile", ["embedded", "gpu"])
def test_the_example_is_a_study(left_out: tuple[str, ...], profile: str, tmp_path: Path) -> None:
    study = yaml.safe_load(reference.EXAMPLE)
    for key in left_out:
        del study[key]
    path = tmp_path / "example.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    assert len(load_study(path, profile).seeds) == {"embedded": 3, "gpu": 5}[profile]


def test_the_example_has_every_section() -> None:
    assert set(reference.examples()) == {*StudyBody.model_fields, "profiles"}


def test_synonyms_stand_for_keys_that_there_are() -> None:
    models = (AdapterSection, BackboneSpec, TaskSpec, Train, StudyBody, ClaimRule, UntilDecided)
    keys = {key for model in models for key in model.model_fields}
    assert set(SYNONYMS) <= {*keys, *get_method("basis").options()}
    words = [word for others in SYNONYMS.values() for word in others.split()]
    assert len(words) == len(set(words))


def test_words_of_types() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "| `train_rows` | whole number ≥ 1 or null | `null` | `train_rows: 2000` |" in page
    assert "| `seeds` | list of whole numbers ≥ 0, < 2³² or mapping | required |" in page
    assert "| `sweep` | mapping of settings to lists of values | `{}` |" in page
