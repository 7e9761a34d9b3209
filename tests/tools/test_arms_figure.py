"""The figure of all arms: which arms it shows, against what, and what it says of them."""

import json
from pathlib import Path

import pytest

from tools import arms_figure
from tools.arms_figure import Row
from tools.figures import LARGEST
from tools.results_index import RESULTS

FIGURE = Path(__file__).parents[2] / "docs" / "arms.png"


def report_of(folder: str) -> dict:
    return json.loads((RESULTS / folder / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", ["methods/gpu", "grid_size/smollm2"])
def test_differences_are_those_of_the_report(folder: str) -> None:
    report = report_of(folder)
    rows = {row.name: row for row in arms_figure.rows_of(report)}
    arms = {arm["arm"]: arm["comparison"] for arm in report["arms"] if arm["comparison"]}
    assert rows.keys() == arms.keys()
    for name, row in rows.items():
        assert row.comparison.difference == pytest.approx(arms[name]["difference"])
        assert row.comparison.low == pytest.approx(arms[name]["low"])
        assert row.comparison.p_holm == pytest.approx(arms[name]["p_holm"])


def test_where_the_baseline_is_not_lora_arms_stand_against_lora() -> None:
    rows = {row.name: row for row in arms_figure.rows_of(report_of("robustness/gpu"))}
    assert "lora" not in rows and rows["default"].learns_phi
    assert "lora-rate-half" not in rows  # which stands against itself
    assert_difference(report_of("robustness/gpu"), "default", "lora")
    assert_difference(report_of("robustness/gpu"), "rate-half", "lora-rate-half")


def assert_difference(report: dict, arm: str, lora: str) -> None:
    rows = {row.name: row for row in arms_figure.rows_of(report)}
    seeds = {each["arm"]: each["seeds"] for each in report["arms"]}
    gains = [seeds[arm][s] - seeds[lora][s] for s in seeds[lora] if s in seeds[arm]]
    assert rows[arm].comparison.difference == pytest.approx(sum(gains) / len(gains))


@pytest.mark.parametrize(
    ("study", "arm", "lora"),
    [
        ("model_scale", "large basis", "large lora"),
        ("base_rank", "r=64 alpha", "lora-64 alpha"),
        ("base_rank", "r=4", "lora-4"),
        ("learning_rate", "learning_rate=0.008", "lora 0.008"),
    ],
)
def test_equal_sizes_ranks_and_rates_are_compared(study: str, arm: str, lora: str) -> None:
    assert_difference(report_of(f"{study}/gpu"), arm, lora)


def test_better_arms_are_named_and_far_ones_are_arrows() -> None:
    compared = arms_figure.compare_arms(
        {
            "lora": {0: 0.5, 1: 0.51, 2: 0.52, 3: 0.5},
            "above": {0: 0.53, 1: 0.54, 2: 0.551, 3: 0.53},
            "level": {0: 0.5, 1: 0.52, 2: 0.51, 3: 0.5},
            "chance": {0: 0.1, 1: 0.11, 2: 0.12, 3: 0.11},
        },
        "lora",
    )
    rows = [Row(name, found, True, 0.035) for name, found in compared.items()]
    left, right = arms_figure.figure([("a", rows), ("b", rows)]).axes
    for axes in (left, right):
        assert [text.get_text() for text in axes.texts] == ["above"]
        marks = [line.get_marker() for line in axes.lines]
        assert marks.count("<") == 1 and marks.count("s") == 3


def test_an_arm_far_above_is_an_arrow_too() -> None:
    compared = arms_figure.compare_arms(
        {"lora": {0: 0.5, 1: 0.51}, "far": {0: 0.7, 1: 0.72}, "near": {0: 0.51, 1: 0.51}}, "lora"
    )
    rows = [
        Row(name, found, True, -0.099 if name == "near" else None)
        for name, found in compared.items()
    ]
    left, _ = arms_figure.figure([("a", rows), ("b", rows)]).axes
    places = {line.get_marker(): line.get_xdata()[0] for line in left.lines}
    assert places[">"] == arms_figure.EDGES[1] and abs(places["o"]) < 1
    assert places["<"] == arms_figure.EDGES[0] and "s" not in places  # the paper's figure


def test_a_report_without_a_comparison_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    report = report_of("methods/gpu")
    alone = report | {"arms": [arm for arm in report["arms"] if arm["baseline"]]}
    monkeypatch.setattr(arms_figure, "read_reports", lambda _: [("a", alone), ("b", report)])
    [(name, _)] = arms_figure.studies_on_gpus()
    assert name.startswith("methods, ")


def test_the_committed_figure_is_small_and_on_the_page() -> None:
    assert 0 < FIGURE.stat().st_size <= LARGEST
    assert "](arms.png)" in (FIGURE.parent / "results.md").read_text(encoding="utf-8")
