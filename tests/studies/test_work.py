"""Plans worked off without Optuna and MLflow: same numbers, exactly once, and back into a study."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import fake_trials
import pytest
from python_path import environment
from waiting import wait_until

from studies.engine.command import cli, work
from studies.engine.command.plan_queue import PlanQueue
from studies.engine.definition import checks
from studies.engine.definition.schema import load_study
from studies.engine.definition.study import Budget
from studies.engine.planning import runs
from studies.engine.planning.plan import plan, plan_candidates, plan_tuning
from studies.engine.planning.plan_file import Plan, read_plan
from studies.engine.records import Trial, read_result, write_record
from studies.engine.running.durations import Durations
from studies.engine.tracking import background
from studies.engine.trials import devices
from studies.engine.trials.trial import run_trial

UNWANTED = ("optuna", "mlflow", "rich", "matplotlib", "scipy", "datasets", "sqlalchemy", "pandas")
STUDY = """\
name: s
question: Which?
backbone: {{name: {bert}}}
task: {{name: {csv}, train_rows: 64, valid_rows: 40, test_rows: 60}}
adapter: {{method: basis, basis: sinc, num_basis: 8, r: 2, target_modules: [query, value]}}
train: {{epochs: 1, batch_size: 16, learning_rate: 0.02}}
arms:
  - {{name: basis}}
  - {{name: lora, adapter: {{method: lora}}}}
  - {{name: broken, note: "fails", set: {{adapter.target_modules: [no_such_module]}}}}
  - {{name: lost, set: {{train.learning_rate: 1.0e+30, train.warmup_ratio: 0.0}}}}
baseline: lora
objective: {{metric: test/accuracy, select_on: valid/accuracy}}
seeds: [0, 1]
"""


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_figures")]


@pytest.fixture
def study(tiny_bert: Path, tiny_csv: Path, tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    monkeypatch.setattr(checks, "check_modules", lambda *given: None)  # of the arm that fails
    Path("s.yaml").write_text(STUDY.format(bert=tiny_bert, csv=tiny_csv))
    return Path("s.yaml")


def export(*more: str) -> Plan:
    assert cli.main(["s.yaml", "--export-plan", "plan.json", *more]) == cli.DONE
    return read_plan(Path("plan.json"))


def test_a_plan_is_worked_off_and_its_results_come_home(
    study: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    assert len(export().trials) == 8
    assert not Path("runs").exists()
    arguments = ["plan.json", "--runs", "far", "--slots", "2"]
    assert work.main(arguments) == work.INCOMPLETE  # two arms fail
    printed = capsys.readouterr().out
    assert "8 trials, 8 to run, 2 at once" in printed and "[8/8]" in printed
    ended = [line for line in printed.splitlines() if line.startswith("[")]
    assert [line.endswith(" left)") for line in ended] == [True] * 7 + [False]
    assert printed.count("failed: s broken") == 2 and "matches no layer" in printed
    assert printed.count("failed: s lost") == 2 and "not_finite" in printed
    trials = {(t.arm, t.seed): t for t in plan(load_study(study))}
    for name in ("basis", "lora"):  # the second trial of a process is as good as the first
        trial = trials[name, 1]
        own = run_trial(trial, tmp_path / "own" / name)
        far = runs.result_of(trial, Path("far"))
        assert far is not None and far.metrics == own.metrics and far.data == own.data
        assert far.environment["trials_at_once"] == 2
    log = runs.trial_dir(trials["broken", 0], Path("far")) / "log.txt"
    assert "Traceback" in log.read_text()

    assert work.main(arguments) == work.INCOMPLETE
    assert "8 trials, 0 to run" in capsys.readouterr().out

    stranger = Path("far/s/embedded/trials/x")
    shutil.copytree(runs.trial_dir(trials["lora", 0], Path("far")), stranger)
    result = read_result(stranger)
    assert result is not None
    write_record(stranger / "result.json", result.model_copy(update={"key": "0" * 16}))
    torn = Path("far/s/embedded/trials/torn")
    torn.mkdir()
    (torn / "result.json").write_text('{"key": "')
    monkeypatch.setattr(
        background, "deliver", lambda *a: background.pages.MlflowLink("", "http://server/#/x")
    )
    assert cli.main(["s.yaml", "--import", "far"]) == cli.INCOMPLETE
    printed = capsys.readouterr()
    assert "8 results taken, 0 known already, 2 refused" in printed.out
    assert "the plan has no point 0000000000000000" in printed.err
    assert "torn: result.json is not whole" in printed.err
    assert "4 of 8 trials have no result" in printed.err
    assert Path("runs/s/embedded/report/report.md").is_file()
    assert (runs.trial_dir(trials["lora", 1], Path("runs")) / "metrics.jsonl").is_file()
    assert "8 trials written" not in printed.out
    assert len(export().trials) == 0 and len(export("--retry-failed").trials) == 4
    assert cli.main(["s.yaml", "--import", "far"]) == cli.INCOMPLETE
    assert "0 results taken, 8 known already" in capsys.readouterr().out
    import optuna

    url = "sqlite:///runs/optuna.db"
    (name,) = optuna.get_all_study_names(url)
    assert name.startswith("s/embedded/data-")  # it reads files of its own
    rows = optuna.load_study(study_name=name, storage=url).trials
    assert sum(row.state is optuna.trial.TrialState.COMPLETE for row in rows) == 4


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trials that are `faked`: their workers import nothing."""
    runner = fake_trials.local_runner(tmp_path / "journal")
    monkeypatch.setattr(work, "LocalRunner", runner)


def faked(trial: Trial, **fake: object) -> Trial:
    return trial.model_copy(update={"config": trial.config | {"fake": fake}})


def test_a_worker_that_is_killed_is_replaced_and_its_trial_fails(
    study: Path, fakes: None, capsys
) -> None:
    whole = export("--only", "arm=lora")
    trials = [faked(whole.trials[0], killed=True), faked(whole.trials[1])]
    write_record(Path("plan.json"), whole.model_copy(update={"trials": tuple(trials)}))
    assert work.main(["plan.json", "--runs", "far", "--slots", "1"]) == work.INCOMPLETE
    printed = capsys.readouterr().out
    assert "killed by SIGKILL" in printed
    assert "s (embedded)                                  1      1      0" in printed


def test_a_trial_that_takes_too_long_is_ended(study: Path, fakes: None, capsys) -> None:
    whole = export("--only", "arm=lora", "--only", "seed=0")
    slow = {
        "budget": Budget(per_trial_minutes=0.001),
        "trials": (faked(whole.trials[0], seconds=60),),
    }
    write_record(Path("plan.json"), whole.model_copy(update=slow))
    assert work.main(["plan.json", "--runs", "far"]) == work.INCOMPLETE
    assert "timeout: still running after 0.001 minutes" in capsys.readouterr().out


def test_no_trial_is_started_that_would_end_too_late(study: Path, capsys) -> None:
    export("--only", "arm=lora")
    assert work.main(["plan.json", "--runs", "far", "--minutes", "0"]) == work.INCOMPLETE
    assert "the time (0 minutes) is used up with 2 trials left" in capsys.readouterr().out
    assert not list(Path("far").rglob("result.json"))


def test_an_arm_that_never_ran_may_take_as_long_as_the_longest(study: Path) -> None:
    whole = export("--only", "arm=lora", "--only", "arm=basis", "--only", "seed=0")
    first, second = whole.trials
    near, later = Durations(50 / 60), Durations(70 / 60)
    for durations in (near, later):
        durations.note(first, 60.0)
    queue = PlanQueue([whole], Path("far"), False, near, print)
    assert queue.next(lambda task: near.fits(task.trial)) is None
    near.note(second, 1.0)
    assert queue.next(lambda task: near.fits(task.trial)).trial == second
    assert queue.next(lambda task: later.fits(task.trial)).trial == first


def test_a_signal_ends_the_workers_and_the_rest_is_run_later(study: Path) -> None:
    whole = export("--only", "arm=lora")
    long = [t.model_copy(update={"config": t.config | {"train": {"epochs": 1e4}}})
            for t in whole.trials]  # fmt: skip
    write_record(Path("plan.json"), whole.model_copy(update={"trials": tuple(long)}))
    process = subprocess.Popen(
        [sys.executable, "-m", "studies.engine.work", "plan.json", "--runs", "far", "--slots", "1"],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: list(Path("far").rglob("metrics.jsonl")))
    done = subprocess.run(
        [sys.executable, "-m", "studies.engine.work", "plan.json", "--runs", "far"],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == work.BAD_INPUT and "another `work` is under way" in done.stdout
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == work.INTERRUPTED, printed
    assert "run the same command again" in printed
    assert not list(Path("far").rglob("result.json"))
    assert list(Path("far").rglob("checkpoint-*/manifest.json"))  # where it goes on


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "plan.json: cannot be read"), ("{}", "plan.json: no plan: study: Field required")],
)
def test_what_is_no_plan_is_refused_by_name(tmp_path: Path, capsys, content, message) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_text(content)
    assert work.main([str(path), "--runs", str(tmp_path / "far")]) == work.BAD_INPUT
    assert message in capsys.readouterr().out


def test_working_needs_nothing_that_a_bare_machine_lacks(tmp_path: Path) -> None:
    script = tmp_path / "bare.py"
    script.write_text(
        "import importlib.machinery, sys\n"
        "find = importlib.machinery.PathFinder.find_spec\n"
        "def bare(name, path=None, target=None):\n"
        f"    return None if name in {UNWANTED} else find(name, path, target)\n"
        "importlib.machinery.PathFinder.find_spec = bare\n"
        "import studies.engine.work, studies.engine.trials.worker\n"
        "assert 'torch' not in sys.modules\n"
        "studies.engine.trials.worker.import_what_trials_need()\n"
        "import studies.engine.trials.fetching\n"
        "print('complete')\n"
    )
    env = environment()
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True)
    assert done.stdout == "complete\n", done.stderr


@pytest.mark.thorough
def test_a_plan_that_tunes_goes_on_with_the_seeds(study: Path, capsys, monkeypatch) -> None:
    lines = study.read_text().splitlines()
    kept = [line for line in lines if "name: basis" not in line and "name: lost" not in line]
    kept.append("tune: {train.learning_rate: [0.02, 1.0e-5], seeds: [7]}")
    study.write_text("\n".join(kept))
    whole = export()
    assert "4 trials, and then the seeds of 2 tuned arms" in capsys.readouterr().out
    assert [len(candidates) for candidates in whole.tuning.arms] == [3, 3]
    assert len(export("--only", "arm=lora").tuning.arms) == 1
    write_record(Path("part.json"), whole.model_copy(update={"trials": whole.trials[:2]}))
    assert work.main(["part.json", "--runs", "far"]) == work.INCOMPLETE
    printed = capsys.readouterr().out
    assert "2 trials, 2 to run, then 4 of tuned arms" in printed
    assert "s (embedded)                                  1      1      4" in printed
    write_record(Path("plan.json"), whole)
    as_later = {"study": "later", "arm": "plain", "stage": "seeds", "candidate": {}}
    renamed = [t.model_copy(update=as_later) for t in whole.trials if t.arm == "lora"]
    later = whole.model_copy(update={"study": "later", "trials": tuple(renamed), "tuning": None})
    write_record(Path("later.json"), later)
    arguments = ["plan.json", "later.json", "--runs", "far", "--slots", "1"]
    assert work.main(arguments) == work.INCOMPLETE
    printed = capsys.readouterr().out
    assert "s (embedded)                                  4      4      0" in printed
    assert "[10/10]" in printed
    assert printed.index("later plain") > printed.index("s lora seed 1")
    assert "s broken: no value gave a result: the study's own" in printed
    assert "train.learning_rate" in printed and "chosen (valid/accuracy 0." in printed
    tuned = [line for line in printed.splitlines() if "[learning_rate=" in line]
    assert [line for line in tuned if "test/" in line] == []
    monkeypatch.setattr(
        background, "deliver", lambda *a: background.pages.MlflowLink("", "http://server/#/x")
    )
    assert cli.main(["s.yaml", "--plan"]) == cli.DONE
    assert "then 2 tuned arms with 2 seeds each" in capsys.readouterr().out
    only_lora = ["s.yaml", "--only", "arm=lora", "--only", "seed=0", "--runs", "part"]
    assert cli.main([*only_lora, "--import", "far"]) == cli.DONE
    printed = capsys.readouterr().out
    assert (
        "tuning stage: 2 results taken, 0 known already, 0 refused, 4 of the next stage" in printed
    )
    assert "\n1 results taken" in printed
    assert cli.main(["s.yaml", "--runs", "part", "--report"]) == cli.INCOMPLETE
    assert "2 of 4 trials have no result; 2 failed" in capsys.readouterr().err
    assert cli.main(["s.yaml", "--import", "far"]) == cli.INCOMPLETE
    printed = capsys.readouterr()
    assert "tuning stage: 4 results taken" in printed.out and "4 results taken" in printed.out
    assert "2 of 4 trials have no result; 2 failed" in printed.err
    here = load_study(study)
    stage = {trial.key: trial for trial in plan_tuning(here)}
    tuning = plan_candidates(here, list(stage.values()))
    chosen = tuning.choices(lambda key: runs.result_of(stage[key], Path("runs")))
    assert {c.arm: dict(c.settings) for c in chosen}["broken"] == {}
    far = {runs.result_of(trial, Path("far")).status for trial in plan(here, (), chosen)}
    assert far == {"done", "failed"}
