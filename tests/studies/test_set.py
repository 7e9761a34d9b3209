"""`--set KEY=VALUE`: laid on the whole study, told, and never mixed with the study without it."""

from pathlib import Path

import fake_trials
import pytest

from studies.engine.command import cli
from studies.engine.definition import overrides
from studies.engine.definition.schema import load_study
from studies.engine.errors import StudyError
from studies.engine.planning import plan as planning
from studies.engine.planning import runs
from studies.engine.planning.plan_file import read_plan
from studies.engine.running import local
from studies.engine.tracking import background
from studies.engine.trials import fetching

STUDY = """\
name: s
question: Which?
adapter: {method: basis, basis: sinc, num_basis: 8, start: anchored}
sweep: {adapter.r: [2, 4]}
arms:
  - {name: lora, adapter: {method: lora}}
  - {name: small, set: {adapter.start: small}}
  - {name: other, adapter: {method: basis, basis: gaussian_rbf, num_basis: 8}}
  - {name: slow, set: {train.learning_rate: 1.0e-4}}
baseline: lora
objective: {metric: test/accuracy, select_on: valid/accuracy}
profiles: {embedded: {seeds: [0]}}
"""
TUNED = STUDY + "tune: {train.learning_rate: [1.0e-3, 1.0e-2], seeds: [9]}\n"
SEARCHED = STUDY + (
    "search: {arm: small, trials: 2, seed: 7, space: {adapter.basis: [sinc, gaussian_rbf]}, "
    "objectives: [{metric: valid/accuracy}]}\n"
)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(STUDY)
    return Path("s.yaml")


def configs(path: Path, *settings: str) -> dict:
    return {trial.arm: trial.config for trial in planning.plan(load_study(path, settings=settings))}


def refusal(path: Path, *settings: str) -> str:
    with pytest.raises(StudyError) as caught:
        load_study(path, settings=settings)
    return str(caught.value)


def test_an_option_reaches_the_arms_whose_method_has_it_and_leaves_those_that_set_it(study) -> None:
    found = configs(study, "adapter.start=paper")
    starts = {arm: config["adapter"].get("start") for arm, config in found.items()}
    assert starts == {
        "r=2": "paper", "r=4": "paper", "lora": None, "small": "small", "other": "paper",
        "slow": "paper",
    }  # fmt: skip
    assert overrides.remarks(load_study(study, settings=["adapter.start=paper"])) == [
        "adapter.start=paper in all arms but 'small', which sets it itself, and 'lora', whose "
        "method has no such option"
    ]


def test_the_other_sections_are_inherited(study) -> None:
    given = ["train.learning_rate=5e-4", "task.test_rows=100", "split_seed=3", "seeds=[1, 2]"]
    trials = planning.plan(load_study(study, settings=given))
    assert sorted({trial.seed for trial in trials}) == [1, 2]
    rates = {trial.arm: trial.config["train"]["learning_rate"] for trial in trials}
    assert rates.pop("slow") == 1e-4 and set(rates.values()) == {5e-4}
    assert all(trial.config["task"]["test_rows"] == 100 for trial in trials)
    assert all(trial.config["task"]["name"] == "movie_sentences" for trial in trials)
    assert all(trial.config["split_seed"] == 3 for trial in trials)


def test_a_mapping_takes_the_place_of_what_was_there_and_a_name_of_the_section(study) -> None:
    assert configs(study, "task={name: sarcasm}")["lora"]["task"] == {"name": "sarcasm"}
    assert configs(study, "backbone=smollm2_135m")["lora"]["backbone"] == {"name": "smollm2_135m"}
    study.write_text(
        STUDY.replace("start: anchored", "start: random, start_options: {scale: 2.0}")
        .replace("{adapter.start: small}", "{adapter.start: small, adapter.start_options: {}}")
        .replace("adapter: {method: basis, basis: g", "adapter: {start: random, basis: g")
    )
    given = ["adapter.start_options={seed: 1}"]
    assert configs(study, *given)["r=2"]["adapter"]["start_options"] == {"seed": 1}
    nested = configs(study, "adapter.start_options.seed=1")["r=2"]["adapter"]["start_options"]
    assert nested == {"scale": 2.0, "seed": 1}


def test_a_method_that_is_a_list_is_refused_as_any_other_unknown_one(study) -> None:
    claim = "claims: [{claim: c, arm: lora, than: odd, expect: higher, metric: train/loss}]\n"
    odd = "arms:\n  - {name: odd, adapter: {method: [lora]}}\n"
    study.write_text(STUDY.replace("arms:\n", odd) + claim)
    for settings in ((), ("adapter.r=4",)):
        told = refusal(study, *settings)
        assert "adapter: unknown method ['lora']. Did you mean 'lora'?" in told


def test_another_method_of_the_base_forgets_the_options_of_the_old_one(study) -> None:
    study.write_text(STUDY.replace("sweep: {adapter.r: [2, 4]}\n", "").replace(
        "  - {name: small, set: {adapter.start: small}}\n", ""
    ))  # fmt: skip
    found = configs(study, "adapter.method=dora")
    assert found["slow"]["adapter"]["method"] == "dora" and "basis" not in found["slow"]["adapter"]
    assert found["lora"]["adapter"]["method"] == "lora"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("adapter.strat=paper", "no method of the study has an option 'strat'. Did you mean"),
        ("train.learning_rat=1", "unknown key. Did you mean 'learning_rate'?"),
        ("max_steps=4", "--set max_steps: unknown key. Did you mean train.max_steps?"),
        ("lr=4", "--set lr: unknown key. Did you mean train.learning_rate?"),
        ("trian.epochs=1", "unknown key. Did you mean 'train'?"),
        ("train.epochs=0", "train.epochs: expected more than 0, got 0"),
        ("adapter.start=papr", "--set: adapter.start: unknown start 'papr'. Did you mean 'paper'?"),
        ("adapter.r=8", "the study compares values of adapter.r: 2, 4. `--only adapter.r=VALUE`"),
        ("arms=[]", "`arms` says what the study asks: write a study file of your own"),
        ("claims=[]", "`claims` says what the study asks"),
        ("train={epochs: 1}", "name one setting, e.g. train.epochs=1"),
        ("train.epochs", "expected KEY=VALUE, e.g. adapter.start=paper"),
        ("task={name: [", "not valid YAML"),
    ],
)  # fmt: skip
def test_what_cannot_be_set_is_refused_by_name(study, given: str, said: str) -> None:
    assert said in refusal(study, given)


def test_a_setting_that_makes_two_arms_the_same_is_named(study) -> None:
    arm = "  - {name: paper, set: {adapter.start: paper, adapter.r: 2}}\n"
    study.write_text(STUDY.replace("baseline:", f"{arm}baseline:"))
    load_study(study)
    said = "'r=2' and 'paper' are the same point with --set adapter.start=paper; set something else"
    assert said in refusal(study, "adapter.start=paper")


def test_a_setting_given_twice_is_refused(study) -> None:
    assert "given twice" in refusal(study, "train.epochs=1", "train.epochs=2")


def test_a_setting_that_all_arms_set_themselves_is_refused(study) -> None:
    study.write_text(STUDY.replace("sweep: {adapter.r: [2, 4]}\n", "").replace(
        "arms:\n", "arms:\n  - {name: two, set: {adapter.r: 2}}\n").replace(
        "{adapter.start: small}", "{adapter.r: 4}").replace(
        "{method: lora}", "{method: lora, r: 2}").replace(
        "gaussian_rbf,", "gaussian_rbf, r: 8,").replace(
        "1.0e-4}", "1.0e-4, adapter.r: 8}"))  # fmt: skip
    assert "all arms to which it applies set it themselves" in refusal(study, "adapter.r=8")


def test_what_a_stage_chooses_is_refused_and_its_values_can_be_set(study) -> None:
    study.write_text(TUNED.replace("  - {name: slow, set: {train.learning_rate: 1.0e-4}}\n", ""))
    told = refusal(study, "train.learning_rate=1e-3")
    assert "the study chooses it: give tune.train.learning_rate=[VALUE] instead" in told
    tuned = load_study(study, settings=["tune.train.learning_rate=[0.003]", "adapter.start=paper"])
    trials = planning.plan_tuning(tuned)
    assert {trial.candidate["train.learning_rate"] for trial in trials} == {0.003}
    starts = {trial.arm: trial.config["adapter"].get("start") for trial in trials}
    assert starts["other"] == "paper" and starts["small"] == "small"
    assert not load_study(study, settings=["tune={}", "train.learning_rate=1e-3"]).tune
    study.write_text(SEARCHED)
    told = refusal(study, "adapter.basis=sinc")
    assert "give search.space.adapter.basis=[VALUE] instead" in told
    searched = load_study(study, settings=["search.space.adapter.basis=[sinc]", "search.trials=1"])
    assert searched.search.space["adapter.basis"] == ("sinc",) and searched.search.trials == 1


def test_seeds_can_be_set_where_a_study_tunes_with_seeds_of_its_own(study) -> None:
    study.write_text(TUNED.replace("  - {name: slow, set: {train.learning_rate: 1.0e-4}}\n", ""))
    loaded = load_study(study, settings=["seeds=[1, 2]"])
    assert (loaded.seeds, loaded.tune.seeds) == ((1, 2), (9,))


def test_the_study_has_a_folder_and_keys_of_its_own(study) -> None:
    bare, paper = (load_study(study, settings=s) for s in ([], ["adapter.start=paper"]))
    assert runs.study_dir(paper, Path("runs")) == Path("runs/s/embedded+adapter.start=paper")
    keys = [{t.arm: t.key for t in planning.plan(each)} for each in (bare, paper)]
    same = {arm for arm in keys[0] if keys[0][arm] == keys[1][arm]}
    assert same == {"lora", "small"}  # which are as they were
    where = {runs.trial_dir(t, Path("runs")).parts[2] for t in planning.plan(paper)}
    assert where == {"embedded+adapter.start=paper"}


def test_what_changes_no_trial_leaves_the_study_where_it_is(study) -> None:
    given = ["seeds=[0, 1]", "budget.retries=1", "keep=adapter"]
    assert load_study(study, settings=given).profile == "embedded"


def label(*settings: str) -> str:
    return overrides.labelled("gpu", overrides.parsed(settings))


def test_labels_are_names_of_folders_and_tell_values_apart() -> None:
    assert label("train.epochs=1", "adapter.r=4") == label("adapter.r=4", "train.epochs=1")
    assert label("train.learning_rate=1e-3") == label("train.learning_rate=0.001")
    given = ["4", "'4'", "4.0", "[4]", "'[4]'", "{a: 4}", "4.00000001", "null", "a/../b", "a-..-b"]
    given += ["x" * 200, "x" * 201]
    labels = [label(f"adapter.r={value}") for value in given]
    assert len(set(labels)) == len(given)
    assert all(len(each) <= 80 and "/" not in each and " " not in each for each in labels)


@pytest.fixture
def fakes(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trials are fakes and the page is not made."""
    monkeypatch.setattr(local, "LocalRunner", fake_trials.local_runner(tmp_path / "journal"))
    monkeypatch.setattr(fetching.backbones, "fetch", lambda spec: None)
    monkeypatch.setattr(fetching.tasks, "fetch", lambda spec: None)
    script = fake_trials.SCRIPT.replace('["fake"]', '.get("fake", {})')
    monkeypatch.setattr(fake_trials, "SCRIPT", script)
    link = background.pages.MlflowLink("mlflow ui", "http://127.0.0.1:5000/#/x")
    monkeypatch.setattr(background, "deliver", lambda *a: link)
    return tmp_path / "journal"


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_a_resume_with_other_settings_mixes_nothing(fakes: Path, capsys) -> None:
    assert cli.main(["s.yaml"]) == cli.DONE
    ours = ["s.yaml", "--set", "adapter.start=paper"]
    assert cli.main([*ours, "--plan"]) == cli.DONE
    planned = capsys.readouterr()
    assert "6 trials: 6 waiting" in planned.out
    assert "--set adapter.start=paper in all arms but 'small', which sets it" in planned.err
    assert cli.main([*ours, "--only", "arm=r=2"]) == cli.DONE
    assert len(fakes.read_text().splitlines()) == 14  # two lines a trial
    assert cli.main(ours) == cli.DONE
    assert len(fakes.read_text().splitlines()) == 24
    for folder in ("embedded", "embedded+adapter.start=paper"):
        assert (Path("runs/s") / folder / "claims.json").is_file()
    capsys.readouterr()
    assert cli.main([*ours, "--report"]) == cli.DONE
    printed = capsys.readouterr()
    report = Path("runs/s/embedded+adapter.start=paper/report/report.md").read_text()
    for text in (printed.out, report):
        assert "s (embedded+adapter.start=paper)" in text
        assert "adapter.start=paper in all arms but 'small'" in text
    assert "was changed" not in printed.err and "left out" not in printed.err
    assert cli.main(["s.yaml", "--report"]) == cli.DONE
    assert "adapter.start=paper" not in capsys.readouterr().out
    assert len(fakes.read_text().splitlines()) == 24


def test_an_exported_plan_has_the_settings(study: Path) -> None:
    given = ["s.yaml", "--set", "adapter.start=paper", "--export-plan", "plan.json"]
    assert cli.main(given) == cli.DONE
    written = read_plan(Path("plan.json"))
    assert written.profile == "embedded+adapter.start=paper"
    assert {trial.profile for trial in written.trials} == {written.profile}
    assert written.trials[0].config["adapter"]["start"] == "paper"
