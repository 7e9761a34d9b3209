import json

import pytest
from matplotlib import image

from studies.engine.reporting import plots
from studies.engine.reporting.outcome import collect
from studies.engine.reporting.report import read_curves, read_metrics


def lines_of(axes):
    return {line.get_label(): line for line in axes.lines}


def outcome_of(study):
    return collect(study.study, study.pairs)


def inked(path):
    pixels = image.imread(path)[..., :3]
    return float((pixels.min(axis=2) < 0.9).mean())


def test_the_sweep_shows_means_seeds_baseline_and_paper(grid_study):
    outcome = outcome_of(grid_study)
    left, right = plots.plot_comparison(outcome).axes
    ours = lines_of(left)["ours: mean, 95 % t interval, every seed"]
    means = [arm.summary.mean for arm in outcome.arms if arm.name.startswith("G=")]
    assert list(ours.get_xdata()) == [8, 64, 512]
    assert list(ours.get_ydata()) == pytest.approx(means)
    assert left.get_xscale() == "log"
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["8", "64", "512"]
    assert lines_of(left)["lora (baseline)"].get_ydata()[0] == pytest.approx(0.72)
    paper = lines_of(right)["paper, against its own baseline"]
    assert list(paper.get_ydata()) == [-0.006, 0.041, 0.042]


def test_an_arm_far_away_is_said_at_the_edge(grid_study):
    left = plots.plot_comparison(outcome_of(grid_study)).axes[0]
    assert left.get_ylim()[0] > 0.6
    assert "0.480" in [text.get_text() for text in left.texts]
    assert left.texts[0].get_color() == lines_of(left)["paper-start"].get_color()


def test_titles_say_how_many_seeds_arms_have(fabricate):
    fabricate.study.published = None
    fabricate.add("lora", [0.7, 0.72, 0.73])
    assert plots.plot_comparison(outcome_of(fabricate)).get_suptitle().endswith("3 seeds")
    fabricate.add("uniform", [0.75, 0.76, 0.78, 0.79], {"adapter.grid": "uniform"})
    assert plots.plot_comparison(outcome_of(fabricate)).get_suptitle().endswith("3 to 4 seeds")


def test_words_are_rows(fabricate):
    fabricate.study.published.table = "table_14_16_grid_placement"
    fabricate.study.published.x = "adapter.grid"
    fabricate.add("lora", [0.7, 0.72, 0.73])
    for i, grid in enumerate(("uniform", "chebyshev")):
        fabricate.add(grid, [0.75 + i / 50, 0.76, 0.78], {"adapter.grid": grid})
    left, right = plots.plot_comparison(outcome_of(fabricate)).axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["lora", "uniform", "chebyshev"]
    squares = [line.get_xdata()[0] for line in right.lines if line.get_marker() == "s"]
    assert squares == [0.036, 0.04]


def test_two_sweeps_over_the_same_values_stand_side_by_side_and_whole(fabricate):
    fabricate.study.published = None
    fabricate.add("lora", [0.7, 0.71, 0.72])
    for v in (4, 8, 64):
        fabricate.add(f"a {v}", [0.7, 0.71, 0.73], {"adapter.num_basis": v})
        fabricate.add(f"b {v}", [0.5, 0.51, 0.53], {"adapter.num_basis": v, "adapter.start": "b"})
    outcome = outcome_of(fabricate)
    left = plots.plot_comparison(outcome).axes[0]
    first = lines_of(left)["ours: mean, 95 % t interval, every seed"].get_xdata()
    second = lines_of(left)["b 4 … b 64"].get_xdata()
    assert list(first) == [4, 8, 64]
    assert all(1.01 < b / a < 1.1 for a, b in zip(first, second, strict=True))
    assert left.get_ylim()[0] < min(a.summary.low for a in outcome.arms)


def test_a_baseline_that_is_one_of_a_sweep_stands_on_its_line(fabricate):
    fabricate.study.published = None
    lora = {"adapter.method": "lora"}
    fabricate.add("lora", [0.7, 0.71, 0.72], {**lora, "train.learning_rate": 0.002})
    for rate in (0.001, 0.004, 0.008):
        own = {**lora, "train.learning_rate": rate}
        fabricate.add(f"lora {rate}", [0.6, 0.61, 0.62], own)
        fabricate.add(f"x={rate}", [0.7, 0.71, 0.73], {"train.learning_rate": rate})
    left, right = plots.plot_comparison(outcome_of(fabricate)).axes
    ours = lines_of(left)["ours: mean, 95 % t interval, every seed"]
    assert list(ours.get_xdata()) == [0.001, 0.004, 0.008]
    label = "lora 0.001 … lora 0.008"
    assert list(lines_of(left)[label].get_ydata()) == pytest.approx([0.61, 0.71, 0.61, 0.61])
    assert list(lines_of(right)[label].get_ydata()) == pytest.approx([-0.1, 0, -0.1, -0.1])


@pytest.mark.parametrize(
    ("values", "scale", "places"),
    [
        ([8, 512], "log", [8, 512]),
        ([1, 2, 3], "linear", [1, 2, 3]),
        ([0.0, 0.01, 0.1], "equal steps", [0, 1, 2]),
        ([-1.0, 1.0], "linear", [-1, 1]),
    ],
)
def test_the_scale_follows_the_values(fabricate, values, scale, places):
    fabricate.study.published = None
    for v in values:
        fabricate.add(f"x={v}", [0.7, 0.8], {"adapter.x": v})
    found, name = plots._places(outcome_of(fabricate))
    assert (name, list(found.values())) == (scale, places)


def test_labels_of_near_places_do_not_run_into_each_other(fabricate):
    fabricate.study.published = None
    for v in (0.0005, 0.008, 0.00828669):
        fabricate.add(f"x={v}", [0.7, 0.8], {"adapter.x": v})
    left = plots.plot_comparison(outcome_of(fabricate)).axes[0]
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["0.0005", "0.008"]


def test_labels_of_places_are_the_values(fabricate):
    fabricate.study.published = None
    for v in (64, 256, 1024, 4096):
        fabricate.add(f"x={v}", [0.7, 0.8], {"adapter.x": v})
    left = plots.plot_comparison(outcome_of(fabricate)).axes[0]
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["64", "256", "1024", "4096"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_draw_without_intervals(fabricate, seeds, tmp_path):
    fabricate.add("lora", [0.7] * seeds).add("a", [0.8] * seeds, {"adapter.num_basis": 8})
    png, _ = plots.save("few", plots.plot_comparison(outcome_of(fabricate)), tmp_path)
    assert inked(png) > 0.01


@pytest.mark.slow
def test_files_are_not_blank(grid_study, tmp_path):
    outcome = outcome_of(grid_study)
    curves = read_curves(outcome, grid_study.out_dir.parent / "trials")
    for figure, name in (
        (plots.plot_comparison(outcome), "comparison"),
        (plots.plot_learning_curves(outcome, curves), "learning"),
    ):
        png, svg = plots.save(name, figure, tmp_path)
        assert png.stat().st_size > 20_000
        assert inked(png) > 0.02
        assert "<svg" in svg.read_text(encoding="utf-8")[:1000]


def test_learning_curves_are_means_over_finished_seeds(grid_study):
    outcome = outcome_of(grid_study)
    curves = read_curves(outcome, grid_study.out_dir.parent / "trials")
    assert list(curves) == ["train/loss", "valid/accuracy"]
    assert curves["train/loss"]["lora"][0] == (10, pytest.approx(0.1 + 1))
    assert curves["train/loss"]["G=64"][0] == (10, pytest.approx(0.1 + 1))  # seeds 0 and 2
    assert [step for step, _ in curves["valid/accuracy"]["lora"]] == [20, 40]


def test_a_line_cut_short_is_left_out_and_one_in_the_middle_is_not(tmp_path):
    file = tmp_path / "metrics.jsonl"
    line = json.dumps({"step": 1, "seconds": 0.1, "train/loss": 1.0})
    file.write_text(f"{line}\n{line[:20]}")
    assert len(read_metrics(file)) == 1
    file.write_text(f"{line[:20]}\n{line}\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl:1: expected .*remove this file"):
        read_metrics(file)
