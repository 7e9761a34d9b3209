"""The page of methods is the registry's, and every method is described."""

from pathlib import Path

import pytest

import adapters
from tools.methods_page import defaults, page

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run python -m tools.methods_page docs/methods.md to make the page again"
    )


@pytest.mark.parametrize("name", adapters.list_methods())
def test_every_method_is_described(name):
    method = adapters.get_method(name)
    assert method.formula, name
    assert method.source or name in ("full", "head_only")
    assert "|" not in method.formula + method.source


def test_defaults_are_under_our_names():
    assert defaults(adapters.get_method("lora")) == {"alpha": 8, "r": 8}
    assert defaults(adapters.get_method("adalora"))["init_r"] == 12
    assert defaults(adapters.get_method("sine_lora"))["frequency"] == 200.0
    assert defaults(adapters.get_method("full")) == {}
