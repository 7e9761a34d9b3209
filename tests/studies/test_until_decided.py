"""Seeds until decided, from the command: which trials run look by look, stopped, moved, edited."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_trials
import pytest

from studies.engine.command import cli, session, work
from studies.engine.reporting import report
from studies.engine.running import local
from studies.engine.tracking import background
from studies.engine.trials import devices, fetching

pytestmark = pytest.mark.slow

STUDY = """\
name: s
question: Which?
adapter: {method: lora}
arms: [{name: lora}, {name: low, set: {adapter.r: 2}}, {name: high, set: {adapter.r: 16}}]
baseline: lora
objective: {metric: test/accuracy, select_on: valid/accuracy}
seeds: {at_least: 3, at_most: 12, until: decided}
claims:
  - {claim: low loses, arm: low, than: lora, expect: lower}
  - {claim: high wins, arm: high, than: lora, expect: higher}
"""
CLEAR, UNCLEAR = 0.2, 0.0025
"""Differences to LoRA that three seeds tell, and that twelve do not."""


FOUND = """
def found(run_dir):
    trial = json.load(open(run_dir + "/trial.json"))
    told = json.load(open(os.path.dirname(journal) + "/gains.json"))
    noise = ((trial["seed"] * 7 + len(trial["arm"])) % 5 - 2) / 100
    value = 0.5 + told.get(trial["arm"], 0) + noise * (trial["arm"] != "lora")
    if trial["seed"] == told.get("interrupt"):
        os.kill(int(told["command"]), signal.SIGINT)
        time.sleep(60)
    name = "train/loss" if trial["seed"] == told.get("fails") else "test/accuracy"
    return {name: value, "valid/accuracy": value}
"""
SCRIPT = fake_trials.SCRIPT.replace('["fake"]', '.get("fake", {})').replace(
    'fake.get("metrics", {"test/accuracy": 0.75, "valid/accuracy": 0.7})', "found(run_dir)"
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, empty_database: Path) -> Run:
    """Runs the command on a study with these differences to LoRA: exit code, output, messages."""
    monkeypatch.chdir(tmp_path)
    for folder in ("runs", "again"):  # to make the tables takes longer than a look
        Path(folder).mkdir()
        shutil.copy(empty_database, folder)
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    monkeypatch.setattr(fake_trials, "SCRIPT", SCRIPT.replace("\ndef train", f"{FOUND}\ndef train"))
    for module in (local, work):
        monkeypatch.setattr(module, "LocalRunner", fake_trials.local_runner(tmp_path / "journal"))
    monkeypatch.setattr(fetching.backbones, "fetch", lambda spec: None)
    monkeypatch.setattr(fetching.tasks, "fetch", lambda spec: None)
    monkeypatch.setattr(background, "Tracking", NoPage)
    link = background.pages.MlflowLink("", "http://server/#/x")
    monkeypatch.setattr(background, "deliver", lambda *a: link)
    monkeypatch.setattr(report.Draft, "figures", {})

    def of(*more: str, study: str = STUDY, **gains: float) -> tuple[int, str, str]:
        Path("s.yaml").write_text(study)
        Path("gains.json").write_text(json.dumps({"low": -CLEAR, "high": CLEAR} | gains))
        code = cli.main(["s.yaml", "--slots", "2", *more])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return of


class NoPage:
    def __init__(self, *arguments: Any) -> None: ...

    def __enter__(self) -> "NoPage":
        return self

    def __exit__(self, *arguments: Any) -> None: ...

    def end_trial(self, *arguments: Any) -> None: ...


def seeds_of(runs: str = "runs") -> dict[str, int]:
    """How many seeds of each arm have a result."""
    files = Path(runs).rglob("result.json")
    return dict(Counter(json.loads((f.parent / "trial.json").read_text())["arm"] for f in files))


def verdicts(runs: str = "runs") -> list[tuple[str, int]]:
    told = json.loads(Path(f"{runs}/s/embedded/report/report.json").read_text())
    return [(claim["word"], claim["look"]) for claim in told["claims"]]


def trials_of(runs: str) -> set[str]:
    return {file.parent.name for file in Path(runs).rglob("result.json")}


def report_of() -> str:
    return Path("runs/s/embedded/report/report.md").read_text()


def test_it_stops_at_the_first_look_where_all_is_decided(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (cli.DONE, "")
    assert "look 1 of 3: 3 seeds of every arm; 9 trials now, at most 36 in all" in out
    assert "look 1 of 3: every claim is decided after 3 seeds" in out
    assert seeds_of() == {"lora": 3, "low": 3, "high": 3}
    assert verdicts() == [("confirmed", 3), ("confirmed", 3)]


def test_it_goes_on_for_arms_of_open_claims_alone(run: Run) -> None:
    code, out, err = run(high=UNCLEAR)
    assert (code, err) == (cli.DONE, "")
    assert (
        "look 2 of 3: 1 of 2 claims is open after 3 seeds: 3 more for lora, high; 6 trials" in out
    )
    assert "look 3 of 3: 1 of 2 claims is open after 12 seeds, the most" in out
    assert seeds_of() == {"lora": 12, "low": 3, "high": 12}
    assert verdicts() == [("confirmed", 3), ("not decided", 12)]


@pytest.mark.usefixtures("heard_signals")
def test_stopped_in_the_second_look_it_goes_on_to_the_same_end(run: Run) -> None:
    assert run("--runs", "again", high=UNCLEAR)[0] == cli.DONE
    told = {"high": UNCLEAR, "interrupt": 4, "command": os.getpid()}
    assert run(**told)[0] == cli.INTERRUPTED
    assert seeds_of()["low"] == 3 and 3 <= seeds_of()["high"] < 6
    code, out, _ = run("--plan", high=UNCLEAR)
    assert code == cli.DONE and "look 2 of 3: 1 of 2 claims is open after 3 seeds" in out
    assert "open: high wins" in out
    code, out, _ = run("--report", high=UNCLEAR)
    assert code == cli.INCOMPLETE and "claims are judged next once this look has ended" in out
    assert run(high=UNCLEAR)[0] == cli.DONE
    assert trials_of("runs") == trials_of("again") and verdicts("runs") == verdicts("again")


def test_each_export_has_the_trials_of_the_next_look(run: Run) -> None:
    exported = []
    for _ in range(4):
        out = run("--export-plan", "plan.json", high=UNCLEAR)[1]
        trials = json.loads(Path("plan.json").read_text())["trials"]
        exported.append(dict(Counter(trial["arm"] for trial in trials)))
        assert work.main(["plan.json", "--runs", "far", "--slots", "2"]) == work.DONE
        code = run("--import", "far", high=UNCLEAR)[0]
        assert code == (cli.INCOMPLETE if len(exported) < 3 else cli.DONE)
    every, two = {"lora": 3, "low": 3, "high": 3}, {"lora": 3, "high": 3}
    assert exported == [every, two, {"lora": 6, "high": 6}, {}]
    assert "look 3 of 3: 1 of 2 claims is open after 12 seeds" in out
    assert run("--runs", "again", high=UNCLEAR)[0] == cli.DONE
    assert trials_of("runs") == trials_of("again") and verdicts("runs") == verdicts("again")


def test_a_look_waits_for_arms_that_only_leaves_out(run: Run) -> None:
    code, out, _ = run("--only", "arm=low", "--only", "arm=lora", high=UNCLEAR)
    assert code == cli.DONE and seeds_of() == {"lora": 3, "low": 3}
    assert (
        "look 1 of 3: claims are judged next once this look has ended, which lacks 3 trials" in out
    )
    assert run("--only", "arm=high", high=UNCLEAR)[0] == cli.DONE
    assert seeds_of() == {"lora": 3, "low": 3, "high": 6}  # and lora's second look is to come
    assert run("--only", "arm=lora", high=UNCLEAR)[0] == cli.DONE
    assert seeds_of() == {"lora": 12, "low": 3, "high": 6}


def test_looks_and_claims_changed_after_results_are_said_to_be(run: Run) -> None:
    assert run(high=UNCLEAR)[0] == cli.DONE
    noted = json.loads(Path("runs/s/embedded/claims.json").read_text())
    assert noted["seeds"] == {"looks": [3, 6, 12], "first": 0}
    more = STUDY.replace("at_most: 12", "at_most: 24")
    _, out, err = run("--plan", study=more, high=UNCLEAR)
    assert (
        "the looks of s.yaml at its claims (`seeds`) were changed after results were there" in err
    )
    assert "look 4 of 4" in out
    softer = STUDY.replace("expect: higher", "expect: higher, margin: 0.001")
    err = run("--report", study=softer, high=UNCLEAR)[2]
    assert "the claims of s.yaml" in err and "looks" not in err
    listed = STUDY.replace("{at_least: 3, at_most: 12, until: decided}", "[0, 1, 2]")
    assert "the looks of s.yaml" in run("--report", study=listed)[2]
    assert "looks at the claims, after so many seeds, were changed" in report_of()


def test_the_order_of_claims_is_no_change_and_a_damaged_note_is_none(run: Run) -> None:
    assert run()[0] == cli.DONE
    head, last, first = STUDY.rstrip().rsplit("\n", 2)
    assert run("--report", study=f"{head}\n{first}\n{last}\n")[::2] == (cli.DONE, "")
    file = Path("runs/s/embedded/claims.json")
    for damaged in ("[1]", '{"claims": null}', '{"claims": [{}]}', '{"claims": [{"expect": 5}]}'):
        file.write_text(damaged)
        assert run("--report")[::2] == (cli.DONE, "")
        assert json.loads(file.read_text())["seeds"] == {"looks": [3, 6, 12], "first": 0}


def test_seeds_added_to_a_list_are_said_in_the_report_and_looks_in_both(run: Run) -> None:
    listed = STUDY.replace("{at_least: 3, at_most: 12, until: decided}", "[0, 1, 2]")
    assert run(study=listed)[0] == cli.DONE
    assert "added after results" not in report_of()
    assert run(study=listed.replace("2]", "2, 3, 4]"))[::2] == (cli.DONE, "")
    assert "Seeds 3, 4 were added after results were there" in report_of()
    file = Path("runs/s/embedded/claims.json")
    before = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in before.items() if k != "seeds"}))
    assert run("--report", study=listed)[0] == cli.DONE  # as earlier versions noted it
    assert "were added after results" not in report_of()
    assert "the looks of s.yaml" in run("--plan")[2]


def test_what_failed_is_tried_again_once_a_command(run: Run) -> None:
    assert run(high=UNCLEAR, fails=4)[0] == cli.INCOMPLETE
    assert seeds_of() == {"lora": 12, "low": 3, "high": 12}  # a failed trial has ended too
    code, _, err = run("--retry-failed", high=UNCLEAR, fails=4)
    assert code == cli.INCOMPLETE and "2 failed" in err
    assert len(list(Path("runs").rglob("attempt-*"))) == 2
    assert run("--retry-failed", high=UNCLEAR)[0] == cli.DONE
    assert verdicts() == [("confirmed", 3), ("not decided", 12)]


def test_the_hours_of_the_budget_are_those_of_all_looks(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(range(0, 100, 2))
    clock = SimpleNamespace(monotonic=lambda: 3600 * next(moments))
    monkeypatch.setattr(session, "time", clock)
    told = run(study=STUDY + "budget: {max_hours: 3}\n", high=UNCLEAR)
    assert told[0] == cli.INCOMPLETE and "budget.max_hours is used up" in told[2]
    assert "look 3 of 3: 1 of 2 claims is open after 6 seeds: 6 more for lora, high" in told[2]
    assert seeds_of() == {"lora": 6, "low": 3, "high": 6}


def test_tuned_arms_begin_with_the_seeds_of_the_first_look(run: Run) -> None:
    tuned = STUDY + "tune: {train.learning_rate: [1.0e-3, 4.0e-3], seeds: [100]}\n"
    assert "then 3 tuned arms with 3 to 12 seeds each" in run("--plan", study=tuned)[1]
    assert (
        "and then the seeds of 3 tuned arms"
        in run("--export-plan", "p.json", study=tuned, high=UNCLEAR)[1]
    )
    arms = json.loads(Path("p.json").read_text())["tuning"]["arms"]
    assert {len(candidate["trials"]) for arm in arms for candidate in arm} == {3}
    assert work.main(["p.json", "--runs", "far", "--slots", "2"]) == work.DONE
    assert run("--import", "far", study=tuned, high=UNCLEAR)[0] == cli.INCOMPLETE
    assert seeds_of()["low"] == 3 + 2  # and the second look is to come


def test_seeds_of_a_stage_before_are_none_of_all_looks(run: Run) -> None:
    tuned = STUDY + "tune: {train.learning_rate: [1.0e-3, 4.0e-3], seeds: [11]}\n"
    code, _, err = run("--plan", study=tuned)
    assert code == cli.BAD_INPUT and "tune.seeds: 11 of `seeds`" in err
