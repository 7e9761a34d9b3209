"""The page of options is the class's, and every example on it can be used."""

import ast
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import PeftConfig

from adapters import BasisConfig, check_options
from tools import config_reference as reference

PAGE = Path(__file__).parents[2] / "docs" / "config.md"
EXAMPLES = list(reference.examples())


@pytest.mark.slow
def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference.page(), (
        "run python -m tools.config_reference docs/config.md to make it again"
    )


def test_an_option_without_a_section_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "SECTIONS", {"Rank": {"r": 16}})
    with pytest.raises(ValueError, match=r"give alpha, .* a section and an example"):
        reference.page()


@pytest.mark.parametrize(("name", "options"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_an_example_is_another_value_and_can_be_used(name: str, options: dict[str, Any]) -> None:
    check_options({"method": "basis", **options})
    assert getattr(BasisConfig(**options), name) != getattr(BasisConfig(), name)


def test_both_forms_of_an_example_say_the_same() -> None:
    rows = re.findall(r"`([^`]+)`<br>`([^`]+)` \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    own = len(dataclasses.fields(BasisConfig)) - len(dataclasses.fields(PeftConfig))
    assert len(rows) == own - 1  # all but `schema_version`
    for in_yaml, in_python in rows:
        call = ast.parse(f"f({in_python})", mode="eval").body
        given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        assert yaml.safe_load(f"{{{in_yaml}}}") == given


def test_options_of_the_parts_are_told() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "| `basis: matern` | `nu` | `float` | `2.5` |" in page
    assert "| `form: sum` | `families` |" in page
    assert "| `input_scale` | `momentum` | `float \\| None` | `None` |" in page
