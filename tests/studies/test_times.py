"""`{times: 0.5}`: a setting of an arm relative to what the study, its profile or a stage has."""

from pathlib import Path

import pytest

from studies.engine.definition import overrides
from studies.engine.definition.points import multiplied
from studies.engine.definition.schema import load_study
from studies.engine.errors import StudyError
from studies.engine.planning.plan import plan, plan_candidates, plan_tuning

STUDY = """\
name: s
question: Which?
adapter: {method: basis, basis: sinc, num_basis: 8}
arms:
  - {name: a}
  - {name: half, set: {train.learning_rate: {times: 0.5}, train.batch_size: {times: 0.5}}}
  - {name: lora, adapter: {method: lora}, set: {adapter.alpha: {times: 2}}}
baseline: a
objective: {metric: test/accuracy, select_on: valid/accuracy}
seeds: [0]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "s.yaml").write_text(STUDY)
    return tmp_path / "s.yaml"


def by_arm(path: Path, profile: str = "embedded", **options) -> dict:
    return {trial.arm: trial for trial in plan(load_study(path, profile, **options))}


def test_it_follows_the_profile_and_set(path: Path) -> None:
    for profile, rate, batch in (("embedded", 4e-3, 16), ("smollm2", 1e-3, 32)):
        trials = by_arm(path, profile)
        train = trials["half"].config["train"]
        assert (train["learning_rate"], train["batch_size"]) == (rate / 2, batch // 2)
        assert isinstance(train["batch_size"], int)
        assert trials["half"].swept["train.learning_rate"] == rate / 2
        assert trials["a"].config["train"]["learning_rate"] == rate
        assert trials["lora"].config["adapter"]["alpha"] == 32
    given = by_arm(path, settings=["train.learning_rate=3e-4"])
    assert given["half"].config["train"]["learning_rate"] == 1.5e-4


def test_a_trial_is_the_one_whose_value_is_written_out(path: Path) -> None:
    before = by_arm(path)["half"].key
    path.write_text(STUDY.replace("learning_rate: {times: 0.5}", "learning_rate: 2.0e-3"))
    assert by_arm(path)["half"].key == before


def test_a_sweep_takes_it_and_its_arms_are_called_the_same_everywhere(path: Path) -> None:
    path.write_text(STUDY.partition("arms:")[0] + (
        "sweep: {train.learning_rate: [{times: 0.5}, {times: 1}, {times: 2}]}\n"
        'baseline: "learning_rate=times:1"\n'
        "objective: {metric: test/accuracy}\nseeds: [0]\n"
    ))  # fmt: skip
    for profile, rate in (("embedded", 4e-3), ("gpu", 4e-3), ("paper", 2e-4)):
        found = {
            arm: t.config["train"]["learning_rate"] for arm, t in by_arm(path, profile).items()
        }
        names = ("learning_rate=times:0.5", "learning_rate=times:1", "learning_rate=times:2")
        assert found == dict(zip(names, (rate / 2, rate, 2 * rate), strict=True))


def test_tuning_multiplies_what_it_tries(path: Path) -> None:
    path.write_text(STUDY + "tune: {train.learning_rate: [1.0e-3, 1.0e-2], seeds: [7]}\n")
    study = load_study(path)
    stage = plan_tuning(study)
    tried = {(t.arm, t.config["train"]["learning_rate"]) for t in stage if t.arm != "lora"}
    assert tried == {("a", 1e-3), ("a", 1e-2), ("half", 5e-4), ("half", 5e-3)}
    for arm in plan_candidates(study, stage).arms:
        for candidate in arm[:2]:
            factor = 0.5 if candidate.trials[0].arm == "half" else 1
            rate = candidate.settings["train.learning_rate"] * factor
            assert candidate.trials[0].config["train"]["learning_rate"] == rate
            if factor == 0.5:
                assert candidate.trials[0].swept["train.learning_rate"] == rate


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("train.batch_size: {times: 0.3}", "16 times 0.3 is 4.8, and must be a whole number"),
        ("train.max_steps: {times: 2}", "what the study has there must be a number, got None"),
        ("adapter.basis: {times: 2}", "must be a number, got 'sinc'"),
        ("train.learning_rate: {times: fast}", "`times` must be a number, got 'fast'"),
        ("train.learning_rate: {times: -1}", "expected more than 0, got -0.004"),
        ("train.learning_rate: {time: 2}", "expected a number"),
    ],
)
def test_what_is_no_multiple_is_refused_with_its_line(path: Path, given: str, said: str) -> None:
    path.write_text(STUDY.replace("train.learning_rate: {times: 0.5}, ", "").replace(
        "train.batch_size: {times: 0.5}", given
    ))  # fmt: skip
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert said in str(caught.value) and "s.yaml:6: " in str(caught.value)


def test_a_search_chooses_values_not_multiples(path: Path) -> None:
    path.write_text(STUDY + (
        "search: {arm: half, trials: 2, seed: 7, space: {train.learning_rate: [1.0e-3, 2.0e-3]}, "
        "objectives: [{metric: valid/accuracy}]}\n"
    ))  # fmt: skip
    with pytest.raises(StudyError, match="the arm 'half' sets a multiple of it: remove that"):
        load_study(path)


def test_products_are_decimal_numbers() -> None:
    assert multiplied(2e-4, 0.05) == 1e-5 and multiplied(0.1, 3) == 0.3
    assert multiplied(16, 0.5) == 8 and isinstance(multiplied(16, 0.5), int)


def test_set_reaches_arms_that_have_a_multiple(path: Path) -> None:
    study = load_study(path, settings=["train.learning_rate=3e-4"])
    assert overrides.remarks(study) == ["train.learning_rate=0.0003; 'half' has a multiple of it"]
    path.write_text(STUDY.partition("arms:")[0] + (
        "sweep: {train.learning_rate: [{times: 0.5}, {times: 1}]}\n"
        'baseline: "learning_rate=times:1"\nobjective: {metric: test/accuracy}\nseeds: [0]\n'
    ))  # fmt: skip
    swept = by_arm(path, settings=["train.learning_rate=3e-4"])
    assert [t.config["train"]["learning_rate"] for t in swept.values()] == [1.5e-4, 3e-4]
    path.write_text(path.read_text().replace("{times: 1}]", "{times: 1}, 1.0e-3]"))
    with pytest.raises(StudyError, match="the study compares values of train"):
        load_study(path, settings=["train.learning_rate=3e-4"])


def test_tuning_makes_no_arm_another(path: Path) -> None:
    alike = STUDY.replace(", train.batch_size: {times: 0.5}", "")
    path.write_text(alike + "tune: {train.learning_rate: [1.0e-3, 5.0e-4], seeds: [7]}\n")
    told = "'a' with learning_rate=0.0005 is 'half' with learning_rate=0.001: try values"
    with pytest.raises(StudyError, match=told):
        load_study(path)
    path.write_text(alike + "tune: {train.learning_rate: [1.0e-3, 3.0e-4], seeds: [7]}\n")
    stage = plan_tuning(load_study(path))
    assert len({trial.key for trial in stage}) == len(stage) == 6
