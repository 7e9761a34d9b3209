"""The tables of other shapes were read rightly: their sums, means and ratios are the printed ones.

A misread digit breaks them; where the paper's own figures do not add up, the test says by how much.
"""

from itertools import chain

import pytest

from studies import published

TABLES = published.other_tables()
COMMONSENSE = {k: v for k, v in TABLES["table_6_commonsense"].items() if isinstance(v, dict)}
GLUE = TABLES["table_2_glue"]


def rows(name: str) -> dict:
    """The rows of a table without its heading and its note."""
    return {k: v for k, v in TABLES[name].items() if k not in ("columns", "note")}


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if "columns" in table])
def test_every_row_has_a_figure_for_each_column(name):
    wide = len(TABLES[name]["columns"])
    inner = (each.values() if isinstance(each, dict) else [each] for each in rows(name).values())
    for row in chain.from_iterable(inner):
        assert not isinstance(row, list) or len(row) == wide


@pytest.mark.parametrize("setting", COMMONSENSE)
def test_commonsense_averages_and_gains_are_those_of_their_rows(setting):
    found = dict(COMMONSENSE[setting])
    gains = found.pop("gain_over_lora", {})
    for name, (_, *tasks, average) in found.items():
        assert sum(tasks) / 8 == pytest.approx(average, abs=0.013), name  # the paper cuts some off
    assert set(gains) == {name for name in found if name.startswith("LR-LoRA")}
    for name, gain in gains.items():
        baseline = found[name.removeprefix("LR-")]
        assert found[name][-1] - baseline[-1] == pytest.approx(gain, abs=0.0051), name


def test_table_1_is_rank_32_of_table_6():
    table = dict(TABLES["table_1_commonsense_average"])
    columns = table.pop("columns")
    for method, other in (("NoLA", "NoLA"), ("LoRA", "LoRA-32"), ("LR-LoRA", "LR-LoRA-32")):
        assert table[method]["mean"] == [COMMONSENSE[column][other][-1] for column in columns]
    for method in table.values():
        assert len(method["mean"]) == len(method["std"]) == len(columns)


@pytest.mark.parametrize("model", ["RoBERTa-base", "RoBERTa-large"])
def test_glue_averages_are_those_of_their_rows(model):
    for name, row in GLUE[model].items():
        *tasks, average = row["mean"]
        assert sum(tasks) / 6 == pytest.approx(average, abs=0.068), name  # LoRA-4: 82.47 for 82.4
        assert len(row["std"]) == len(row["mean"]) == len(GLUE["columns"])


def test_parameters_add_up():
    components = rows("table_11_parameters_by_component")
    for model, (lora, transfer, total, overhead) in rows("table_7_parameters").items():
        assert lora + transfer == pytest.approx(total, rel=0.005)
        assert 100 * transfer / lora == pytest.approx(overhead, abs=0.006)
        if model in components:
            sums = [sum(pair) for pair in zip(*components[model].values(), strict=True)]
            assert sums[:3] == pytest.approx([lora, transfer, total], rel=0.005)
        column = TABLES["table_25_parameters"]["columns"].index(model)
        printed = [rows("table_25_parameters")[row][column] for row in ("LoRA", "LR-LoRA")]
        assert printed == [lora, total]


def test_training_costs_agree_between_and_within_the_tables():
    training, memory = rows("table_24_training"), rows("table_27_memory")
    for model, methods in training.items():
        frozen = methods["frozen (inference)"][1]
        for _, throughput, relative in methods.values():
            assert throughput / frozen == pytest.approx(relative, abs=0.0051)
        pair = [methods[name] for name in ("LoRA, first rank", "LR-LoRA, first rank")]
        assert [row[0] for row in pair] + [row[1] for row in pair] == memory[model][:4]
    for *_, lora, ours, _, percent in memory.values():
        assert 100 * (ours / lora - 1) == pytest.approx(percent, abs=0.06)


def test_the_memory_breakdown_adds_up():
    found = rows("memory_breakdown")
    parts = ("base model", "LoRA adapters", "optimizer states", "gradients")
    sums = [sum(column) for column in zip(*(found[part] for part in parts), strict=True)]
    assert sums == pytest.approx(found["total training"], abs=0.11)  # Phi-3: 19.6 for 19.7


def test_relative_improvements_of_table_22_follow_from_its_gains():
    table = TABLES["table_22_scaling"]
    pairs = zip(table["lora_gain"], table["lr_lora_gain"], strict=True)
    percent = [100 * (ours / lora - 1) for lora, ours in pairs]
    assert percent == pytest.approx(table["relative_improvement_percent"], abs=0.6)
