"""The page on forms: its tables, its lines of YAML and Python, and its figure."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import get_peft_model
from transformers import Qwen2Config, Qwen2Model

from adapters import BasisConfig, check_options
from adapters.basis.layers import BasisLayer
from adapters.forms import get_form, list_forms
from tools import forms_figure
from tools.figures import LARGEST

DOCS = Path(__file__).parents[2] / "docs"
FIGURE = DOCS / "forms.png"
PAGE = (DOCS / "forms.md").read_text(encoding="utf-8")
SHIPPED = [n for n in list_forms() if type(get_form(n)).__module__.startswith("adapters.")]
ROWS = re.findall(r"^\| \[`(\w+)`\](.*)\|$", PAGE, re.MULTILINE)
LINES = re.findall(r"^`adapter: (\{.*\})`,\s`BasisConfig\((.*)\)`$", PAGE, re.MULTILINE)
COUNTS = re.findall(r"^\| `(head|column|row)` \|.*\| ([\d,]+) \| ([\d,]+) \|$", PAGE, re.MULTILINE)


def test_every_form_that_ships_is_in_the_table_in_a_section_and_drawn() -> None:
    assert sorted(forms_figure.FORMS) == sorted(name for name, _ in ROWS) == SHIPPED
    assert len(LINES) == len(SHIPPED)


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_the_table_says_which_updates_are_merged_and_their_rank(name: str, row: str) -> None:
    rank, merged, exported = (cell.strip(" *") for cell in row.split(" | ")[2:5])
    assert get_form(name).mergeable == (merged == exported.partition(",")[0] == "yes")
    assert get_form(name).largest_rank(3, (24, 16)) == (3 if rank.startswith("r") else 16)
    assert rank.startswith("r") or rank == "min(out, in)"


@pytest.mark.parametrize(("in_yaml", "in_python"), LINES)
def test_both_lines_of_a_form_say_the_same_and_can_be_used(in_yaml: str, in_python: str) -> None:
    options: dict[str, Any] = yaml.safe_load(in_yaml)
    check_options(options)
    call = ast.parse(f"f({in_python})", mode="eval").body
    assert isinstance(call, ast.Call)
    given = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    assert options == {"method": "basis", **given}


@pytest.mark.parametrize(("scope", "eight", "fifty"), COUNTS)
def test_as_many_numbers_of_phi_as_the_page_says(scope: str, eight: str, fifty: str) -> None:
    shape = Qwen2Config(
        vocab_size=2, hidden_size=896, intermediate_size=2, num_hidden_layers=1,
        num_attention_heads=14, num_key_value_heads=2,
    )  # fmt: skip
    base = Qwen2Model(shape)
    for functions, want in ((8, eight), (50, fifty)):
        config = BasisConfig(
            r=16, num_basis=functions, target_modules=["q_proj"], sharing="all", sharing_scope=scope
        )
        model = get_peft_model(base, config)
        (layer,) = (m for m in model.modules() if isinstance(m, BasisLayer))
        phi = sum(p.numel() for p in layer.basis_phi["default"].parameters())
        assert (phi, layer.basis_A["default"].numel() * 2) == (int(want.replace(",", "")), 28_672)
        base = model.unload()


def test_the_page_counts_the_scopes_within_a_module() -> None:
    assert [scope for scope, *_ in COUNTS] == ["head", "column", "row"]


@pytest.mark.parametrize("name", forms_figure.FORMS)
def test_an_update_has_the_rank_that_its_form_can_have(name: str) -> None:
    update = forms_figure.picture(name).update
    side = forms_figure.SIZE
    largest = get_form(name).largest_rank(forms_figure.RANK, (side, side))
    assert torch.linalg.matrix_rank(update, rtol=1e-6) == largest


def test_lora_has_the_rank_of_its_factors() -> None:
    assert torch.linalg.matrix_rank(forms_figure.lora().update) == forms_figure.RANK


def test_the_figure_is_drawn_and_the_committed_one_is_small(tmp_path: Path) -> None:
    forms_figure.figure().savefig(tmp_path / "forms.png")
    assert 0 < FIGURE.stat().st_size <= LARGEST
