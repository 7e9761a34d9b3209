"""`studies.run`, `studies.load` and `studies.Study` do in Python what the command does."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from python_path import environment
from trains_here import TrainsHere

import studies
from studies import api, frames, tasks
from studies.engine.command import cli
from studies.engine.errors import StudyError
from studies.engine.records import Result
from studies.engine.reporting import rendering
from studies.engine.reporting.outcome import collect
from studies.engine.running import local
from studies.engine.running.protocols import Exit
from studies.engine.tracking import mlflow_client
from studies.engine.trials import devices
from studies.output import console

pytestmark = pytest.mark.slow

HEAVY = {"torch", "transformers", "peft", "mlflow", "matplotlib", "optuna", "pandas", "scipy"}
STUDY = studies.Study(
    "small",
    question="Which?",
    backbone="zero_matrix",
    task={"name": "matrix_random", "shape": (8, 6)},
    adapter={"method": "lora", "r": 2, "alpha": 2, "target_modules": "all"},
    train={"epochs": 4, "batch_size": 1, "max_grad_norm": None, "learning_rate": 0.1},
    sweep={"adapter.r": np.array([1, 2])},
    arms=[{"name": "sinc", "adapter": {"method": "basis", "basis": "sinc", "num_basis": 4}}],
    baseline="r=2",
    objective={"metric": "test/error", "direction": "minimize", "select_on": "valid/error"},
    claims=[{"claim": "sinc is nearer", "arm": "sinc", "than": "r=2", "expect": "lower"}],
    seeds=range(2),
    keep="adapter",
)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[Path]:
    """The current folder, in which trials are trained in this process."""
    above = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(above)
        patch.delenv(mlflow_client.VARIABLE, raising=False)
        patch.setattr(mlflow_client, "_create", lambda file: shutil.copy(mlflow_database, file))
        patch.setattr(devices, "gpus", lambda: 0)
        patch.setattr(local, "LocalRunner", TrainsHere)
        yield above


@pytest.fixture(scope="module")
def found(folder: Path) -> studies.Findings:
    return studies.run(STUDY)


def no_runner(*arguments: Any) -> Any:
    pytest.fail("something was to be trained")


def files(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def test_a_run_leaves_what_the_command_leaves(found: studies.Findings) -> None:
    assert list(found.trials["status"]) == ["done"] * 6
    report = found.folder / "report"
    assert report == Path("runs/small/embedded/report")
    assert found.report == (report / "report.md").read_text(encoding="utf-8")
    assert found.plots == ["comparison", "learning"]
    assert {file.stem for file in report.glob("*.png")} == {*found.plots}
    assert (report.parent / "delivered.json").is_file()  # MLflow has it too
    assert repr(found) == "<small (embedded): 6 trials: 6 done>"


def test_what_has_a_result_is_not_trained_again(
    found: studies.Findings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "LocalRunner", no_runner)
    assert studies.run(STUDY).trials.equals(found.trials)
    assert cli.main(["runs/small/small.yaml"]) == cli.DONE
    assert studies.run(STUDY, only="arm=sinc", slots=2).arms.equals(found.arms)
    assert "small (embedded): Which?" in capsys.readouterr().out


def test_load_reads_the_same_from_name_file_and_folder_and_writes_nothing(
    found: studies.Findings, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(local, "LocalRunner", no_runner)
    assert not list((folder / "runs").glob("optuna.db-*")), "the run has closed it"
    before = files(folder / "runs")
    for given_study in (STUDY, "runs/small/small.yaml", "runs/small", Path("runs/small/embedded")):
        again = studies.load(given_study)
        pd.testing.assert_frame_equal(again.trials.drop(columns="folder"),
                                      found.trials.drop(columns="folder"))  # fmt: skip
        pd.testing.assert_frame_equal(again.arms, found.arms)
        assert Path(again.trials["folder"][0], "result.json").is_file()
    assert again.report == found.report
    assert files(folder / "runs") == before


def test_the_folder_of_a_setting_is_loaded_with_it(found: studies.Findings) -> None:
    assert studies.run(STUDY, runs="set", seeds=[0], set={"train.epochs": 2}).folder == Path(
        "set/small/embedded+train.epochs=2"
    )
    again = studies.load("set/small")
    assert again.study.set == {"train.epochs": 2}
    done = again.trials[again.trials["status"] == "done"]
    assert list(done["seed"]) == [0] * 3 and len(again.trials) == 6  # its file has two seeds
    studies.load(STUDY, runs="set", set={"adapter.target_modules": ["linear"]})
    with pytest.raises(StudyError, match="the folder says profile and settings: leave them out"):
        studies.load("set/small", set={"train.epochs": 2})
    Path("set/small/embedded/trials").mkdir(parents=True)
    with pytest.raises(StudyError, match=r"name one folder: set/small/embedded, set/small/embedd"):
        studies.load("set/small")


def test_a_folder_that_does_not_say_its_study_is_refused(found: studies.Findings) -> None:
    Path("far/gone/embedded/trials").mkdir(parents=True)
    with pytest.raises(StudyError, match=r"gone.yaml is neither here nor beside the runs folder"):
        studies.load("far/gone")
    Path("far/small/embedded+adapter.r=1-0123abcd/trials").mkdir(parents=True)
    with pytest.raises(StudyError, match="cannot be read off its name: give the study by its name"):
        studies.load("far/small")


def test_arms_are_those_of_the_report_and_of_scipy(found: studies.Findings) -> None:
    wide = found.trials.pivot(index="seed", columns="arm", values="test/error")
    assert list(found.arms["arm"]) == ["r=2", "r=1", "sinc"] and found.arms["baseline"][0]
    for row in found.arms.itertuples():
        test = scipy.stats.ttest_1samp(wide[row.arm], 0.0).confidence_interval(0.95)
        assert (row.n, row.mean) == (2, pytest.approx(wide[row.arm].mean()))
        assert (row.low, row.high) == pytest.approx(tuple(test))
    p = [scipy.stats.ttest_rel(wide[arm], wide["r=2"]).pvalue for arm in ("r=1", "sinc")]
    assert list(found.arms["p"][1:]) == pytest.approx(p) and np.isnan(found.arms["p"][0])
    low, high = sorted(p)
    adjusted = {low: min(1, 2 * low), high: max(min(1, 2 * low), high)}
    assert list(found.arms["p_holm"][1:]) == pytest.approx([adjusted[each] for each in p])
    report = json.loads((found.folder / "report/report.json").read_text())
    told = [arm["finding"] for arm in report["arms"]]
    assert [each if isinstance(each, str) else None for each in found.arms["finding"]] == told
    cost = found.trials.groupby("arm")["cost/trainable_parameters"].median()
    assert all(found.arms["cost/trainable_parameters"] == [cost[arm] for arm in found.arms["arm"]])


def test_trials_have_settings_metrics_and_costs_as_columns(found: studies.Findings) -> None:
    trials = found.trials
    assert list(trials.columns[:5]) == frames.TRIAL and list(trials.columns[-4:]) == frames.ABOUT
    assert list(trials.loc[trials["seed"] == 0, "adapter.r"]) == [1, 2, 2]
    assert list(trials.loc[trials["arm"] == "sinc", "adapter.num_basis"]) == [4, 4]
    result = json.loads((found.folder / "trials" / trials["key"][0] / "result.json").read_text())
    row = trials.iloc[0]
    assert row["test/error"] == result["metrics"]["test/error"]
    assert row["cost/peak_memory_bytes"] == result["cost"]["peak_memory_bytes"]
    assert (row["stage"], row["seconds"]) == ("seeds", result["seconds"])
    assert trials["failure"].isna().all()


def test_trials_that_wait_or_failed_say_so(grid_study: Any) -> None:
    pairs = [*grid_study.pairs]
    waits = pairs[0][0].model_copy(update={"seed": 9, "candidate": {"adapter.alpha": 4}})
    results: dict[str, Result | None] = {trial.key: result for trial, result in pairs}
    states = [(t, result.status) for t, result in pairs] + [(waits, "waiting")]
    frame = frames.trials(states, results | {waits.key: None}, grid_study.runs_dir)
    failed = frame[frame["status"] == "failed"]
    assert list(failed["failure"]) == ["out_of_memory: ran out | use a smaller batch"]
    assert failed["test/accuracy"].isna().all() and list(failed["arm"]) == ["G=64"]
    last = frame.iloc[-1]
    assert (last["status"], last["seed"], last["adapter.alpha"]) == ("waiting", 9, 4)
    assert np.isnan(last["test/accuracy"]) and np.isnan(last["seconds"])


def test_each_of_several_tasks_has_rows_of_its_own(grid_study: Any) -> None:
    whole = collect(grid_study.study, grid_study.pairs)
    second = replace(whole, arms=whole.arms[:2], metric="test/loss")
    frame = frames.arms(replace(whole, tasks={"first": whole, "second": second}))
    counts = frame.groupby("task", sort=False).size().to_dict()
    assert counts == {"": 5, "first": 5, "second": 2}
    assert list(frame["metric"].drop_duplicates()) == ["test/accuracy", "test/loss"]
    assert list(frame["arm"][:5]) == [arm.name for arm in whole.arms]


def test_claims_are_the_verdicts(found: studies.Findings) -> None:
    (claim,) = found.claims.to_dict("records")
    (told,) = json.loads((found.folder / "report/report.json").read_text())["claims"]
    assert claim["verdict"] == told["word"] and claim["claim"] == "sinc is nearer"
    for name in ("rule", "n", "difference", "low", "high", "level"):
        assert claim[name] == told[name]
    assert np.isnan(claim["look"]) and list(found.claims.columns) == frames.CLAIM


def test_one_seed_leaves_numbers_that_can_be_compared(fabricate: Any) -> None:
    study = fabricate.add("lora", [0.5]).add("G=8", [0.6], {"adapter.num_basis": 8})
    arms = frames.arms(collect(study.study, study.pairs))
    assert not (arms["p"] < 0.05).any() and list(arms["n"]) == [1, 1]
    claims = frames.claims(collect(study.study, study.pairs))
    assert list(claims.columns) == frames.CLAIM and claims.empty


def test_figures_are_shown_by_a_notebook(found: studies.Findings) -> None:
    figure = found.plot("comparison")
    assert figure.axes and figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(StudyError, match=r"no figure 'comparisn'\. Did you mean 'comparison'"):
        found.plot("comparisn")


def test_a_model_is_the_trained_one(found: studies.Findings) -> None:
    model, _ = found.model("sinc", seed=1)
    (weight,) = [p for p in model.merge_and_unload().parameters() if p.ndim == 2]
    task = {"name": "matrix_random", "shape": [8, 6]}
    (row,) = tasks.load(task, 1).splits["test"]
    target = np.frombuffer(row.values, np.float32).reshape(row.shape)
    error = np.square(weight.detach().numpy() - target).sum() / np.square(target).sum()
    own = found.trials.query("arm == 'sinc' and seed == 1")
    assert own["test/error"].item() == pytest.approx(error, rel=1e-4)


def test_a_claim_that_a_profile_does_not_ask_is_said(monkeypatch, capsys) -> None:
    monkeypatch.setattr(api.Session, "run", lambda *arguments: 0)
    profiles = {"gpu": {"exclude": ["sinc"]}}
    study = studies.Study("unasked", **{**STUDY._sections, "profiles": profiles})
    studies.run(study, profile="gpu", runs="unasked")
    assert "not asked under this profile" in (said := capsys.readouterr().err)
    assert said.strip().endswith("sinc is nearer")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"arm": "sin", "seed": 0}, "no arm is called 'sin'. Did you mean 'sinc'"),
        ({"arm": "sinc", "seed": 7}, "'sinc' has no seed 7. Seeds: 0, 1"),
        ({"arm": "sinc", "seed": 0, "task": "x"}, "no arm is called 'sinc on x'"),
    ],
)
def test_a_model_that_there_is_not_is_refused(
    found: studies.Findings, asked: dict[str, Any], told: str
) -> None:
    with pytest.raises(StudyError, match=told):
        found.model(**asked)


def test_a_model_that_was_not_kept_is_refused_with_the_remedy(found: studies.Findings) -> None:
    shutil.copytree("runs", "bare")
    for adapter in Path("bare").rglob("adapter"):
        shutil.rmtree(adapter)
    with pytest.raises(StudyError, match="kept no adapter: put `keep: adapter` into the study"):
        studies.load(STUDY, runs="bare").model("sinc", 0)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ({"study": "grid_siz"}, ["grid_siz"]),
        ({"study": "grid_size", "profile": "gpuu"}, None),
        ({"study": "grid_size", "set": {"train.epoch": 1}}, ["--set", "train.epoch=1"]),
        ({"study": "grid_size", "set": {"lr": 0.1}}, ["--set", "lr=0.1"]),
        ({"study": "grid_size", "seeds": [0, 0]}, ["--set", "seeds=[0, 0]"]),
        ({"study": "grid_size", "plugins": ["none.py"]}, ["--plugin", "none.py"]),
    ],
)
def test_errors_are_those_of_the_command(
    call: dict[str, Any], line: list[str] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StudyError) as refused:
        studies.run(**call)
    if line is None:  # argparse has the choices
        assert "unknown profile 'gpuu'. Did you mean 'gpu'?" in str(refused.value)
        return
    name, *rest = line if not line[0].startswith("-") else ["grid_size", *line]
    assert cli.main([name, *rest, "--plan"]) == cli.BAD_INPUT
    assert capsys.readouterr().err.strip() == str(refused.value)


def test_slots_and_values_that_say_nothing_are_refused() -> None:
    with pytest.raises(StudyError, match="slots: expected auto or a whole number"):
        studies.run(STUDY, slots=0)
    with pytest.raises(StudyError, match=r"train\.learning_rate: a number must be finite, got nan"):
        studies.load("grid_size", set={"train.learning_rate": np.float64("nan")})
    with pytest.raises(StudyError, match="arms: expected text, numbers, lists and mappings, got s"):
        studies.Study("s", arms={1, 2})


def test_before_a_result_trials_wait_and_nothing_is_reported() -> None:
    found = studies.load(STUDY, runs="none")
    assert list(found.trials["status"]) == ["waiting"] * 6
    with pytest.raises(StudyError, match="no trial of small has a result yet: nothing to report"):
        _ = found.arms


class Interrupts(TrainsHere):
    """Ctrl-C comes once a trial has started."""

    closed = False

    def start(self, task: Any) -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    def end(self, task: Any) -> None:
        self._ended.append((task, Exit(code=-signal.SIGTERM)))

    def close(self) -> None:
        Interrupts.closed = True


@pytest.mark.usefixtures("heard_signals")
def test_ctrl_c_ends_trials_in_order_and_the_same_call_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(local, "LocalRunner", Interrupts)
        with pytest.raises(KeyboardInterrupt, match="Finished trials are kept"):
            studies.run(STUDY, runs="ended", seeds=[0])
    assert Interrupts.closed and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert list(studies.load(STUDY, runs="ended", seeds=[0]).trials["status"]) == ["waiting"] * 3
    assert list(studies.run(STUDY, runs="ended", seeds=[0]).trials["status"]) == ["done"] * 3


def test_another_thread_is_told_that_it_would_not_hear_ctrl_c() -> None:
    told: list[str] = []

    def call() -> None:
        with pytest.raises(StudyError) as refused:
            studies.run(STUDY)
        told.append(str(refused.value))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert told and "only Python's main thread hears" in told[0]


def test_a_notebook_gets_plain_lines(
    found: studies.Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = found._draft.outcome
    before = rendering.terminal(outcome)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as its kernel does
    for stderr in (False, True):
        own = console(stderr=stderr)
        assert not own.is_terminal and not own.is_jupyter and own.color_system is None
    assert rendering.terminal(outcome) == before and "r=2" in before


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "python_api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    found = names["found"]
    assert [str(found.plots)] == re.findall(r"^found\.plots  # (.*)$", page, re.MULTILINE)
    assert list(found.claims["verdict"]) == ["confirmed"] and names["tokenizer"] is None


def test_to_import_the_package_and_its_names_is_light() -> None:
    code = (
        "import sys, studies; first = len([n for n in sys.modules if n.startswith('studies.')]);"
        "assert 'run' in dir(studies); studies.run, studies.load, studies.Study;"
        f"print(first, {HEAVY} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "0 set()\n"
