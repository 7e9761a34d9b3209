"""Every study that ships: valid and plannable under every profile, and it trains."""

import math
from pathlib import Path

import pytest

from studies.engine.definition import schema
from studies.engine.errors import StudyError
from studies.engine.planning.plan import plan
from studies.engine.records import Trial
from studies.engine.trials.trial import run_trial

STUDIES = sorted(schema.PROFILES.parent.glob("*.yaml"))
ASKED_FOR = (
    "amplitude_init bandwidth_init bandwidth_learning base_rank basis_family commonsense "
    "components efficiency generalization glue grid_placement grid_size input_scale layers "
    "learned_phi_search linear_limit methods model_scale mt_bench para phi_over_time ranks "
    "robustness several sharing start vision penalty transfer"
)

COMMON = ("gpu", "smollm2", "paper")
EVERYWHERE = ("methods", "glue", "vision", "commonsense")
"""Studies that tell what is wrong with a profile; the others are planned under all when slow."""
OF_TEXTS = ("model_scale", "relative", "several")
"""Studies that name tasks or models of text themselves."""
PLANS = [
    pytest.param(
        path,
        profile,
        id=f"{path.stem}-{profile}",
        marks=[] if profile in COMMON or path.stem in EVERYWHERE else [pytest.mark.thorough],
    )
    for path in STUDIES
    for profile in schema.list_profiles()
    if profile != "embedded"  # those that are trained are planned under it
    and not (profile == "vision" and path.stem in OF_TEXTS)
]


def test_the_studies_are_there() -> None:
    assert set(ASKED_FOR.split()) <= {path.stem for path in STUDIES}


@pytest.mark.parametrize(("path", "profile"), PLANS)
def test_a_shipped_study_is_planned_under_every_profile(path: Path, profile: str) -> None:
    planned(path, profile)


@pytest.mark.parametrize("name", OF_TEXTS)
def test_a_study_of_texts_is_refused_where_the_model_reads_images(name: str) -> None:
    with pytest.raises(
        StudyError, match=r"and this task needs a (vision|language) model"
    ) as caught:
        planned(schema.PROFILES.parent / f"{name}.yaml", "vision")
    profiles = "studies/profiles/vision.yaml" in str(caught.value)
    assert profiles == (name != "model_scale")
    assert profiles == ("the profile's: the study may set `backbone` itself" in str(caught.value))


def planned(path: Path, profile: str) -> list[Trial]:
    study = schema.load_study(path, profile)
    trials = plan(study)
    assert len({trial.key for trial in trials}) == len(trials)
    assert study.claims, "a study says beforehand what would confirm or refute it"
    assert len(study.seeds) >= 5 or profile == "embedded" or profile.startswith("paper")
    return trials


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_trains_two_steps(
    path: Path, tiny_bert: Path, tiny_csv: Path, tmp_path: Path
) -> None:
    trials = planned(path, "embedded")
    seed = trials[0].seed
    arms = [trial for trial in trials if trial.seed == seed]
    trial = arms[len(arms) // 2]
    result = run_trial(tiny(trial, tiny_bert, tiny_csv), tmp_path)
    assert result.failure is None, f"{trial.arm}: {result.failure}"
    assert math.isfinite(result.metrics["test/accuracy"])


def tiny(trial: Trial, bert: Path, csv: Path) -> Trial:
    """`trial` on a random model and 40 sentences; its adapter stays as it is."""
    rows = {"train_rows": 40, "valid_rows": 20, "test_rows": 20}
    config = trial.config | {
        "backbone": {"name": str(bert)},
        "task": {"name": str(csv), **rows},
        "train": trial.config["train"] | {"max_steps": 2},
    }
    return trial.model_copy(update={"config": config})
