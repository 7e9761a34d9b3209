"""Several tasks: arms on each and on the mean over all, with made-up results of known truth."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from several import MIXED, STUDY

from studies.engine.command.plan_table import plan_table
from studies.engine.definition import overrides
from studies.engine.definition.schema import load_study
from studies.engine.definition.study import Study
from studies.engine.errors import StudyError
from studies.engine.planning import preregistration
from studies.engine.planning.plan import plan, plan_candidates, plan_tuning
from studies.engine.planning.selection import only
from studies.engine.planning.tuning import Choice
from studies.engine.records import Failure, Result, Trial, write_record
from studies.engine.reporting.outcome import Outcome, collect
from studies.engine.reporting.remarks import reading
from studies.engine.reporting.task_tables import markdown, terminal
from studies.engine.tracking import contents, view
from studies.engine.verdicts.statistics import holm

TASKS = ("sarcasm", "vitaminc", "short")
Load = Callable[..., Study]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.chdir(tmp_path)

    def of(text: str = STUDY, more: str = "") -> Study:
        Path("s.yaml").write_text(text + more)
        return load_study("s.yaml")

    return of


def found(trials: list[Trial], value: Callable[[Trial], float], **more: float) -> Any:
    """Pairs for `collect`, with `value` as accuracy."""
    return [
        (t, Result(key=t.key, status="done", metrics={"test/accuracy": value(t), **more},
                   data={"hash": t.task}))
        for t in trials
    ]  # fmt: skip


def made_up(trials: list[Trial], gains: dict[tuple[str, str], float], spread: float = 0) -> Any:
    """Every arm is `gains` of arm and task above the baseline, and a little noise.

    With a `spread` over seeds the arm `low` is as often below it.
    """
    draw = random.Random(0)
    level = dict(zip(TASKS, (0.7, 0.5, 0.8), strict=True))
    return found(
        trials,
        lambda t: (
            level[t.task]
            + 0.02 * t.seed
            + gains.get(t.cell, 0.0)
            + draw.gauss(0, 0.001)
            + spread * (t.seed - 1) * (t.arm == "low")
        ),
    )


def test_every_arm_is_planned_on_every_task(load: Load) -> None:
    trials = plan(load())
    assert len(trials) == len({trial.key for trial in trials}) == 3 * 3 * 3
    assert [t.title for t in trials[:4]] == [
        "lora on sarcasm", "low on sarcasm", "high on sarcasm", "lora on vitaminc"
    ]  # fmt: skip
    assert {t.label for t in trials} == {"lora", "low", "high"}
    rows = {t.task: (t.config["task"], t.config["train"]["epochs"]) for t in trials}
    shared = {"valid_rows": 200, "test_rows": 600}
    assert rows["vitaminc"][0] == {
        **shared,
        "name": "vitaminc",
        "train_rows": 480,
        "max_length": 96,
    }
    assert rows["short"][0] == {
        **shared, "name": "movie_sentences", "train_rows": 100, "max_length": 32
    }  # fmt: skip
    assert [epochs for _, epochs in rows.values()] == [2, 3, 2]


def test_a_task_has_the_keys_of_a_study_of_its_own(load: Load) -> None:
    several = {t.seed: t.key for t in plan(load()) if t.cell == ("low", "sarcasm")}
    lines = [line for line in STUDY.splitlines() if not line.startswith(("tasks", "  - "))]
    alone = plan(load("\n".join([*lines, "task: {name: sarcasm}"])))
    assert {t.seed: t.key for t in alone if t.arm == "low"} == several
    assert {t.task for t in alone} == {""}


@pytest.mark.parametrize(
    ("given", "epochs", "told"),
    [
        ("train.epochs=1", [1, 3, 1], " in all arms but on 'vitaminc', a task that sets it itself"),
        ("task.valid_rows=90", [2, 3, 2], ""),
        ("task.name=x", None, "--set: task.name: all tasks to which it applies set it themselves"),
    ],
)
def test_set_reaches_tasks_that_leave_it(
    load: Load, given: str, epochs: list[int] | None, told: str
) -> None:
    load()
    if epochs is None:
        with pytest.raises(StudyError, match=told):
            load_study("s.yaml", settings=[given])
        return
    study = load_study("s.yaml", settings=[given])
    assert overrides.remarks(study) == [given + told]
    assert [t.config["train"]["epochs"] for t in plan(study) if t.cell[0] == "low"] == 3 * epochs


def test_tuning_multiplies_on_each_task(load: Load) -> None:
    text = STUDY.replace("{adapter.r: 2}", "{adapter.r: 2, train.learning_rate: {times: 0.5}}")
    tune = "tune: {train.learning_rate: [1.0e-3, 4.0e-3], seeds: [100]}\n"
    rates = [t.config["train"]["learning_rate"] for t in plan_tuning(load(text, tune))]
    assert sorted(set(rates)) == [5e-4, 1e-3, 2e-3, 4e-3] and len(rates) == 18
    with pytest.raises(StudyError, match="the task 'short' sets it itself"):
        load(STUDY.replace("task.train_rows: 100", "train.learning_rate: 0.1"), tune)


MULTIPLES = """\
question: Which?
adapter: {method: lora}
tasks: [sarcasm, vitaminc]
sweep: {train.learning_rate: [{times: 0.5}, {times: 1}, {times: 2}], adapter.r: [2, 4]}
baseline: learning_rate=times:1 r=2
objective: {metric: test/accuracy, select_on: valid/accuracy}
tune: {train.learning_rate: [1.0e-3, 7.0e-3], seeds: [100]}
"""


def test_a_mean_has_no_multiple_that_differs_between_tasks(load: Load) -> None:
    study = load(MULTIPLES)
    rates = {"sarcasm": 1e-3, "vitaminc": 7e-3}
    choices = [
        Choice(arm, {"train.learning_rate": rates[task]}, (), task=task)
        for arm, task in dict.fromkeys(t.cell for t in plan(study))
    ]
    outcome = collect(study, found(plan(study, choices=choices), lambda t: 0.5 + 0.1 * t.seed))
    assert outcome.axis == "adapter.r" and {arm.x for arm in outcome.arms} == {2, 4}
    assert all(arm.swept.keys() == {"adapter.r"} for arm in outcome.arms)
    own = {arm.name: arm.swept for arm in outcome.tasks["vitaminc"].arms}
    assert own["learning_rate=times:2 r=4"]["train.learning_rate"] == 0.014
    claim = "{claim: c, trend: {over: train.learning_rate}, arm: ARM, expect: higher}"
    with pytest.raises(StudyError, match="`tune` chooses it: nobody knows yet what arms have"):
        load(MULTIPLES, f"claims: [{claim.replace('ARM', study.baseline)}]\n")


def test_tasks_are_chosen_by_only(load: Load) -> None:
    trials = plan(load())
    chosen = only(trials, ["task=short", "arm=low"])
    assert {t.cell for t in chosen} == {("low", "short")} and len(chosen) == 3
    with pytest.raises(ValueError, match=r"no trial has it.*Values: sarcasm, vitaminc, short"):
        only(trials, ["task=shirt"])


def test_the_plan_counts_each_task(load: Load) -> None:
    trials = plan(load())
    for trial in trials[:4]:
        result = Result(key=trial.key, status="done", seconds=60.0)
        write_record(Path("runs/s/embedded/trials") / trial.key / "result.json", result)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))
    console.print(plan_table(trials, Path("runs"), lambda: 2))
    text = console.export_text()
    assert "sarcasm: 9 trials: 3 done, 6 waiting; about 3 min left on 2 slots" in text
    assert "short: 9 trials: 9 waiting; no finished trial yet: no estimate" in text
    assert "27 trials: 4 done, 23 waiting" in text
    assert text.index("sarcasm") < text.index("vitaminc") < text.index("short")


RIGHT = {("high", task): gain for task, gain in zip(TASKS, (0.03, 0.05, 0.04), strict=True)}


def words(outcome: Outcome) -> list[str]:
    return [verdict.word for verdict in outcome.verdicts]


def test_claims_are_on_the_mean_or_on_one_task(load: Load) -> None:
    study = load(more="""\
claims:
  - {claim: wins by 3 points, arm: high, than: lora, expect: higher, margin: 0.03}
  - {claim: loses, arm: high, than: lora, expect: lower}
  - {claim: depends on the seed, arm: low, than: lora, expect: higher}
  - {claim: not on one task, task: sarcasm, arm: high, than: lora, expect: higher, margin: 0.04}
  - {claim: on another, task: vitaminc, arm: high, than: lora, expect: higher, margin: 0.04}
""")  # fmt: skip
    outcome = collect(study, made_up(plan(study), RIGHT, 0.05))
    assert words(outcome) == ["confirmed", "refuted", "not decided", "refuted", "confirmed"]
    first, *_, last = outcome.verdicts
    assert first.n == 3 and first.difference == pytest.approx(0.04, abs=2e-3)
    assert first.rule.startswith("test/accuracy (mean over tasks): `high` − `lora`")
    assert last.rule.startswith("test/accuracy (vitaminc): ")
    wrong = {cell: -gain for cell, gain in RIGHT.items()}
    other = collect(study, made_up(plan(study), wrong, 0.05))
    assert words(other) == ["refuted", "confirmed", "not decided", "refuted", "refuted"]


def test_a_trend_is_on_the_mean_too(load: Load) -> None:
    more = "claims: [{claim: up, trend: {over: adapter.r, scale: log2}, expect: higher}]\n"
    study = load(STUDY.replace("lora}\n", "lora, r: 8}\n"), more)
    gains = {("low", t): -0.02 for t in TASKS} | {("high", t): 0.01 for t in TASKS}
    [verdict] = collect(study, made_up(plan(study), gains)).verdicts
    assert verdict.word == "confirmed" and verdict.n == 3
    assert verdict.difference == pytest.approx(0.01, abs=1e-3)  # of each doubling


def test_means_and_the_test_over_tasks_are_those_of_numpy(load: Load) -> None:
    study = load()
    gains = RIGHT | {("low", t): g for t, g in zip(TASKS, (-0.02, 0.01, 0.0), strict=True)}
    pairs = made_up(plan(study), gains)
    outcome = collect(study, pairs)
    values = {arm: np.zeros((3, 3)) for arm in ("lora", "low", "high")}
    for trial, result in pairs:
        place = TASKS.index(trial.task), trial.seed
        values[trial.arm][place] = result.metrics["test/accuracy"]
    by_name = {arm.name: arm for arm in outcome.arms}
    for name, of in values.items():
        assert list(by_name[name].values.values()) == pytest.approx(of.mean(axis=0))
        for i, task in enumerate(TASKS):
            own = next(arm for arm in outcome.tasks[task].arms if arm.name == name)
            assert own.summary.mean == pytest.approx(of[i].mean())
    differences = {n: (values[n] - values["lora"]).mean(axis=1) for n in ("low", "high")}
    tests = {n: stats.ttest_1samp(d, 0.0) for n, d in differences.items()}
    corrected = holm([test.pvalue for test in tests.values()])
    for (name, test), p in zip(tests.items(), corrected, strict=True):
        over = outcome.over_tasks[name]
        assert (over.p, over.p_holm) == pytest.approx((test.pvalue, p))
        assert (over.low, over.high) == pytest.approx(tuple(test.confidence_interval()))
        assert over.seeds == TASKS
        paired = stats.ttest_rel(values[name].mean(axis=0), values["lora"].mean(axis=0))
        assert by_name[name].comparison.p == pytest.approx(paired.pvalue)
    assert outcome.over_tasks["high"].words("maximize") == "better"
    assert outcome.over_tasks["low"].words("maximize") == "no evidence of a difference"


def test_the_report_has_arms_by_tasks(load: Load) -> None:
    study = load()
    text = markdown(
        collect(study, found(plan(study), lambda t: {"sarcasm": 0.75}.get(t.task, 0.5)))
    )
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| arm | sarcasm | vitaminc | short | mean over 3 |"
    assert rows[2] == "| lora | 0.7500 | 0.5000 | 0.5000 | 0.5833 |"
    assert rows[7].startswith(
        "| low | +0.0000 | +0.0000 | +0.0000 | +0.0000 | +0.0000 | — | not test"
    )
    assert "0.5833" in terminal(collect(study, found(plan(study), lambda t: 0.5833)))


def test_a_seed_that_lacks_a_task_is_in_no_mean(load: Load) -> None:
    study = load()
    pairs = found(plan(study), lambda t: 0.5 + 0.1 * t.seed)
    trial, result = next(p for p in pairs if p[0].cell == ("low", "short") and p[0].seed == 1)
    failure = Failure(kind="out_of_memory", message="ran out")
    broken = result.model_copy(update={"status": "failed", "failure": failure})
    outcome = collect(study, [(t, broken if t is trial else r) for t, r in pairs])
    low = next(arm for arm in outcome.arms if arm.name == "low")
    assert dict(low.values) == {0: 0.5, 2: pytest.approx(0.7)}
    assert [(f.arm, f.task, f.seed) for f in outcome.failed] == [("low", "short", 1)]
    assert outcome.seeds == (0, 1, 2) and len(outcome.data) == 3
    waiting = collect(study, [p for p in pairs if p[0].task != "short"])
    assert [arm.summary.n for arm in waiting.arms] == [0, 0, 0]
    assert waiting.tasks["sarcasm"].arms[0].summary.n == 3


def test_different_metrics_have_a_mean_where_the_study_says_so(load: Load) -> None:
    study = load(MIXED, "claims: [{claim: c, arm: low, than: lora, expect: within, margin: 1}]\n")
    assert study.objective_of("glue_cola").metric == "test/matthews"
    assert study.objective_of().metric == "test/mean"
    trials = plan(study)
    outcome = collect(study, found(trials, lambda t: 0.5, **{"test/matthews": 0.1}))
    assert dict(outcome.arms[0].values) == {seed: pytest.approx(0.3) for seed in study.seeds}
    assert "`test/matthews` for glue_cola" in markdown(outcome)
    keeps = load(MIXED, "train: {eval_every: 5, keep: best}\n")
    chosen = {t.task: t.config["select_on"] for t in plan(keeps)}
    assert chosen == {"glue_rte": "valid/accuracy", "glue_cola": "valid/matthews"}


def test_a_seed_that_lacks_a_value_on_one_task_is_none_that_had_it(load: Load) -> None:
    study = load(more="train: {eval_every: 5}\nafter: {steps_to: 0.8}\n")
    pairs = found(plan(study), lambda t: 0.5, **{"after/steps_to_0.8/steps": 10.0})
    had = {True: {"after/steps_to_0.8/reached": 1.0}, False: {"after/steps_to_0.8/reached": 0.0}}
    pairs = [
        (t, r.model_copy(update={"metrics": r.metrics | had[(*t.cell, t.seed) != lacking]}))
        for lacking in [("low", "short", 0)]
        for t, r in pairs
    ]
    reached = {a.arm: a.steps_to[0].reached for a in collect(study, pairs).after}
    assert reached == {"lora": 3, "low": 2, "high": 3}


def test_each_task_may_have_its_own_metric_to_choose_by(load: Load) -> None:
    own = MIXED.replace("select_on: valid/accuracy, mixed", "mixed")
    asks = "train: {eval_every: 5}\nafter: {steps_to: 0.5}\n"
    with pytest.raises(StudyError, match=r"after\.steps_to: needs objective\.select_on"):
        load(own, asks)
    study = load(own.replace("  - glue_rte", "  - {name: glue_rte, select_on: valid/loss}"), asks)
    outcome = collect(study, found(plan(study), lambda t: 0.5, **{"test/matthews": 0.1}))
    assert outcome.chosen_on == "`valid/loss` or `valid/matthews`"
    assert "Whatever is chosen is chosen on `valid/loss` or `valid/matthews`" in reading(outcome)[2]


def test_gaps_of_different_metrics_have_a_mean(load: Load) -> None:
    study = load(MIXED, "after: {generalization: true}\n")
    more = {"test/matthews": 0.1, "after/train/accuracy": 0.9, "after/train/matthews": 0.3}
    more |= {"after/generalization_gap/accuracy": 0.4, "after/generalization_gap/matthews": 0.2}
    arm = collect(study, found(plan(study), lambda t: 0.5, **more)).after[0].generalization
    assert arm is not None
    assert (arm.train.mean, arm.gap.mean) == pytest.approx((0.6, 0.3))


def test_every_arm_is_tuned_on_each_task(load: Load) -> None:
    study = load(MIXED, "tune: {train.learning_rate: [1.0e-3, 4.0e-3], seeds: [100]}\n")
    stage = plan_tuning(study)
    assert len(stage) == 2 * 2 * 2
    tuning = plan_candidates(study, stage)
    best = {"glue_rte": 1e-3, "glue_cola": 4e-3}

    def result_of(key: str) -> Result:
        trial = next(t for t in stage if t.key == key)
        good = trial.candidate["train.learning_rate"] == best[trial.task]
        misled = {"glue_rte": "valid/matthews", "glue_cola": "valid/accuracy"}[trial.task]
        own = {"glue_rte": "valid/accuracy", "glue_cola": "valid/matthews"}[trial.task]
        metrics = {own: 0.5 + 0.1 * good, misled: 0.9 - 0.1 * good}
        return Result(key=key, status="done", metrics=metrics)

    choices = tuning.choices(result_of)
    assert {c.title: c.settings["train.learning_rate"] for c in choices} == {
        f"{arm} on {task}": rate for arm in ("lora", "low") for task, rate in best.items()
    }
    rates = {t.cell: t.config["train"]["learning_rate"] for t in plan(study, choices=choices)}
    assert rates == {(arm, t): rate for arm in ("lora", "low") for t, rate in best.items()}
    assert {t.cell for c in choices for t in c.trials} == set(rates)


def test_parts_of_one_task_are_tabulated_and_tested(load: Load) -> None:
    text = MIXED[: MIXED.index("tasks:")] + MIXED[MIXED.index("arms:") :].split("objective")[0]
    study = load(text, "task: {name: glue_cola}\nobjective: {metric: test/matthews, "
                 "parts: [test/accuracy, test/matthews]}\n")  # fmt: skip
    pairs = [
        (t, Result(key=t.key, status="done",
                   metrics={"test/accuracy": 0.6 + 0.1 * t.seed + 0.04 * (t.arm == "low"),
                            "test/matthews": 0.2 + 0.1 * t.seed + 0.02 * (t.arm == "low")}))
        for t in plan(study)
    ]  # fmt: skip
    outcome = collect(study, pairs)
    assert outcome.arms[0].values[0] == 0.2 and not outcome.is_mean
    assert outcome.over_tasks["low"].difference == pytest.approx(0.03)
    assert "| low | 0.7400 " in markdown(outcome)


def test_other_tasks_after_results_are_other_claims(load: Load) -> None:
    claims = "claims: [{claim: c, arm: low, than: lora, expect: higher}]\n"
    study = load(more=claims)
    assert preregistration.remarks(study, Path("runs"), keep=True) == []
    assert not preregistration.changes(study, Path("runs")).claims
    other = load(STUDY.replace("  - sarcasm\n", ""), claims)
    assert preregistration.changes(other, Path("runs")).claims


def test_views_of_trials_show_the_metric_of_each_task(load: Load) -> None:
    study = load(MIXED, "tune: {train.learning_rate: [1.0e-3, 4.0e-3], seeds: [100]}\n")
    trials = [*plan_tuning(study), *plan(study)]
    rows = {(t.label, t.task): view.row_of(t, Result(key=t.key, status="done")) for t in trials}
    found = view.views(study.objective, view.merged(rows), summarized=True,
                       whole=study.objective_of(), tasks=study.compared())  # fmt: skip
    columns = {key: json.loads(tag)["selectedColumns"] for key, tag in found.items()}
    assert {"metrics.`test/accuracy`", "metrics.`test/matthews`"} < set(columns["trials"])
    assert columns["tune"][:3] == [
        "tags.`task`", "metrics.`valid/accuracy`", "metrics.`valid/matthews`"
    ]  # fmt: skip


def test_runs_in_mlflow_say_the_task(load: Load) -> None:
    trial = plan(load())[3]
    result = Result(key=trial.key, status="done")
    tags = contents.tags(trial, result, "lora", {})
    assert (tags["arm"], tags["task"], tags["baseline"]) == ("lora", "vitaminc", "true")
    assert contents.run_name(trial) == "lora on vitaminc s0"
    assert contents.params(trial)["task.name"] == "vitaminc"
    assert trial.varied["task.name"] == "vitaminc"
