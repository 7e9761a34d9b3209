"""The tool that runs PEFT's tests: options, choice of rows, counts."""

import json
import os
import subprocess
import sys

import pytest

from tools.peft_tests.__main__ import report
from tools.peft_tests.substitute import LoraConfig, translate

SUITE = """
import pytest
from peft import IA3Config, LoraConfig
from peft.tuners import lora
from peft.tuners.lora.layer import ParamWrapper

CASES = [("MLP", LoraConfig, {"r": 2}), ("MLP", LoraConfig, {"use_dora": True}),
         ("MLP", IA3Config, {})]

@pytest.mark.parametrize("model_id, cls, options", CASES)
def test_row(model_id, cls, options):
    assert cls(**options).r == 2
    assert "adapters" in lora.LoraLayer.__module__ and "adapters" in ParamWrapper.__module__

class TestAlone:
    @pytest.fixture
    def config(self):
        return LoraConfig(r=4)

    def test_by_fixture(self, config):
        assert config.lora_alpha == 8

    @pytest.mark.parametrize("config", [LoraConfig(nothing=1)])
    def test_refused_in_its_row(self, config):
        pass

    def test_other(self):
        pass
"""
RUN = """
import json, pathlib, sys, pytest
from tools.peft_tests.plugin import Rows
folder = pathlib.Path(sys.argv[1])
for _ in range(2):
    file = folder / "out.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    pytest.main(["-p", "no:xdist", "-p", "no:cacheprovider", "-c", "/dev/null", str(folder)],
                plugins=[Rows("basis", known, file, False)])
"""


def test_translate_renames_and_keeps_loras_defaults():
    assert translate(
        {"r": 4, "lora_alpha": 16, "init_lora_weights": False, "bias": "lora_only"}
    ) == {
        "r": 4,
        "alpha": 16,
        "init_weights": False,
        "bias": "basis_only",
    }
    assert LoraConfig().lora_alpha == 8


@pytest.mark.parametrize("options", [{"use_dora": True}, {"init_lora_weights": "pissa"}])
def test_translate_leaves_out_what_is_loras_own(options):
    with pytest.raises(pytest.skip.Exception, match="LoRA's own"):
        translate(options)


def test_translate_refuses_unknown_options_by_their_name():
    with pytest.raises(TypeError, match="megatron_core"):
        LoraConfig(megatron_core="another")


@pytest.mark.thorough
def test_rows_are_chosen_substituted_and_recorded(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    (tmp_path / "tests" / "test_suite.py").write_text(SUITE, encoding="utf-8")
    outside = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=outside)
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["basis"]
    outcomes = {name.rpartition("::")[2]: row["outcome"] for name, row in rows.items()}
    assert outcomes == {
        "test_row[MLP-LoraConfig-options0]": "passed",
        "test_row[MLP-LoraConfig-options1]": "skipped",
        "test_by_fixture": "passed",
        "test_refused_in_its_row[config0]": "failed",
    }
    reasons = " ".join(row["reason"] for row in rows.values())
    assert "LoRA's own: use_dora" in reasons and "'nothing'" in reasons
    assert "6 deselected" in done.stdout  # the second run knows all four rows


def test_report_counts_what_lora_passes():
    def row(outcome, reason=""):
        return {"outcome": outcome, "reason": reason}

    names = ("passes", "fails", "names", "cannot", "own", "lacks")
    lora = {f"tests/test_a.py::{name}": row("passed") for name in names}
    lora["tests/test_a.py::no_baseline"] = row("failed")
    basis = {
        "tests/test_a.py::passes": row("passed"),
        "tests/test_a.py::fails": row("failed", "assert 1 == 2"),
        "tests/test_a.py::names": row("failed", "has no attribute 'lora_embedding_A'"),
        "tests/test_a.py::cannot": row("failed", "not compatible with the PeftMixedModel"),
        "tests/test_a.py::own": row("skipped", "Skipped: LoRA's own: use_dora"),
    }
    text, failed = report(lora, basis)
    assert failed == 1
    assert "| test_a.py | 6 | 5 | 1 | 1 | 1 | 1 | 0 | 1 |" in text
    assert "| names | LoRA's names and inner parts | 1 |" in text
    assert "| cannot hold | PEFT's list of methods for `PeftMixedModel` is closed | 1 |" in text
    assert "failed tests/test_a.py::fails: assert 1 == 2" in text
    assert "1 of 5 (the rows that count): 20.0 %" in text
    assert "1 of 4 (those, without names): 25.0 %" in text
