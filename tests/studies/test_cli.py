"""The command line: exit codes, what is printed, and that MLflow can fail without loss."""

import os
import subprocess
import sys
from pathlib import Path

import fake_trials
import pytest
from python_path import environment

from studies import files
from studies.engine.command import cli, session
from studies.engine.definition.schema import load_study
from studies.engine.planning import runs
from studies.engine.planning.plan import plan
from studies.engine.program import program
from studies.engine.running import local, packing
from studies.engine.tracking import background
from studies.engine.trials import fetching

pytestmark = pytest.mark.usefixtures("without_figures")

REAL_TRACKING, REAL_DELIVER = background.Tracking, background.deliver
ROOT = Path(cli.__file__).resolve().parents[3]
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
    monkeypatch.setattr(local, "LocalRunner", fake_trials.local_runner(tmp_path / "journal"))
    monkeypatch.setattr(fetching.backbones, "fetch", lambda spec: None)
    monkeypatch.setattr(fetching.tasks, "fetch", lambda spec: None)
    monkeypatch.setattr(
        fake_trials, "SCRIPT", fake_trials.SCRIPT.replace('["fake"]', '.get("fake", {})')
    )
    monkeypatch.setattr(background, "Tracking", NoPage)
    link = background.pages.MlflowLink("mlflow ui", "http://127.0.0.1:5000/#/x")
    monkeypatch.setattr(background, "deliver", lambda *a: link)
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


def test_the_plan_tells_where_epochs_end_before_max_steps(study: Path, capsys) -> None:
    task = "task: {train_rows: 480}\n"
    for steps, told in ((60, False), (61, True), (500, True)):  # 2 epochs of 30 batches of 16
        train = f"train: {{epochs: 2, batch_size: 16, max_steps: {steps}}}\n"
        Path("s.yaml").write_text(STUDY + task + train)
        assert cli.main(["s.yaml", "--plan"]) == cli.DONE
        line = "r=2, r=4, lora: train.epochs 2 ends training after 60 steps, before train.max_steps"
        assert (f"{line} {steps}" in capsys.readouterr().err) == told


def test_slots_auto_measures_the_trials_that_are_left(study: Path, monkeypatch) -> None:
    measured, given = [], []
    real = local.LocalRunner

    def runner(slot_count: int, *arguments):
        given.append(slot_count)
        return real(slot_count, *arguments)

    def measured_slots(trials, folder, say) -> int:
        measured.append((len(trials), str(folder)))
        return 2

    monkeypatch.setattr(local, "LocalRunner", runner)
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
        'note("start", key)', "note('start', key)\n    if not key < SPLIT: os._exit(9)"
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

    monkeypatch.setattr(background, "Tracking", REAL_TRACKING)
    monkeypatch.setattr(background, "deliver", REAL_DELIVER)
    monkeypatch.setattr(background.pages.TrackedStudy, "open", refuse)
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

        def open(self):
            return self

        def end_trial(self, *arguments) -> None:
            calls.append("refused")
            raise RuntimeError("busy")

    monkeypatch.setattr(background, "Tracking", REAL_TRACKING)
    monkeypatch.setattr(background, "deliver", REAL_DELIVER)
    monkeypatch.setattr(background.pages, "TrackedStudy", Page)
    link = background.pages.MlflowLink("", "http://server/#/x")
    monkeypatch.setattr(
        background.pages, "track_all", lambda study, found, *rest: calls.append(len(found)) or link
    )
    assert cli.main(["s.yaml"]) == cli.DONE
    assert set(calls[:-1]) == {"refused"} and calls[-1] == 3
    assert "busy. Training goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.yaml"], "absent.yaml: there is no such file"),
        (["studies/start.yaml"], "no such file here; the study that ships: start"),
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
    "arguments",
    [
        ["s.yaml", "--slots", "0"],
        ["s.yaml", "--plan", "--report"],
        ["s.yaml", "--plan", "--report", "--export-plan", "plan.json"],
        ["s.yaml", "--report", "--import", "far"],
        [],
    ],
)
def test_bad_arguments_give_exit_code_2(study: Path, arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["s.yaml", "--profile", "gpus"], "unknown profile 'gpus'. Did you mean 'gpu'?"),
        (["ss.yaml", "--plan"], "ss.yaml: there is no such file. Did you mean 's.yaml'?"),
        (["nowhere/s.yaml", "--plan"], "nowhere/s.yaml: there is no such file"),
    ],
)
def test_a_name_in_error_is_answered_by_the_nearest(
    study: Path, arguments, message, capsys
) -> None:
    assert cli.main(arguments) == cli.BAD_INPUT
    assert message in capsys.readouterr().err


def test_what_cannot_be_fetched_is_said_and_nothing_is_started(study, monkeypatch, capsys) -> None:
    def refuse(spec):
        raise session.ArchiveError("model.safetensors has the wrong sha256; remove x and try again")

    monkeypatch.setattr(fetching.backbones, "fetch", refuse)
    assert cli.main(["s.yaml"]) == cli.INCOMPLETE
    assert "wrong sha256" in capsys.readouterr().err
    assert not Path("journal").exists()


def test_a_second_run_of_a_study_is_refused(study: Path, capsys) -> None:
    with files.locked(runs.study_dir(load_study(study), Path("runs")) / ".lock"):
        assert cli.main(["s.yaml"]) == cli.BAD_INPUT
    assert "runs/s/embedded is in use" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(study: Path, capsys) -> None:
    Path("file").write_text("")
    assert cli.main(["s.yaml", "--runs", "file"]) == cli.INCOMPLETE
    assert "file" in capsys.readouterr().err


@pytest.mark.usefixtures("heard_signals")
def test_ctrl_c_gives_130_and_says_how_to_continue(study: Path, monkeypatch, capsys) -> None:
    script = fake_trials.SCRIPT.replace(
        'note("start", key)', f'note("start", key); os.kill({os.getpid()}, 2); time.sleep(60)'
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


def test_a_shipped_study_is_found_by_its_name_from_any_folder(study: Path, capsys) -> None:
    assert cli.main(["list"]) == cli.DONE
    printed = capsys.readouterr().out
    assert "grid_size " in printed and "Does the number of basis functions G matter" in printed
    assert cli.main(["grid_sizes", "--plan"]) == cli.BAD_INPUT
    assert "no study of this name ships. Did you mean 'grid_size'?" in capsys.readouterr().err
    assert cli.main(["s", "--plan"]) == cli.BAD_INPUT
    assert "s: no study of this name ships; the file here: s.yaml" in capsys.readouterr().err
    assert cli.main(["grid_size", "--plan"]) == cli.DONE
    assert "15 trials: 15 waiting" in capsys.readouterr().out
    assert not Path("runs").exists()


@pytest.mark.parametrize("module", ["studies", "studies.engine.command.cli"])
def test_the_command_is_also_a_module(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module, "absent.yaml"]
    env = environment()
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == cli.BAD_INPUT
    assert "absent.yaml: there is no such file" in done.stderr


def test_a_message_tells_one_to_run_what_was_run(monkeypatch) -> None:
    for given, told in (
        ("run_study.py", "python run_study.py"),
        ("/usr/bin/basis-zoo-study", "basis-zoo-study"),
        ("/x/studies/__main__.py", "python -m studies"),
    ):
        monkeypatch.setattr(sys, "argv", [given])
        assert program() == told
