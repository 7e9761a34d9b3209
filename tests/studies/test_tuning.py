"""The stage before the seeds, and sizes matched to the baseline."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from refused import refusal
from rich.console import Console
from tuned import STUDY, put, rate

from studies.engine.command import cli, dispatch, session
from studies.engine.command.session import Options, Session
from studies.engine.definition.schema import load_study
from studies.engine.definition.study import Study
from studies.engine.errors import StudyError
from studies.engine.planning import edits, runs
from studies.engine.planning.plan import plan, plan_candidates, plan_tuning
from studies.engine.planning.selection import only
from studies.engine.planning.tuning import Choice
from studies.engine.records import Trial, write_record
from studies.engine.reporting.arm_facts import matched
from studies.engine.tracking import background
from studies.engine.trials.trial import run_trial


@pytest.fixture
def study(tmp_path: Path):
    path = tmp_path / "s.yaml"
    path.write_text(STUDY)
    return load_study(path)


def choose(study, stage, runs_dir: Path):
    """What validation chose, by the results in `runs_dir`."""
    by_key = {trial.key: trial for trial in stage}
    tuning = plan_candidates(study, stage)
    return tuning.choices(lambda key: runs.result_of(by_key[key], runs_dir))


def test_a_rank_is_matched_or_tuned(tmp_path: Path) -> None:
    text = STUDY.replace("train.learning_rate: [1.0e-3, 1.0e-2]", "adapter.r: [2, 4]")
    (tmp_path / "s.yaml").write_text(text)
    assert load_study(tmp_path / "s.yaml").tune
    (tmp_path / "s.yaml").write_text(f"{text}match: parameters\n")
    with pytest.raises(StudyError, match="`match` chooses the rank: tune it or match it"):
        load_study(tmp_path / "s.yaml")


def test_every_arm_tries_the_same_and_validation_chooses(study, tmp_path: Path) -> None:
    stage = plan_tuning(study)
    tried = [(trial.arm, trial.seed, rate(trial)) for trial in stage]
    assert len(tried) == len(set(tried)) == 8
    assert ("a", 7, 1e-3) in tried and stage[0].label == "a [learning_rate=0.001]"
    assert {trial.stage for trial in stage} == {"tune"}
    assert choose(study, stage, tmp_path) == []
    for trial in stage:
        better = (rate(trial) == 1e-2) == (trial.arm == "a")
        put(trial, tmp_path, 0.8 if better else 0.7, test=0.1 if better else 0.9)
    choices = choose(study, stage, tmp_path)
    assert choices is not None
    assert {c.arm: dict(c.settings) for c in choices} == {
        "a": {"train.learning_rate": 1e-2},
        "lora": {"train.learning_rate": 1e-3},
    }
    seeds = plan(study, choices)
    assert {(t.arm, rate(t)) for t in seeds} == {("a", 1e-2), ("lora", 1e-3)}
    assert not {t.key for t in seeds} & {t.key for t in stage}
    assert all("train.learning_rate" not in t.swept for t in seeds)


def test_arms_whose_names_look_like_candidates_are_arms(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    arms = "{name: 'lora [a]'}, {name: 'lora [b]', adapter: {num_basis: 4}}"
    path.write_text(STUDY.replace("{name: a}", arms))
    study = load_study(path)
    stage = plan_tuning(study)
    assert {trial.arm for trial in stage} == {"lora", "lora [a]", "lora [b]"}
    for trial in stage:
        better = (rate(trial) == 1e-2) == (trial.arm == "lora [a]")
        put(trial, tmp_path, 0.8 if better else 0.7)
    chosen = {c.arm: c.settings["train.learning_rate"] for c in choose(study, stage, tmp_path)}
    assert chosen == {"lora": 1e-3, "lora [a]": 1e-2, "lora [b]": 1e-3}
    assert len({trial.key for trial in only(stage, ["arm=lora [b]"])}) == 4


def test_a_value_that_fails_on_a_seed_is_not_chosen(study, tmp_path: Path) -> None:
    stage = plan_tuning(study)
    for trial in stage:
        lost = trial.arm == "lora" or (rate(trial) == 1e-2 and trial.seed == 8)
        put(trial, tmp_path, None if lost else (0.9 if rate(trial) == 1e-2 else 0.6))
    choices = choose(study, stage, tmp_path)
    assert choices is not None
    a, lora = choices
    assert dict(a.settings) == {"train.learning_rate": 1e-3} and a.scores[1][1] is None
    assert dict(lora.settings) == {}
    plain = {t.arm: t.key for t in plan(study) if t.seed == 0}
    assert {t.arm: t.key for t in plan(study, choices) if t.seed == 0}["lora"] == plain["lora"]


@pytest.mark.parametrize(
    ("others", "close"),
    [((0.79, 0.81), True), ((0.79, 0.79), False), ((0.79, None), False), ((0.7, 0.81), True)],
)
def test_a_value_within_one_standard_error_is_close(
    study, tmp_path: Path, others: tuple[float, float | None], close: bool
) -> None:
    stage = plan_tuning(study)
    for trial in stage:
        best = (0.8, 0.81)[trial.seed - 7]
        put(trial, tmp_path, best if rate(trial) == 1e-2 else others[trial.seed - 7])
    for choice in choose(study, stage, tmp_path):
        assert dict(choice.settings) == {"train.learning_rate": 1e-2}
        assert choice.close == (({"train.learning_rate": 1e-3},) if close else ())


def test_an_end_of_what_was_tried_is_said_from_three_values_on() -> None:
    def chosen(rate: float, tried: list[float]) -> dict[str, str]:
        scores = tuple(({"train.learning_rate": each}, 0.5) for each in tried)
        return Choice("a", {"train.learning_rate": rate}, scores).edges

    assert chosen(1.0, [1.0, 2.0, 3.0]) == {"train.learning_rate": "smallest"}
    assert chosen(3.0, [1.0, 2.0, 3.0]) == {"train.learning_rate": "largest"}
    assert chosen(2.0, [1.0, 2.0, 3.0]) == chosen(1.0, [1.0, 2.0]) == {}
    for values in ("abc", ([1], [2], [1, 2])):
        others = tuple(({"adapter.x": each}, 0.5) for each in values)
        assert Choice("a", {"adapter.x": values[0]}, others).edges == {}
    assert Choice("a", {}, others).edges == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (", seeds: [7, 8]", "", "s.yaml:8: tune.seeds: required, but not given"),
        ("[7, 8]", "[7, -8]", "s.yaml:8: tune.seeds[1]: expected at least 0, got -8"),
        ("seeds: [7, 8]", "seeds: [7], extend: 9", "tune.extend: expected at most 8, got 9"),
        ("[1.0e-3, 1.0e-2], seeds: [7, 8]", "0.1, seeds: [7]", "expected a list, got 0.1"),
        (
            "train.learning_rate: [1.0e-3, 1.0e-2]",
            "train.warmup_ratio: [0.1, 0.2, 0.5], extend: 1",
            "s.yaml:8: tune.train.warmup_ratio: `extend` comes to 1.25: Input should be less than",
        ),
        ("train.learning_rate: [1.0e-3, 1.0e-2], ", "", "nothing to tune"),
        ("1.0e-2]", "-1.0]", "tune.train.learning_rate: Input should be greater than 0, got -1.0"),
        (
            "train.learning_rate",
            "train.learning_rat",
            "tune.train.learning_rat: unknown setting. Did you mean 'learning_rate'?",
        ),
        (
            "train.learning_rate: [1.0e-3, 1.0e-2]",
            "adapter.alpa: [8]",
            "s.yaml:8: tune.adapter.alpa: the arm 'a' cannot have 8: method 'basis' has no option "
            "'alpa'. Did you mean 'alpha'?",
        ),
        ("train.learning_rate", "task.train_rows", "expected a setting of `train`, or of"),
        (", select_on: valid/accuracy", "", "tuning needs a validation metric"),
        ("seeds: [7, 8]", "seeds: [7, 0]", "tune.seeds: 0 of `seeds`: what is chosen must"),
        ("seeds: [7, 8]", "seeds: [7, 7]", "tune.seeds: each once, got 7 repeatedly"),
        ("1.0e-2]", "1.0e-3]", "tune.train.learning_rate: each once, got 0.001 repeatedly"),
        ("1.0e-2]", "1.0000001e-3]", "each once, got 0.001 repeatedly (at six digits)"),
        ("select_on: valid/accuracy", "select_on: test/accuracy", "s.yaml:6: objective.select_on: "
         "choices are made on validation, never on test: valid/accuracy"),
        ("select_on: valid/accuracy", "select_on: valid/loss", "'valid/loss' is to minimize"),
        ("train.learning_rate: [1.0e-3, 1.0e-2]", "adapter.r: [4, -1]", "arm 'a' cannot have -1"),
        ("train.learning_rate: [1.0e-3, 1.0e-2]", "adapter.r: [4, {b: 1}]", "cannot have {'b': 1}"),
        ("train.learning_rate: [1.0e-3, 1.0e-2]", "adapter.num_basis: [4, 8]",
         "tune.adapter.num_basis: the arm 'lora' cannot have 4: method 'lora' has no option"),
        ("train.learning_rate: [1.0e-3, 1.0e-2]", "adapter: [4, 8]", "expected a setting of"),
        ("{name: a}", "{name: a, set: {train.learning_rate: 0.1}}", "the arm 'a' sets it itself"),
    ],
)  # fmt: skip
def test_a_stage_that_means_nothing_is_refused(tmp_path: Path, old, new, message) -> None:
    assert message in refusal(tmp_path, STUDY, old, new)


TRAINED = """\
name: s
question: Which?
backbone: {{name: {bert}}}
task: {{name: {csv}, train_rows: 64, valid_rows: 40, test_rows: 60}}
adapter: {{method: lora, r: 6, target_modules: [query, value]}}
train: {{max_steps: 2, batch_size: 16}}
arms: [{{name: lora}}, {{name: loha, adapter: {{method: loha, r: 1}}}}]
baseline: lora
match: parameters
objective: {{metric: test/accuracy, select_on: valid/accuracy}}
seeds: [0]
"""


def test_a_size_is_chosen_for_the_baselines_parameters(
    tiny_bert: Path, tiny_csv: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(TRAINED.format(bert=tiny_bert, csv=tiny_csv))
    lora, loha = plan(load_study(path))
    assert "match" not in lora.config and loha.config["match"] == lora.config["adapter"]
    first, second = run_trial(lora, tmp_path / "lora"), run_trial(loha, tmp_path / "loha")
    assert first.cost is not None and second.cost is not None, second.failure
    assert second.chosen["option"] == "r" and second.chosen["value"] == 3  # twice LoRA's factors
    assert second.cost.adapter_parameters == first.cost.adapter_parameters
    assert second.chosen["reference_parameters"] == first.cost.adapter_parameters
    assert "not matched" not in matched([second])
    again = run_trial(loha, tmp_path / "again")
    assert again.metrics == second.metrics
    loha.config["adapter"] = {"method": "basis", "form": "spectral", "target_modules": ["query"]}
    third = run_trial(loha, tmp_path / "spectral")
    assert "**not matched**, 0.13 times as many" in matched([third])


@pytest.mark.slow
@pytest.mark.usefixtures("trained_here", "without_figures")
def test_both_stages_run_and_the_report_says_what_was_chosen(
    tiny_bert: Path, tiny_csv: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        background, "deliver", lambda *a: background.pages.MlflowLink("", "http://server/#/x")
    )
    monkeypatch.setattr(background.pages.TrackedStudy, "open", _refuse)
    text = TRAINED.format(bert=tiny_bert, csv=tiny_csv)
    text = text.replace(", {name: loha, adapter: {method: loha, r: 1}}", "")
    Path("s.yaml").write_text(text + "tune: {train.learning_rate: [1.0e-4, 0.02], seeds: [9]}\n")
    assert cli.main(["s.yaml", "--report"]) == cli.INCOMPLETE
    assert "the tuning stage has 2 trials without a result (lora)" in capsys.readouterr().err
    assert cli.main(["s.yaml", "--slots", "2"]) == cli.DONE
    printed = capsys.readouterr().out
    assert printed.count("[2/2] done") == 1 and printed.count("[1/1] done") == 1
    assert cli.main(["s.yaml", "--runs", "copy", "--import", "runs"]) == cli.DONE
    printed = capsys.readouterr()
    assert "2 results taken, 0 known already, 0 refused" in printed.out
    assert "\n1 results taken, 0 known already, 0 refused" in printed.out
    assert "refused:" not in printed.err
    report = Path("runs/s/embedded/report/report.md").read_text()
    assert Path("copy/s/embedded/report/report.md").read_text() == report
    assert "## Tuning" in report and "| arm | learning_rate 0.0001 | learning_rate 0.02 |" in report
    assert report.count("| lora | **") == 1 or "| **" in report


def test_trials_of_a_tuning_stage_under_way_are_on_the_page(
    study, tmp_path: Path, monkeypatch
) -> None:
    delivered = []
    monkeypatch.setattr(background, "deliver", lambda *a: delivered.append(a[1:3]))
    first, *_ = plan_tuning(study)
    put(first, tmp_path, 0.7)
    opened = Session(study, Options(runs_dir=tmp_path), Console(), lambda text, style: None)
    assert opened.report() == cli.INCOMPLETE
    [([(trial, result, _)], report)] = delivered
    assert (trial, result.status, report) == (first, "done", None)


def _refuse(*arguments):
    raise RuntimeError("no page")


def test_a_plan_of_a_part_of_a_tuned_study(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(STUDY)
    assert cli.main(["s.yaml", "--plan", "--only", "arm=lora"]) == cli.DONE
    printed = capsys.readouterr().out
    assert "4 trials: 4 waiting" in printed and "then 1 tuned arms with 2 seeds each" in printed


def test_trials_of_an_earlier_version_are_no_renamed_arms(study, tmp_path: Path) -> None:
    stage = plan_tuning(study)
    for trial in stage:
        put(trial, tmp_path, 0.7)
        old = {"schema_version": 1, "stage": "seeds", "candidate": {}, "arm": trial.label}
        folder = runs.trial_dir(trial, tmp_path)
        write_record(folder / "trial.json", trial.model_copy(update=old))
    seeds = plan(study, choose(study, stage, tmp_path))
    assert [edits.remarks(study, s, [*stage, *seeds], tmp_path) for s in ("tune", "seeds")] == [
        [],
        [],
    ]


def test_the_hours_of_the_budget_are_those_of_both_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(STUDY + "budget: {max_hours: 3}\n")
    moments = iter([0.0, 4.0, 4.0, 4.0])
    clock = SimpleNamespace(monotonic=lambda: 3600 * next(moments))
    monkeypatch.setattr(session, "time", clock)
    monkeypatch.setattr(Session, "deliver", lambda *arguments: True)
    given: list[float | None] = []

    def run(study: Study, trials: list[Trial], runs_dir: Path, *_: Any, **__: Any) -> None:
        given.append(study.budget.max_hours)
        for trial in trials:
            put(trial, runs_dir, rate(trial))

    monkeypatch.setattr(dispatch, "run", run)
    monkeypatch.setattr(background, "Tracking", lambda *arguments: contextlib.nullcontext())
    said: list[str] = []
    opened = Session(load_study(path), Options(runs_dir=tmp_path, fetch=False), Console(),
                      lambda text, style: said.append(text))  # fmt: skip
    assert opened.run(lambda *a: None) == cli.INCOMPLETE
    assert given == [3.0] and said[-1].startswith("the seeds: budget.max_hours is used up")
