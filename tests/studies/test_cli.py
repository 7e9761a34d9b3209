"""The command line: exit codes, what is printed, and that MLflow can fail without loss."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import fake_trials
import pytest
from python_path import environment

from studies.engine import cli, runs, session, tracking
from studies.engine.definition.schema import load_study
from studies.engine.dispatching import packing
from studies.engine.planning.plan import plan
from studies.engine.trials import fetching

REAL_TRACKING, REAL_DELIVER = tracking.Tracking, tracking.deliver
ROOT = Path(cli.__file__).resolve().parents[2]
STUDY = """\
name: s
question: Which?
adapter: {method: basis, basis: sinc, num_basis: 8}
sweep: {adapter.r: [2, 4]}
arms: [{name: lora, adapter: {method: lora}}]
baseline: lora
objective: {metric: test/accuracy}
profiles: {embedded: {seeds: [0]}}
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study whose trials are fakes and whose page is not made."""
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(STUDY)
    command = functools.partial(fake_trials.command, tmp_path / "journal")
    monkeypatch.setattr(session, "default_command", command)
    monkeypatch.setattr(fetching.backbones, "fetch", lambda spec: None)
    monkeypatch.setattr(fetching.tasks, "fetch", lambda spec: None)
    monkeypatch.setattr(
        fake_trials, "SCRIPT", fake_trials.SCRIPT.replace('["fake"]', '.get("fake", {})')
    )
    monkeypatch.setattr(tracking, "Tracking", NoPage)
    link = tracking.track.MlflowLink("mlflow ui", "http://127.0.0.1:5000/#/x")
    monkeypatch.setattr(tracking, "deliver", lambda *a: link)
    return Path("s.yaml")


class NoPage:
    def __init__(self, *arguments) -> None: ...

    def __enter__(self):
        return self

    def __exit__(self, *arguments) -> None: ...

    def end_trial(self, *arguments) -> None: ...


def test_a_study_from_file_to_table_and_link(study: Path, capsys) -> None:
    assert cli.main(["s.yaml"]) == cli.DONE
    printed = capsys.readouterr()
    assert "[3/3] done" in printed.out and "test/accuracy 0.7500" in printed.out
    assert "Report: runs/s/embedded/report/report.md" in printed.out
    assert "MLflow: mlflow ui" in printed.out and "http://127.0.0.1:5000/#/x" in printed.out
    assert not printed.err
    assert cli.main(["s.yaml"]) == cli.DONE
    assert "started" not in capsys.readouterr().out
    assert len(Path("journal").read_text().splitlines()) == 6


def test_plan_starts_nothing(study: Path, capsys) -> None:
    assert cli.main(["s.yaml", "--plan"]) == cli.DONE
    assert "3 trials: 3 waiting" in capsys.readouterr().out
    assert not Path("runs").exists() and not Path("journal").exists()


def test_slots_auto_measures_the_trials_that_are_left(study: Path, monkeypatch) -> None:
    measured, given = [], []
    real = session.dispatch.run

    def run(*arguments, slot_count: int, **options) -> None:
        given.append(slot_count)
        real(*arguments, slot_count=slot_count, **options)

    def measured_slots(trials, folder, say) -> int:
        measured.append((len(trials), str(folder)))
        return 2

    monkeypatch.setattr(session.dispatch, "run", run)
    monkeypatch.setattr(packing, "measured_slots", measured_slots)
    assert cli.main(["s.yaml", "--slots", "auto", "--plan"]) == cli.DONE
    assert not measured
    assert cli.main(["s.yaml", "--slots", "auto"]) == cli.DONE
    assert measured == [(3, "runs/s/embedded")] and given == [2]
    assert cli.main(["s.yaml", "--slots", "auto"]) == cli.DONE
    assert len(measured) == 1  # nothing is left


def test_only_runs_a_part(study: Path) -> None:
    assert cli.main(["s.yaml", "--only", "adapter.r=4"]) == cli.DONE
    assert len(Path("journal").read_text().splitlines()) == 2


def test_report_alone_trains_nothing(study: Path, capsys) -> None:
    assert cli.main(["s.yaml", "--report"]) == cli.INCOMPLETE
    told = capsys.readouterr().err
    assert "nothing to report" in told and "--retry-failed" not in told
    assert "3 not run yet: the same command without --report or --import runs them" in told
    assert cli.main(["s.yaml"]) == cli.DONE
    Path("runs/s/embedded/report/report.md").unlink()
    before = Path("journal").read_text()
    assert cli.main(["s.yaml", "--report"]) == cli.DONE
    assert Path("runs/s/embedded/report/report.md").exists()
    assert Path("journal").read_text() == before


def test_a_failed_trial_gives_exit_code_1_and_is_reported(study: Path, monkeypatch, capsys) -> None:
    script = fake_trials.SCRIPT.replace(
        'note("start")', "note('start')\nif not key < SPLIT: sys.exit(9)"
    )
    keys = sorted(trial.key for trial in plan(load_study(study)))
    monkeypatch.setattr(fake_trials, "SCRIPT", script.replace("SPLIT", repr(keys[2])))
    assert cli.main(["s.yaml"]) == cli.INCOMPLETE
    printed = capsys.readouterr()
    assert "exception: ended with exit code 9" in printed.out
    assert printed.out.count("failed") >= 2  # when it happens, and in the report
    assert "1 of 3 trials have no result; 1 failed: once the cause is repaired" in printed.err
    assert "--retry-failed" in printed.err and "not run yet" not in printed.err


def test_mlflow_may_fail_and_no_result_is_lost(study: Path, monkeypatch, capsys) -> None:
    def refuse(*arguments):
        raise RuntimeError("the server is away")

    monkeypatch.setattr(tracking, "Tracking", REAL_TRACKING)
    monkeypatch.setattr(tracking, "deliver", REAL_DELIVER)
    monkeypatch.setattr(tracking.track.TrackedStudy, "__enter__", refuse)
    assert cli.main(["s.yaml"]) == cli.INCOMPLETE
    printed = capsys.readouterr()
    assert "[3/3] done" in printed.out and "Report: " in printed.out
    assert printed.err.count("the server is away") == 2
    assert "`--report` brings them to MLflow" in printed.err


def test_a_trial_that_mlflow_refuses_is_offered_again_at_the_end(
    study, monkeypatch, capsys
) -> None:
    calls = []

    class Page:
        def __init__(self, *arguments) -> None: ...

        def __enter__(self):
            return self

        def end_trial(self, *arguments) -> None:
            calls.append("refused")
            raise RuntimeError("busy")

    monkeypatch.setattr(tracking, "Tracking", REAL_TRACKING)
    monkeypatch.setattr(tracking, "deliver", REAL_DELIVER)
    monkeypatch.setattr(tracking.track, "TrackedStudy", Page)
    link = tracking.track.MlflowLink("", "http://server/#/x")
    monkeypatch.setattr(
        tracking.track, "track_all", lambda study, found, *rest: calls.append(len(found)) or link
    )
    assert cli.main(["s.yaml"]) == cli.DONE
    assert set(calls[:-1]) == {"refused"} and calls[-1] == 3
    assert "busy. Training goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.yaml"], "absent.yaml: there is no such file"),
        (["s.yaml", "--plugin", "absent.py"], "plug-in absent.py: cannot be read"),
        (["s.yaml", "--only", "adapter.r=3"], "no trial has it"),
        (["bad.yaml", "--plan"], "bad.yaml:3: adapter.basis: unknown basis family 'sink'"),
    ],
)
def test_bad_input_gives_exit_code_2_and_one_message(study, capsys, arguments, message) -> None:
    Path("bad.yaml").write_text(STUDY.replace("name: s", "name: bad").replace("sinc", "sink"))
    assert cli.main(arguments) == cli.BAD_INPUT
    printed = capsys.readouterr()
    assert message in printed.err and "Traceback" not in printed.err
    assert not printed.out and not Path("runs").exists()


@pytest.mark.parametrize(
    "arguments", [["s.yaml", "--slots", "0"], ["s.yaml", "--profile", "x"], []]
)
def test_bad_arguments_give_exit_code_2(study: Path, arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


def test_what_cannot_be_fetched_is_said_and_nothing_is_started(study, monkeypatch, capsys) -> None:
    def refuse(spec):
        raise session.ArchiveError("model.safetensors has the wrong sha256; remove x and try again")

    monkeypatch.setattr(fetching.backbones, "fetch", refuse)
    assert cli.main(["s.yaml"]) == cli.INCOMPLETE
    assert "wrong sha256" in capsys.readouterr().err
    assert not Path("journal").exists()


def test_a_second_run_of_a_study_is_refused(study: Path, capsys) -> None:
    with runs.locked(runs.study_dir(load_study(study), Path("runs")) / ".lock"):
        assert cli.main(["s.yaml"]) == cli.BAD_INPUT
    assert "runs/s/embedded is in use" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(study: Path, capsys) -> None:
    Path("file").write_text("")
    assert cli.main(["s.yaml", "--runs", "file"]) == cli.INCOMPLETE
    assert "file" in capsys.readouterr().err


def test_ctrl_c_gives_130_and_says_how_to_continue(study: Path, monkeypatch, capsys) -> None:
    script = fake_trials.SCRIPT.replace(
        'note("start")', f'note("start"); os.kill({os.getpid()}, 2); time.sleep(60)'
    )
    monkeypatch.setattr(fake_trials, "SCRIPT", script)
    assert cli.main(["s.yaml"]) == cli.INTERRUPTED
    assert "run the same command again" in capsys.readouterr().err


def test_the_script_is_short_and_needs_no_torch_to_refuse_a_file(tmp_path: Path) -> None:
    assert len((ROOT / "run_study.py").read_text().splitlines()) < 60
    (tmp_path / "x.yaml").write_text("- a list\n")
    watch = (
        "import sys, run_study; code = run_study.main(['x.yaml']); "
        "sys.exit(40 if 'torch' in sys.modules else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", watch], cwd=tmp_path, env=environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("x.yaml:1: expected")
