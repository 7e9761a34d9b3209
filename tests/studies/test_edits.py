"""A study file edited between two runs: only new points run, finished ones keep their meaning."""

import json
import shutil
import sys
from pathlib import Path

import fake_trials
import optuna
import pytest

from basis_zoo.basis import _BASES
from studies import files
from studies.engine.command import cli, session
from studies.engine.definition.schema import load_study
from studies.engine.planning import preregistration, runs
from studies.engine.planning.plan import plan
from studies.engine.records import read_result, read_trial, write_record
from studies.engine.running import local
from studies.engine.tracking import background
from studies.engine.trials import devices, fetching
from tools import results_index

pytestmark = pytest.mark.slow

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
  - {claim: "eight wins", arm: eight, than: lora, expect: higher}
"""


class NoPage:
    def __init__(self, *arguments) -> None: ...

    def __enter__(self):
        return self

    def __exit__(self, *arguments) -> None: ...

    def end_trial(self, *arguments) -> None: ...


@pytest.fixture
def run(tmp_path: Path, monkeypatch, capsys, without_figures):
    """Runs the study as it is written then; what was started, and what was said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    monkeypatch.setattr(local, "LocalRunner", fake_trials.local_runner(tmp_path / "journal"))
    monkeypatch.setattr(session, "absent", lambda trials: [])
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
    assert "arm 'eight': other settings or seeds; results of before (seeds 0, 1) stay" in said
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
    assert "arm 'eight': no longer in the study; results of before (seeds 0, 1) stay in" in said


def test_a_claim_that_was_changed_after_the_results_is_said_to_be(run) -> None:
    run(STUDY, "--plan")
    assert not Path("runs").exists()
    run(STUDY)
    softer = STUDY.replace("expect: higher", "expect: not_lower, margin: 0.1")
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


@pytest.mark.parametrize(
    ("direction", "word"), [("maximize", "better"), ("minimize", "worse"), (None, "better")]
)
def test_claims_in_the_words_of_earlier_versions_are_the_same_claims(run, direction, word) -> None:
    run(STUDY)
    file = Path("runs/s/embedded/claims.json")
    before = json.loads(file.read_text())
    file.write_text(json.dumps(before).replace('"higher"', f'"{word}"'))
    study = load_study("s.yaml")
    objective = study.objective.model_copy(update={"direction": direction or "maximize"})
    study = study.model_copy(update={"objective": objective})
    about = json.loads(file.read_text()) | {"direction": direction}
    file.write_text(json.dumps(about if direction else about["claims"]))
    assert not preregistration.changes(study, Path("runs")).claims
    file.write_text(file.read_text().replace(word, "better" if word == "worse" else "worse"))
    assert preregistration.changes(study, Path("runs")).claims


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


ROWS = "text,label\n" + "".join(
    f"row {i} is {word},{word}\n" for i in range(60) for word in ("good", "bad")
)
OWN = STUDY.replace("adapter:", """\
backbone: ./bert
task: {name: ./rows.csv, train_rows: 60, valid_rows: 20, test_rows: 30}
adapter:""", 1)  # fmt: skip


@pytest.fixture
def own_data(run, tiny_bert: Path):
    """`run`, where there are rows and a model of the user's."""
    Path("rows.csv").write_text(ROWS)
    shutil.copytree(tiny_bert, "bert")
    return run


def test_corrected_labels_are_other_trials_and_none_is_averaged_with_the_old(own_data) -> None:
    assert own_data(OWN)[0] == 4
    keys_before = {trial.key for trial in plan(load_study("s.yaml"))}
    Path("rows.csv").write_text(ROWS.replace("row 7 is good,good", "row 7 is good,bad"))
    started, said = own_data(OWN.replace("[0, 1]", "[0, 1, 2]"))
    assert started == 6
    assert "./rows.csv was changed: of 4 finished trials 0 are kept, 6 of 6 are new or w" in said
    assert "arms 'eight', 'lora': trained with another content of ./rows.csv; results of" in said
    assert "report; restore the old ./rows.csv to have them back" in said and "edited" not in said
    report = json.loads(Path("runs/s/embedded/report/report.json").read_text())
    keys = {key for arm in report["arms"] for key in arm["keys"].values()}
    assert keys == {trial.key for trial in plan(load_study("s.yaml"))}
    new = {trial.key for trial in plan(load_study("s.yaml"))}
    assert set(in_optuna().values()) == {frozenset(new), frozenset(keys_before)}
    Path("rows.csv").write_text(ROWS)
    assert own_data(OWN)[0] == 0
    assert set(in_optuna().values()) == {frozenset(new), frozenset(keys_before)}


def in_optuna() -> dict[str, frozenset[str]]:
    """The points of each of Optuna's studies."""
    url = "sqlite:///runs/optuna.db"
    found = (optuna.load_study(study_name=n, storage=url) for n in optuna.get_all_study_names(url))
    return {
        study.study_name: frozenset(row.user_attrs["point"] for row in study.trials)
        for study in found
    }


def test_another_model_in_the_folder_is_another_backbone(own_data) -> None:
    own_data(OWN)
    Path("bert/README.md").write_text("A card.")
    assert own_data(OWN)[0] == 0
    config = json.loads(Path("bert/config.json").read_text())
    Path("bert/config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    started, said = own_data(OWN.replace("num_basis: 8", "num_basis: 9"))
    assert started == 4
    assert "s.yaml was edited; ./bert was changed: of 4 finished trials 0 are kept" in said
    assert "arm 'eight': other settings or seeds and trained with another content of ./be" in said


def test_results_of_a_version_that_noted_no_content_are_told_and_run_again(own_data) -> None:
    own_data(OWN)
    for file in list(Path("runs").rglob("trial.json")):
        old = read_trial(file.parent).model_copy(update={"contents": {}})
        result = read_result(file.parent).model_copy(update={"key": old.key})
        shutil.rmtree(file.parent)
        for name, record in (("trial", old), ("result", result)):
            write_record(runs.trial_dir(old, Path("runs")) / f"{name}.json", record)
    started, said = own_data(OWN)
    assert started == 4
    assert "what ./rows.csv held was not noted before this version: of 4 finished tri" in said
    assert "that cannot be told" in said


PLUGIN = """
from basis_zoo import LocationScaleBasis, register_basis

@register_basis("{name}")
class Bell(LocationScaleBasis):
    '''A bell with heavy tails, as a user writes it.'''

    def psi(self, z):
        return {factor} / (1 + z.square())
"""


def test_an_edited_plug_in_is_told_and_trains_the_arms_again_that_use_it(run, tmp_path) -> None:
    file = tmp_path / "bell.py"
    text = STUDY.replace("basis: sinc", "basis: edited_bell")
    file.write_text(PLUGIN.format(name="edited_bell", factor=1))
    assert run(text, "--plugin", "bell.py") == (4, "")
    assert {trial.arm: len(trial.plugins) for trial in plan(load_study("s.yaml", plugins=[file]))
            } == {"eight": 1, "lora": 0}  # fmt: skip
    del _BASES._members["edited_bell"]  # as in a new process
    file.write_text(PLUGIN.format(name="edited_bell", factor=2))
    started, said = run(text, "--plugin", "bell.py")
    assert started == 2
    assert "plug-in bell.py was changed: of 4 finished trials 2 are kept, 2 of 4 are new" in said
    assert "arm 'eight': trained with another bell.py; results of" in said
    assert "arm 'lora'" not in said


TUNED = OWN.replace("seeds: [0, 1]", "seeds: [0, 1]\n"
    "tune: {train.learning_rate: [1.0e-3, 1.0e-2], seeds: [7]}").replace(
    "metric: test/accuracy", "metric: test/accuracy, select_on: valid/accuracy")  # fmt: skip


def test_a_tuned_study_says_before_it_tunes_again_that_the_data_changed(own_data) -> None:
    assert own_data(TUNED)[0] == 8
    Path("rows.csv").write_text(ROWS.replace("row 7 is good,good", "row 7 is good,bad"))
    _, said = own_data(TUNED, "--plan")
    assert "./rows.csv was changed: of 4 finished trials 0 are kept, 4 of 4 are new or w" in said
    assert "./rows.csv was changed: of 4" in own_data(TUNED, "--export-plan", "plan.json")[1]
    started, said = own_data(TUNED)
    assert started == 8 and said.count("./rows.csv was changed: of 4 finished trials 0") == 2
    assert "edited" not in said and "(seeds 7)" in said and "(seeds 0, 1)" in said


def test_what_tuning_chose_anew_is_no_edit_of_the_file(own_data) -> None:
    own_data(TUNED)
    said = own_data(TUNED.replace("[1.0e-3, 1.0e-2]", "[2.0e-3, 1.0e-2]"))[1]
    assert "s.yaml was edited: of 4 finished trials 2 are kept, 2 of 4 are new or waiting" in said
    assert (
        "the stage before the seeds chose other settings: of 4 finished trials 0 are kept, " in said
    )
    assert "arms 'eight', 'lora': trained with what had been chosen before" in said


SEARCHED = (
    OWN
    + """\
search:
  arm: eight
  trials: 3
  seed: 100
  space: {adapter.num_basis: {int: [4, 64]}}
  objectives: [{metric: valid/accuracy}]
"""
)


def test_a_searched_study_says_why_its_history_begins_anew(own_data) -> None:
    assert own_data(SEARCHED)[0] == 3 + 4
    wider = SEARCHED.replace("[4, 64]", "[4, 65]")
    assert "s.yaml was edited: of 3 finished trials 0 are kept\n" in own_data(wider, "--plan")[1]
    Path("rows.csv").write_text(ROWS.replace("row 7 is good,good", "row 7 is good,bad"))
    started, said = own_data(SEARCHED)
    assert started == 7
    assert "./rows.csv was changed: of 3 finished trials 0 are kept\n" in said
    assert "./rows.csv was changed: of 4 finished trials 0 are kept, 4 of 4 are new" in said
