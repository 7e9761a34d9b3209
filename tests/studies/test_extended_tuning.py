"""`tune.extend`: values beyond the ends of a list, for the arms whose best is there."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from tuned import STUDY, put, rate, run_here, work_there

from studies.engine.command import cli
from studies.engine.command.plan_queue import PlanQueue
from studies.engine.command.session import Options, Session
from studies.engine.command.stages import TuneStage
from studies.engine.definition.schema import load_study
from studies.engine.definition.tune import Tune
from studies.engine.planning import runs
from studies.engine.planning.plan import plan, plan_tuning
from studies.engine.planning.plan_file import read_plan
from studies.engine.planning.tuning import Choice
from studies.engine.records import Trial, write_record
from studies.engine.reporting import remarks, rendering
from studies.engine.running.durations import Durations
from studies.engine.tracking import background

RATE = "train.learning_rate"
EXTENDED = STUDY.replace(
    "[1.0e-3, 1.0e-2], seeds: [7, 8]", "[2.0e-3, 1.0e-3, 4.0e-3], seeds: [7, 8], extend: 2"
)


@pytest.mark.parametrize(
    ("values", "beyond"),
    [
        ([2e-3, 1e-3, 4e-3], (5e-4, 2.5e-4, 1.25e-4, 8e-3, 1.6e-2, 3.2e-2)),
        ([0.1, 0.2, 0.3], (0.05, 0.025, 0.0125, 0.45, 0.675, 1.0125)),
        ([4, 8, 16], (2, 1, 32, 64, 128)),  # and not 0
        ([5, 6, 7], (4, 3, 2, 8, 9, 10)),
        ([2**20, 2**21, 2**22], (2**19, 2**18, 2**17, 2**23, 2**24, 2**25)),
        ([1e-200, 1e-100, 1.0], (1e-300, 1e100, 1e200, 1e300)),
        (["sinc", "hat", "fourier"], ()),
        ([0.0, 0.1, 1.0], ()),
        ([1e-3, 4e-3], ()),
        ([[1], [2], [3]], ()),
    ],
)
def test_lists_go_on_by_their_ratio(values: list, beyond: tuple) -> None:
    tune = {"adapter.x": values, "seeds": [0]}
    assert Tune.model_validate(tune | {"extend": 3}).beyond("adapter.x") == beyond
    assert Tune.model_validate(tune).beyond("adapter.x") == ()


def test_a_list_of_one_value_may_be_set_where_the_study_extends(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(EXTENDED)
    study = load_study(tmp_path / "s.yaml", settings=[f"tune.{RATE}=[1e-3]"])
    assert study.tune.extend == 2 and {rate(trial) for trial in plan_tuning(study)} == {1e-3}


@pytest.mark.parametrize(
    ("best", "tried", "end"),
    [
        ({"a": 2e-3, "lora": 2e-3}, {"a": [], "lora": []}, {}),
        ({"a": 8e-3, "lora": 2e-3}, {"a": [8e-3, 1.6e-2], "lora": []}, {}),
        (
            {"a": 1e-5, "lora": 1.0},
            {"a": [5e-4, 2.5e-4], "lora": [8e-3, 1.6e-2]},
            {"a": "smallest", "lora": "largest"},
        ),
    ],
)
def test_an_arm_gets_values_beyond_an_end_until_its_best_lies_inside(
    tmp_path: Path, monkeypatch, capsys, best, tried, end
) -> None:
    (tmp_path / "s.yaml").write_text(EXTENDED)
    study = load_study(tmp_path / "s.yaml")

    def valid(trial: Trial) -> float:
        return 0.9 - 0.1 * abs(math.log2(rate(trial) / best[trial.arm]))

    rounds, session = run_here(study, tmp_path, monkeypatch, valid)
    *tuned, seeds = rounds
    assert {t.stage for t in seeds} == {"seeds"} and len(tuned[0]) == 2 * 3 * 2
    more = [trial for each in tuned[1:] for trial in each]
    assert {arm: [rate(t) for t in more if (t.arm, t.seed) == (arm, 7)] for arm in tried} == tried
    assert len(more) == 2 * sum(map(len, tried.values()))
    chosen = {choice.arm: choice for choice in session.before.choices}
    for arm, choice in chosen.items():
        assert rate(next(t for t in seeds if t.arm == arm)) == choice.settings[RATE]
        assert choice.edges == ({RATE: end[arm]} if arm in end else {})
    lines = capsys.readouterr().out.splitlines()
    for arm, values in tried.items():
        said = (
            f"{arm}: its best value so far is the last of a list, so it also tries learning_rate="
        )
        assert [line for line in lines if line.startswith(f"{arm}: ")] == [
            f"{said}{value:g}" for value in values
        ]
    again = TuneStage(study, tmp_path)
    assert again.missing == "" and len(again.trials) == len(tuned[0]) + len(more)
    ended = work_there(study, tmp_path, valid)
    assert sorted(ended) == sorted(trial.key for each in rounds for trial in each)


def test_a_value_beyond_the_end_that_fails_ends_the_walk(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(EXTENDED)
    study = load_study(tmp_path / "s.yaml")
    for trial in plan_tuning(study):
        put(trial, tmp_path, None if rate(trial) > 4e-3 else rate(trial))
    stage = TuneStage(study, tmp_path)
    assert {rate(t) for t in stage.trials} == {1e-3, 2e-3, 4e-3, 8e-3} and stage.missing == ""
    assert {choice.settings[RATE] for choice in stage.choices} == {4e-3}
    assert all(not choice.edges for choice in stage.choices)


CLAIM = "claims: [{claim: a wins, arm: a, than: lora, expect: higher}]\n"


def test_an_import_takes_seeds_before_every_arm_has_chosen(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(background, "deliver", lambda *a: None)
    (tmp_path / "s.yaml").write_text(EXTENDED + CLAIM)
    study, far = load_study(tmp_path / "s.yaml"), tmp_path / "far"
    for trial in plan_tuning(study):
        if rate(trial) in (1e-3, 2e-3, 4e-3):
            good = rate(trial) == (2e-3 if trial.arm == "a" else 4e-3)
            put(trial, far, 0.9 if good else 0.6)
            write_record(runs.trial_dir(trial, far) / "trial.json", trial)
    chosen = [Choice("a", {RATE: 2e-3}, ()), Choice("lora", {RATE: 4e-3}, ())]
    for trial in plan(study, chosen):
        put(trial, far, 0.7)
        write_record(runs.trial_dir(trial, far) / "trial.json", trial)

    def session(name: str, *only: str) -> Session:
        options = Options(runs_dir=tmp_path / name, only=only)
        return Session(study, options, Console(width=200), lambda text, style: print(text))

    assert session("runs").bring_in(far) == cli.INCOMPLETE
    printed = capsys.readouterr().out
    assert "tuning stage: 12 results taken, 0 known already, 0 refused, 4 of the next" in printed
    assert "\n4 results taken, 0 known already, 0 refused\n" in printed
    assert "the tuning stage has 2 trials without a result (lora)" in printed
    assert len(list(tmp_path.rglob("runs/s/embedded/claims.json"))) == 1
    for trial in plan_tuning(study):  # the next value is worse, so lora stays at 4e-3
        if trial.arm == "lora" and rate(trial) == 8e-3:
            put(trial, tmp_path / "runs", 0.6)
    assert all(runs.result_of(t, tmp_path / "runs") for t in session("runs").seeds().trials)
    assert session("other", "arm=lora").bring_in(far) == cli.INCOMPLETE
    printed = capsys.readouterr().out
    assert "tuning stage: 6 results taken" in printed and "has 2 trials without" in printed


def test_results_beyond_that_are_not_asked_for_are_no_edit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(background, "deliver", lambda *a: None)
    (tmp_path / "s.yaml").write_text(EXTENDED)
    study, far, lines = load_study(tmp_path / "s.yaml"), tmp_path / "far", list[str]()
    for trial in plan_tuning(study):  # went beyond 4e-3 while 2e-3 had failed
        if rate(trial) in (1e-3, 2e-3, 4e-3, 8e-3):
            put(trial, far, 0.9 if rate(trial) == 2e-3 else 0.7)
            write_record(runs.trial_dir(trial, far) / "trial.json", trial)
    options = Options(runs_dir=tmp_path / "runs")
    session = Session(study, options, Console(width=200), lambda text, style: lines.append(text))
    assert session.bring_in(far) == cli.INCOMPLETE
    assert not [line for line in lines if "edited" in line or "refused" in line]


def test_a_plan_takes_along_what_its_tuning_has_found(tmp_path: Path, capsys) -> None:
    (tmp_path / "s.yaml").write_text(EXTENDED)
    study, here = load_study(tmp_path / "s.yaml"), tmp_path / "runs"
    for trial in plan_tuning(study):
        if trial.arm == "a" and rate(trial) in (1e-3, 2e-3, 4e-3):
            put(trial, here, rate(trial))
        elif trial.arm == "lora" and trial.seed == 7 and rate(trial) == 1e-3:
            put(trial, here, None)

    def exported(retry_failed: bool) -> tuple[str, list[str]]:
        options = Options(runs_dir=here, retry_failed=retry_failed)
        session = Session(study, options, Console(width=200), lambda *_: None)
        assert session.export(tmp_path / "p.json") == cli.DONE
        queue = PlanQueue(
            [read_plan(tmp_path / "p.json")], tmp_path / "far", False, Durations(), print
        )
        assert len(queue.trials) == len({trial.key for trial in queue.trials})
        return capsys.readouterr().out, [f"{t.arm} {rate(t):g} {t.seed}" for t in queue.trials]

    said, queued = exported(retry_failed=False)
    assert "7 trials, and then the seeds of 2 tuned arms written" in said
    lora = [f"lora {each:g} {seed}" for seed in (7, 8) for each in (2e-3, 1e-3, 4e-3)]
    assert sorted(queued) == sorted([*lora[:1], *lora[2:], "a 0.008 7", "a 0.008 8"])
    said, queued = exported(retry_failed=True)
    assert "8 trials" in said and sorted(queued) == sorted([*lora, "a 0.008 7", "a 0.008 8"])


def test_the_report_says_who_tried_more(tmp_path: Path) -> None:
    scores = [({RATE: each}, 0.5 + each) for each in (0.2, 0.3, 0.4, 0.1)]
    choices = [
        Choice("a", {RATE: 0.3}, tuple(scores[:3])),
        Choice("b", {RATE: 0.1}, tuple(scores), extended=True),
    ]
    outcome = SimpleNamespace(
        choices=choices, chosen_on="valid/accuracy", metric="test/accuracy", is_mean=False,
        select_on="valid/accuracy", search=None, best_steps=(), verdicts=(),
    )  # fmt: skip
    rows = rendering._tuning(outcome).splitlines()
    assert "Empty: no arm tries what lies further" in rows[2]
    assert [cell.strip() for cell in rows[6].split("|")[2:6]] == [
        "",
        "0.7000",
        "**0.8000**",
        "0.9000",
    ]
    said = "; `b` also tried values beyond the end that was the best so far"
    assert any(f"reported{said}." in line for line in remarks._choices(outcome))
    outcome.choices = choices[:1]
    assert not any("also tried" in line for line in remarks._choices(outcome))


def test_columns_of_two_settings_rise(tmp_path: Path) -> None:
    names = [("sinc", 2), ("hat", 2), ("sinc", 4), ("hat", 4), ("hat", 1)]
    tried = [{"basis": basis, "r": r} for basis, r in names]
    assert [(each["basis"], each["r"]) for each in rendering._in_order([*tried, tried[0]])] == [
        ("sinc", 2), ("sinc", 4), ("hat", 1), ("hat", 2), ("hat", 4)
    ]  # fmt: skip
