import json
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from studies.engine.definition.study import ClaimRule
from studies.engine.labels import numbers
from studies.engine.planning.tuning import Choice
from studies.engine.records import BestStep
from studies.engine.reporting.outcome import collect
from studies.engine.reporting.remarks import reading, remarks
from studies.engine.reporting.rendering import _tuning, terminal

pytestmark = pytest.mark.usefixtures("without_figures")


def report_of(study):
    report = study.report()
    return report, report.markdown.read_text(encoding="utf-8"), json.loads(report.json.read_text())


def row_of(markdown, arm):
    (row,) = [line for line in markdown.splitlines() if line.startswith(f"| {arm} | ")][:1]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_row_of_an_arm_has_its_numbers(grid_study):
    _, markdown, data = report_of(grid_study)
    values = {t.seed: r.metrics["test/accuracy"] for t, r in grid_study.pairs if t.arm == "G=512"}
    base = [0.70, 0.72, 0.74]
    mean = sum(values.values()) / 3
    difference = mean - sum(base) / 3
    row = row_of(markdown, "G=512")
    assert row[1] == "3"
    assert row[2].startswith(f"{mean:.4f} [")
    assert row[3].startswith(f"{difference:+.4f} [")
    assert row[6:10] == ["120,000", "2,400", "512 MiB", "250 ms"]
    assert row[10:] == ["0.720 ± 0.006", "+0.042"]
    (arm,) = [a for a in data["arms"] if a["arm"] == "G=512"]
    assert arm["seeds"] == {str(s): v for s, v in values.items()}
    assert arm["comparison"]["p"] == pytest.approx(
        stats.ttest_rel(list(values.values()), base).pvalue
    )


def test_the_baseline_stands_first_with_the_papers_own(grid_study):
    _, markdown, data = report_of(grid_study)
    assert [arm["arm"] for arm in data["arms"]] == ["lora", "G=8", "G=64", "G=512", "paper-start"]
    assert row_of(markdown, "lora (baseline)")[10:] == ["0.678 ± 0.002", "—"]


def test_the_papers_figures_stand_beside_the_methods_that_it_has(fabricate):
    fabricate.study.published = SimpleNamespace(table="table_12_base_rank", x="adapter.r", rows={})
    fabricate.study.baseline = "lora-16"
    for rank in (4, 16):
        fabricate.add(f"r={rank}", [0.7, 0.71], {"adapter.r": rank})
        lora = {"adapter.method": "lora", "adapter.r": rank}
        fabricate.add(f"lora-{rank}", [0.69, 0.7], lora)
    _, markdown, _ = report_of(fabricate)
    assert row_of(markdown, "r=4")[-2:] == ["0.581 ± 0.003", "+0.053"]  # to LoRA at rank 4
    assert row_of(markdown, "lora-4")[-2:] == ["0.528 ± 0.004", "—"]  # a gain over nothing


def test_an_arm_can_stand_for_a_row_that_its_settings_do_not_tell(fabricate):
    fabricate.study.published = SimpleNamespace(
        table="table_18_amplitude_init_0.5B", x="adapter.start_options.scale", rows={"zero": 0.0}
    )
    fabricate.add("lora", [0.7, 0.71]).add("zero", [0.7, 0.71]).add("other", [0.7, 0.71])
    fabricate.add("scale=1", [0.7, 0.71], {"adapter.start_options.scale": 1.0})
    _, markdown, _ = report_of(fabricate)
    assert row_of(markdown, "zero")[-2:] == ["0.714 ± 0.002", "+0.036"]
    assert row_of(markdown, "scale=1")[-2:] == ["0.682 ± 0.008", "+0.004"]
    assert row_of(markdown, "other")[-2:] == ["—", "—"]


def test_a_seed_that_the_baseline_lacks_compares_nothing(fabricate):
    fabricate.add("lora", [0.7, 0.71, 0.72], failed=(2,)).add("a", [0.8, 0.81, 0.83])
    _, _, data = report_of(fabricate)
    assert "`lora` lacks seed 2; no arm is compared there." in data["remarks"]


def test_an_interval_without_zero_beside_a_corrected_p_is_explained(fabricate):
    base = [0.70, 0.72, 0.74, 0.71, 0.73]
    fabricate.add("lora", base)
    for name, by in (("a", 0.0025), ("b", 0.0), ("c", 0.0)):
        noise = [by + e for e in (0.001, -0.001, 0.002, -0.002, 0.0005)]
        fabricate.add(name, [b + e for b, e in zip(base, noise, strict=True)])
    _, _, data = report_of(fabricate)
    found = data["arms"][1]
    assert found["comparison"]["low"] > 0 and found["finding"] == "no evidence of a difference"
    assert any("one may leave out 0 where p and the finding show nothing" in line
               for line in data["reading"])  # fmt: skip


def test_an_arm_for_which_tuning_found_nothing_is_named(fabricate):
    fabricate.add("lora", [0.7, 0.71]).add("a", [0.8, 0.81])
    rate = {"train.learning_rate": 1e-3}
    choices = [Choice("lora", rate, ((rate, 0.7),)), Choice("a", {}, ((rate, None),))]
    outcome = collect(fabricate.study, fabricate.pairs, choices)
    [line] = [line for line in reading(outcome) if "was chosen for each arm" in line]
    assert line.endswith("No value gave a result for `a`: there it is the study's own.")


def test_choices_that_may_have_been_others_are_said(fabricate):
    fabricate.add("lora", [0.7, 0.71]).add("a", [0.8, 0.81])
    rates = [{"train.learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3)]
    scores = tuple((rate, 0.7) for rate in rates)
    choices = [
        Choice("lora", rates[1], scores, close=(rates[2],)),
        Choice("a", rates[2], scores),
    ]
    outcome = collect(fabricate.study, fabricate.pairs, choices)
    lines = reading(outcome)
    assert any(line.startswith("For 1 of 2 arms another value is within one") for line in lines)
    said = "`a` took the largest `train.learning_rate` that was tried, 0.004: a better one may lie"
    assert any(line.startswith(said) for line in lines)
    text = _tuning(outcome)
    assert "| lora | 0.7000 | **0.7000** | ~ 0.7000 |" in text and "~ is within one" in text


def test_a_failed_trial_is_listed_with_its_message(grid_study):
    report, markdown, data = report_of(grid_study)
    assert "| G=64 | 1 | out_of_memory | ran out \\| use a smaller batch | 1 |" in markdown
    assert data["failed"][0]["arm"] == "G=64"
    assert "failed: G=64, seed 1: out_of_memory: ran out | use a smaller batch" in report.text
    every_seed = markdown[markdown.index("## Every seed") :]
    assert row_of(every_seed, "G=64")[2] == "failed"


def test_a_failed_seed_0_is_named(fabricate):
    fabricate.add("lora", [0.70, 0.72]).add("a", [0.71, 0.73], {"adapter.r": 4}, failed=(0,))
    _, markdown, _ = report_of(fabricate)
    assert "| arm | seed | kind | message | attempt |" in markdown
    assert "| a | 0 | out_of_memory | ran out \\| use a smaller batch | 1 |" in markdown


@pytest.mark.parametrize(
    ("train", "remedy"),
    [
        ({"epochs": 2.5}, " It had 25 optimizer steps: try train.epochs 6."),
        (
            {"epochs": 9, "max_steps": 25},
            " It had 25 optimizer steps: try train.max_steps 60 "
            "and as many train.epochs as that takes.",
        ),
        ({"epochs": 6}, ""),
    ],
)
def test_an_arm_at_chance_after_few_steps_is_told_what_to_try(fabricate, train, remedy):
    about = {"rows": {"train": 160}}  # 10 steps an epoch
    fabricate.add("lora", [0.7, 0.71], data=about).add("a", [0.5, 0.52], data=about)
    for trial, _, _ in fabricate.rows:
        trial.config["train"] = {"batch_size": 16, **train}
    _, _, data = report_of(fabricate)
    (told,) = [remark for remark in data["remarks"] if "majority class" in remark]
    assert told == f"`a` is not clearly above the majority class (0.510 against 0.520).{remedy}"


def test_a_finding_says_that_it_is_corrected_and_no_column_is_empty(fabricate):
    fabricate.study.published = None
    fabricate.add("lora", [0.7, 0.71, 0.72]).add("a", [0.8, 0.81, 0.83])
    report, markdown, _ = report_of(fabricate)
    assert "paper" not in markdown.split("## How")[0] and "paper" not in report.text
    assert "| finding |" in markdown and "corrected over" not in report.text  # one arm: nothing is
    fabricate.add("b", [0.8, 0.83, 0.83])
    report, markdown, _ = report_of(fabricate)
    assert "| finding, corrected over 2 arms |" in markdown
    assert "p and finding are corrected over 2 arms (Holm), intervals are not" in report.text


def too_few(study):
    told = remarks(collect(study.study, study.pairs))
    (line,) = [remark for remark in told if remark.startswith("Too few seeds")]
    return line


def test_too_few_seeds_say_how_many_would_do(fabricate):
    fabricate.add("lora", [0.70, 0.71, 0.72]).add("a", [0.711, 0.714, 0.735])
    fabricate.add("b", [0.703, 0.715, 0.721])
    told = too_few(fabricate)
    spread = (np.var([0.011, 0.004, 0.015], ddof=1) + np.var([0.003, 0.005, 0.001], ddof=1)) / 2
    power, level = TTestPower(), 0.05 / 2 / 2  # two-sided, two arms
    needs = [
        math.ceil(power.solve_power(d / spread**0.5, None, level, 0.8, alternative="larger"))
        for d in (0.005, 0.01)
    ]
    assert told.endswith(
        f"; by the spread seen, {spread**0.5:.3g}, it takes {needs[0]} to find half a point "
        f"(0.005) and {needs[1]} to find the largest difference seen (0.01, `a`) in 80% of studies."
    )
    fabricate.study.objective.direction = "minimize"  # of a loss half a point means nothing
    assert "half a point" not in too_few(fabricate)


def test_too_few_seeds_without_a_spread_say_what_few_find(fabricate):
    fabricate.add("lora", [0.5, 0.75]).add("a", [0.5, 0.75])
    assert "it finds an effect of 1.5 standard deviations in 31 %" in too_few(fabricate)


def test_too_few_seeds_for_open_claims_name_what_these_need(fabricate):
    fabricate.add("lora", [0.70, 0.71, 0.72]).add("a", [0.703, 0.715, 0.721])
    claim = {"claim": "c", "arm": "a", "than": "lora", "expect": "higher"}
    fabricate.study.claims = (ClaimRule.model_validate(claim),)
    d = np.array([0.003, 0.005, 0.001])
    effect = d.mean() / d.std(ddof=1)
    n = math.ceil(TTestPower().solve_power(effect, None, 0.05, 0.8, alternative="larger"))
    assert f"the open claims would take about {n} seeds." in too_few(fabricate)
    other = ClaimRule.model_validate(claim | {"arm": "absent"})
    fabricate.study.claims = (*fabricate.study.claims, other)
    assert f"1 of the 2 open claims would take about {n} seeds." in too_few(fabricate)


def test_what_a_reader_must_be_told_is_told(grid_study):
    _, markdown, data = report_of(grid_study)
    told = " ".join(data["remarks"])
    assert "Too few seeds: at least one arm has 2" in told
    assert "`G=64` lacks seed 1" in told
    assert "`paper-start` is not clearly above the majority class (0.480 against 0.520)" in told
    assert "environments" not in told
    for said in (*data["remarks"], *data["reading"]):
        assert said in markdown
    assert "chosen on `valid/accuracy`; `test/accuracy` is only reported" in markdown
    assert "Majority class of the test set: 0.5200" in markdown
    assert "`paper-start`: the start as written" in markdown
    for about in ("licence: MIT", "hash: d1", "commit: abc", "(embedded)"):
        assert about in markdown


def test_no_variance_over_seeds_is_not_certainty(grid_study):
    _, markdown, _ = report_of(grid_study)
    assert row_of(markdown, "paper-start")[2] == "0.4800"


def test_five_complete_seeds_need_no_remark(fabricate):
    base = [0.70, 0.72, 0.74, 0.71, 0.73]
    fabricate.add("lora", base).add("a", [v + 0.02 + i / 1e3 for i, v in enumerate(base)])
    report, _, data = report_of(fabricate)
    assert data["remarks"] == []
    assert "note:" not in report.text
    assert data["arms"][1]["finding"] == "better"


def test_arms_of_two_environments_are_a_warning_without_the_hosts_name(fabricate):
    fabricate.add("lora", [0.7, 0.71], environment={"host": "left"})
    fabricate.add("a", [0.8, 0.81], environment={"torch": "3", "host": "right"})
    _, markdown, data = report_of(fabricate)
    assert any("environments that differ in torch" in remark for remark in data["remarks"])
    assert "left" not in markdown and "right" not in markdown
    assert data["environment_of"] == {"lora": [0], "a": [1]}


def test_other_data_is_a_warning(fabricate):
    fabricate.add("lora", [0.7, 0.71]).add("a", [0.8, 0.81], data={"hash": "d2"})
    assert any("different data" in remark for remark in report_of(fabricate)[2]["remarks"])


def test_a_baseline_that_failed_compares_nothing(fabricate):
    fabricate.add("lora", [0, 0], failed=(0, 1)).add("a", [0.8, 0.81])
    _, markdown, data = report_of(fabricate)
    assert any("baseline `lora` has no finished seed" in remark for remark in data["remarks"])
    assert any(cell.startswith("not testable") for cell in row_of(markdown, "a"))


def test_a_study_where_everything_failed_still_reports(fabricate, without_figures):
    without_figures.undo()
    fabricate.add("lora", [0, 0], failed=(0, 1))
    report, markdown, _ = report_of(fabricate)
    assert report.figures == ()
    assert markdown.count("out_of_memory") == 2


def test_a_value_that_is_not_finite_is_a_failure(fabricate):
    fabricate.add("lora", [0.7, 0.71]).add("a", [0.8, float("nan")])
    outcome = collect(fabricate.study, fabricate.pairs)
    assert outcome.failed[0].kind == "not_finite"
    assert outcome.arms[1].values == {0: 0.8}


def test_the_same_results_give_the_same_bytes(grid_study, without_figures):
    without_figures.undo()
    first, _, _ = report_of(grid_study)
    paths = (first.markdown, first.json, *first.figures)
    before = {path.name: path.read_bytes() for path in paths}
    report_of(grid_study)
    assert {path.name: path.read_bytes() for path in paths} == before
    assert len(before) == 6


def test_seeds_may_come_in_any_order(grid_study):
    want = collect(grid_study.study, grid_study.pairs)
    by_seed = sorted(grid_study.pairs, key=lambda pair: -pair[0].seed)
    assert collect(grid_study.study, by_seed).arms == want.arms
    random.Random(1).shuffle(by_seed)
    shuffled = {arm.name: arm for arm in collect(grid_study.study, by_seed).arms}
    assert shuffled == {arm.name: arm for arm in want.arms}


def test_two_results_for_one_seed_are_refused(grid_study):
    with pytest.raises(ValueError, match="two trials with seed 0"):
        grid_study.report(grid_study.pairs * 2)


def test_no_results_are_refused_with_the_next_step(fabricate):
    with pytest.raises(ValueError, match=r"run it first, .+ grid_size.yaml"):
        fabricate.report([])


def test_the_report_says_where_the_paper_contradicts_its_table(grid_study):
    _, markdown, _ = report_of(grid_study)
    assert "The paper contradicts itself here: table 3 has 71.4 at 50 functions" in markdown
    grid_study.study.published = SimpleNamespace(
        table="table_20_sharing", x="adapter.num_basis", rows={}
    )
    assert "contradicts" not in report_of(grid_study)[1]


def test_without_a_published_table_there_is_no_such_column(grid_study):
    grid_study.study.published = None
    _, markdown, data = report_of(grid_study)
    assert "paper − baseline" not in markdown
    assert data["axis"] == "adapter.num_basis"


def test_the_terminal_table_is_plain_and_narrow(grid_study):
    report, _, _ = report_of(grid_study)
    table = [line for line in report.text.splitlines() if not line.startswith(("note", "failed"))]
    assert "\x1b" not in report.text
    assert max(map(len, table)) < 135
    assert "lora" in report.text and "+0.042" in report.text


def test_the_note_is_cut_at_a_line(grid_study):
    from studies.engine.reporting.rendering import note

    outcome = collect(grid_study.study, grid_study.pairs)
    whole, short = note(outcome), note(outcome, limit=600)
    assert len(whole) > 1000
    kept, _, said = short.rpartition("\n\n")
    assert whole.startswith(kept + "\n") and said.startswith("(cut")


def test_a_published_difference_that_ours_excludes_is_named(fabricate):
    fabricate.add("lora", [0.70, 0.71, 0.72], {"adapter.method": "lora"})
    fabricate.add("G=64", [0.70, 0.712, 0.718], {"adapter.num_basis": 64})
    fabricate.add("G=128", [0.74, 0.755, 0.764], {"adapter.num_basis": 128})
    text = fabricate.report().markdown.read_text()
    assert "In 1 of 2 arms our 95 % interval" in text
    assert "leaves out the paper's: `G=64` (paper +0.041, ours [-0.0050, +0.0050])" in text


def test_a_published_difference_to_another_baseline_is_not_compared(fabricate):
    fabricate.study.published.table, fabricate.study.published.x = "table_12_base_rank", "adapter.r"
    fabricate.add("lora", [0.70, 0.71, 0.72], {"adapter.method": "lora"})
    fabricate.add("r=4", [0.70, 0.712, 0.718], {"adapter.r": 4})
    text = fabricate.report().markdown.read_text()
    assert "+0.053" in text and "leaves out" not in text


def test_the_best_evaluations_are_told_by_their_steps(fabricate):
    fabricate.add("lora", [0.7, 0.71])
    assert "train.keep" not in report_of(fabricate)[1]
    for (trial, result, folder), step in zip(list(fabricate.rows), (20, 40), strict=True):
        metric = f"valid/{'loss' if step == 20 else 'matthews'}"  # of several tasks each has one
        kept = BestStep(step=step, metric=metric, value=0.5, trained=60)
        place = fabricate.rows.index((trial, result, folder))
        fabricate.rows[place] = (trial, result.model_copy(update={"kept": kept}), folder)
    _, markdown, _ = report_of(fabricate)
    assert (
        "2 trials are measured with the parameters of their best `valid/loss` or `valid/matthews` "
        "(train.keep: best): of step 20 to 40 where 60 were trained."
    ) in markdown


def test_what_a_name_has_in_brackets_is_in_the_terminals_table(fabricate) -> None:
    fabricate.add("lora", [0.70, 0.72, 0.74]).add("lora [rate=0.1]", [0.71, 0.73, 0.75])
    assert "lora [rate=0.1] " in terminal(collect(fabricate.study, fabricate.pairs))


def test_seeds_that_noted_the_same_are_named_as_a_span(grid_study):
    said = {("G=8", 0), ("G=8", 1), ("G=8", 2), ("lora", 1)}
    pairs = [
        (t, r.model_copy(update={"notes": ("steps are slow",)}) if (t.arm, t.seed) in said else r)
        for t, r in grid_study.pairs
    ]
    markdown = grid_study.report(pairs).markdown.read_text(encoding="utf-8")
    assert "`G=8` seeds 0 to 2; `lora` seed 1: steps are slow" in markdown


def test_only_three_numbers_in_a_row_are_a_span():
    assert numbers([9, 1, 2, 3, 3, 5, 6]) == "1 to 3, 5, 6, 9"
