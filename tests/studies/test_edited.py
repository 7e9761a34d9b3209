"""A study file edited between two runs: only new points run, finished ones keep their meaning."""

import json
import sys
from pathlib import Path

import fake_trials
import pytest

from studies import files
from studies.engine.command import cli
from studies.engine.definition.schema import load_study
from studies.engine.planning import runs
from studies.engine.planning.plan import plan
from studies.engine.running import local
from studies.engine.tracking import background
from studies.engine.trials import devices, fetching
from tools import results_index

STUDY = """\
name: s
question: Which?
adapter: {method: basis, basis: sinc, num_basis: 8}
arms:
  - {name: eight}
  - {name: lora, adapter: {method: lora}}
baseline: lora
objective: {metric: test/accuracy}
seeds: [0, 1]
claims:
  - {claim: "eight wins", arm: eight, than: lora, expect: better}
"""


class NoPage:
    def __init__(self, *arguments) -> None: ...

    def __enter__(self):
        return self

    def __exit__(self, *arguments) -> None: ...

    def end_trial(self, *arguments) -> None: ...


@pytest.fixture
def run(tmp_path: Path, monkeypatch, capsys):
    """Runs the study as it is written then; what was started, and what was said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    monkeypatch.setattr(local, "LocalRunner", fake_trials.local_runner(tmp_path / "journal"))
    monkeypatch.setattr(fetching.backbones, "fetch", lambda spec: None)
    monkeypatch.setattr(fetching.tasks, "fetch", lambda spec: None)
    script = fake_trials.SCRIPT.replace('["fake"]', '.get("fake", {})')
    monkeypatch.setattr(fake_trials, "SCRIPT", script)
    monkeypatch.setattr(background, "Tracking", NoPage)
    link = background.pages.MlflowLink("", "http://server/#/x")
    monkeypatch.setattr(background, "deliver", lambda *a: link)

    def of(text: str, *more: str) -> tuple[int, str]:
        Path("s.yaml").write_text(text)
        journal = tmp_path / "journal"
        before = journal.read_text().count("start") if journal.exists() else 0
        assert cli.main(["s.yaml", *more]) == cli.DONE
        started = journal.read_text().count("start") if journal.exists() else 0
        return started - before, capsys.readouterr().err

    return of


def test_a_new_seed_and_a_new_arm_add_their_trials_only(run) -> None:
    assert run(STUDY) == (4, "")
    assert run(STUDY.replace("[0, 1]", "[0, 1, 2]")) == (2, "")
    more = STUDY.replace("  - {name: lora", "  - {name: nine, set: {adapter.num_basis: 9}}\n"
                         "  - {name: lora").replace("[0, 1]", "[0, 1, 2]")  # fmt: skip
    assert run(more) == (3, "")
    assert run(more) == (0, "")


def test_an_arm_with_other_settings_is_another_arm_and_what_it_had_is_kept(run) -> None:
    run(STUDY)
    results = {p: p.read_bytes() for p in Path("runs").rglob("result.json")}
    started, said = run(STUDY.replace("num_basis: 8", "num_basis: 9"))
    assert started == 2
    assert "s.yaml was edited: of 4 finished trials 2 are kept, 2 of 4 are new or waiting" in said
    assert "arm 'eight' has other settings or seeds: what it found before (seeds 0, 1)" in said
    assert {p: p.read_bytes() for p in results} == results  # not one byte of them
    report = json.loads(Path("runs/s/embedded/report/report.json").read_text())
    keys = {key for arm in report["arms"] for key in arm["keys"].values()}
    assert keys == {trial.key for trial in plan(load_study("s.yaml"))}
    assert run(STUDY)[0] == 0  # undone: everything is there again


def test_a_renamed_arm_keeps_its_trials_and_a_dropped_one_is_left_out(run) -> None:
    run(STUDY)
    started, said = run(STUDY.replace("eight", "acht"))
    assert started == 0
    assert "arm 'eight' is now called 'acht'; its trials are kept" in said
    dropped = STUDY.replace("  - {name: eight}\n", "  - {name: nine, set: {adapter.r: 4}}\n")
    started, said = run(dropped.replace("arm: eight", "arm: nine"))
    assert started == 2
    assert "arm 'eight' is no more: what it found before (seeds 0, 1) stays" in said


def test_a_claim_that_was_changed_after_the_results_is_said_to_be(run) -> None:
    run(STUDY, "--plan")
    assert not Path("runs").exists()
    run(STUDY)
    softer = STUDY.replace("expect: better", "expect: not_worse, margin: 0.1")
    for more in ((), ("--report",), ("--plan",)):
        started, said = run(softer, *more)
        assert started == 0
        assert "the claims of s.yaml" in said and "were changed after results were there" in said
    report = Path("runs/s/embedded/report/report.md").read_text()
    assert "| claim, not written before the run | verdict |" in report
    assert "- **Note.** The claims, or the objective that they are about, were changed" in report
    results_index.main(["--add", "runs", "--results", "results"])
    assert "- the claims were changed after results" in Path("results/INDEX.md").read_text()
    assert run(STUDY) == (0, "")
    assert "| claim, written before" in Path("runs/s/embedded/report/report.md").read_text()


def test_claims_about_another_objective_are_other_claims(run) -> None:
    run(STUDY)
    other = STUDY.replace("metric: test/accuracy", "metric: valid/accuracy")
    assert "were changed after results were there" in run(other, "--plan")[1]
    claims = STUDY[STUDY.index("claims:") :]
    assert run(other.replace(claims, ""), "--plan")[1]  # dropped
    legacy = Path("runs/s/embedded/claims.json")
    legacy.write_text(json.dumps(json.loads(legacy.read_text())["claims"]))
    assert run(STUDY) == (0, "")
    noted = json.loads(legacy.read_text())
    for claim in noted:  # before claims had these keys
        del claim["contrast"], claim["trend"]
    legacy.write_text(json.dumps(noted))
    assert run(STUDY) == (0, "")


def test_without_claims_another_objective_is_no_matter(run) -> None:
    without = STUDY[: STUDY.index("claims:")]
    run(without)
    assert run(without.replace("metric: test", "metric: valid"), "--plan") == (0, "")


def test_labels_notes_and_budgets_are_no_part_of_a_trial(run) -> None:
    run(STUDY)
    edited = STUDY.replace("Which?", "Which one?").replace("{name: eight}",
        "{name: eight, note: eight functions}") + "budget: {per_trial_minutes: 5}\n"  # fmt: skip
    assert run(edited) == (0, "")


def test_another_direction_of_the_objective_is_refused(run, capsys) -> None:
    run(STUDY)
    Path("s.yaml").write_text(STUDY.replace("metric: test/accuracy", "metric: test/accuracy, "
                                            "direction: minimize"))  # fmt: skip
    assert cli.main(["s.yaml"]) == cli.BAD_INPUT
    assert "'test/accuracy' is to maximize, got minimize" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that root cannot write")
def test_a_folder_that_cannot_be_written_is_named(run, capsys) -> None:
    Path("s.yaml").write_text(STUDY)
    assert cli.main(["s.yaml", "--runs", "/sys/basis-zoo"]) == cli.INCOMPLETE
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and printed.startswith("/sys/basis-zoo")
    assert not Path("journal").exists()


def test_a_runs_folder_that_is_a_file_is_named_and_nothing_is_started(run, capsys) -> None:
    Path("s.yaml").write_text(STUDY)
    Path("runs").write_text("")
    assert cli.main(["s.yaml"]) == cli.INCOMPLETE
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "runs" in printed and "Finished trials are kept" in printed
    assert not Path("journal").exists()


def test_two_runs_at_once_of_one_study_are_refused(run, capsys) -> None:
    run(STUDY)
    study = load_study("s.yaml")
    with files.locked(runs.study_dir(study, Path("runs")) / ".lock"):
        assert cli.main(["s.yaml"]) == cli.BAD_INPUT
    assert "another run of this study is under way; wait, or use --runs DIR" in (
        capsys.readouterr().err
    )
