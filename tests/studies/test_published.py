from pathlib import Path

import pytest

import studies
from studies import published
from studies.engine.definition.schema import load_study
from studies.engine.errors import StudyError


def test_a_figure_carries_the_difference_to_its_own_harness():
    figure = published.get_table("table_15_grid_size").at(128)
    assert figure == published.Figure(mean=0.721, std=0.004, difference=0.043)


def test_the_baseline_row_has_difference_zero():
    assert published.get_table("table_20_sharing").baseline_figure == published.Figure(
        mean=0.678, std=0.002, difference=0.0
    )


def test_a_baseline_that_moves_with_the_value_is_matched_by_value():
    table = published.get_table("table_12_base_rank")
    assert [f.difference for f in table.figures] == [0.053, 0.042, 0.038, 0.032, 0.027]
    assert table.baseline_figure is None


def test_without_a_published_baseline_there_is_no_difference():
    assert published.get_table("table_18_amplitude_init_8B").at(0.01).difference is None


def test_numbers_match_by_value_and_truth_values_do_not():
    assert published.get_table("table_17_bandwidth_init").at(1) is not None
    assert published.get_table("table_17_bandwidth_init").at(True) is None
    assert published.get_table("table_3_bandwidth").at(False).mean == 0.701
    assert published.get_table("table_3_bandwidth").at(1) is None


def test_what_could_not_be_read_matches_nothing():
    table = published.get_table("table_3_grid_resolution")
    assert table.at(None) is None
    assert table.at(50).mean == 0.714


@pytest.mark.parametrize("name", published.tables())
def test_columns_run_parallel(name):
    table = published.get_table(name)
    assert len(table.values) == len(table.figures) > 1
    raw = published.tables()[name]
    for column in raw.values():
        assert not isinstance(column, list) or len(column) == len(table.values)


def test_the_methods_of_table_1_are_those_of_the_whole_table():
    whole = published.other_tables()["table_1_commonsense_average"]
    column = whole["columns"].index("Qwen2-0.5B/170k")
    of = {"basis": "LR-LoRA", **{name.lower(): name for name in whole}, "sine_lora": "SineLoRA"}
    raw = published.tables()["table_1_methods"]
    for name, mean, std in zip(raw["values"], raw["mean"], raw["std"], strict=True):
        row = whole[of[name]]
        assert (row["mean"][column], row["std"][column]) == (mean, std), name
    assert len(raw["values"]) == len(whole) - 1
    vera = published.get_table("table_1_methods").at("vera", "vera")
    assert vera == published.Figure(0.5178, 0.0019, -0.0556)


def test_a_baseline_at_each_value_has_figures_of_its_own():
    table = published.get_table("table_12_base_rank")
    assert table.at(4, "lora") == published.Figure(0.528, 0.004, None)
    assert table.at(4, "dora") is None and table.at(5, "lora") is None
    assert published.get_table("table_15_grid_size").at(8, "lora") is None


def test_rows_name_arms_and_values_that_are_there(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "question: Which?\nadapter: {method: basis, basis: sinc, num_basis: 8}\n"
        "sweep: {adapter.bandwidth: [1.0, 2.0]}\narms: [{name: zero, adapter: {method: lora}}]\n"
        "baseline: zero\nobjective: {metric: test/accuracy}\npublished:\n"
        "  {table: table_17_bandwidth_init, x: adapter.bandwidth, rows: {zer: 1.0, zero: 3.0}}\n"
    )
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert "published.rows.zer: no arm is called 'zer'. Did you mean 'zero'?" in str(caught.value)
    assert "published.rows.zero: no row for 3; it has 0.1, 0.5, 1, 2, 5" in str(caught.value)


def test_an_arm_of_ours_alone_stands_beside_no_figure():
    study = load_study(Path(studies.__file__).with_name("sharing.yaml"))
    ours_alone = {name for name, value in study.published.rows.items() if value is None}
    assert {"by-head", "by-row", "by-column"} <= ours_alone
    assert published.get_table("table_20_sharing").at(None) is None


@pytest.mark.parametrize("more", ["x: adapter.r", "rows: {lora: 4}"])
def test_a_table_of_tasks_stands_beside_no_arm(tmp_path, more):
    path = tmp_path / "s.yaml"
    path.write_text(
        "question: Which?\nadapter: {method: lora}\ntasks: [glue_rte, glue_mrpc]\n"
        "arms: [{name: lora}, {name: low, set: {adapter.r: 2}}]\nbaseline: lora\n"
        "objective: {metric: test/accuracy}\n"
        f"published: {{table: table_2_glue, part: RoBERTa-base, {more}}}\n"
    )
    with pytest.raises(StudyError, match="is shown as it is printed, beside no arm: leave it out"):
        load_study(path)


def test_an_unknown_table_gets_a_suggestion():
    with pytest.raises(ValueError, match="Did you mean 'table_15_grid_size'"):
        published.get_table("table_15_gridsize")


def test_a_metric_the_table_does_not_measure_is_refused():
    published.check("table_15_grid_size", "test/accuracy")
    with pytest.raises(ValueError, match="measures accuracy"):
        published.check("table_15_grid_size", "test/loss")


def test_a_table_says_where_the_paper_contradicts_it():
    assert "table 23" in published.get_table("table_19_components").note
    assert published.get_table("table_20_sharing").note == ""
