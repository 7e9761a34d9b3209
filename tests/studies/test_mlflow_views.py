"""The views of a study's page: their rows, their columns, their charts."""

import json

import pytest

from studies.engine.tracking import contents, view


@pytest.fixture
def study(fabricate):
    fabricate.add("lora", [0.7, 0.71], {"adapter.method": "lora"})
    return fabricate.add("G=8", [0.72, 0.73], {"adapter.num_basis": 8})


def test_stages_are_tags_and_each_has_a_view(study) -> None:
    trial, result, _ = study.rows[0]
    tuned = trial.model_copy(update={"stage": "tune", "candidate": {"train.learning_rate": 0.1}})
    tags = contents.tags(tuned, result, "lora", {})
    assert (tags["stage"], tags["arm"]) == ("tune", "lora [learning_rate=0.1]")
    assert contents.tags(trial, result, "lora", {})["stage"] == "seeds"
    objective, rows = study.study.objective, {tuned.label: view.row_of(tuned, result)}
    first = view.views(objective, rows, summarized=False)
    assert first.keys() == {"arms", "trials", "tune"}
    assert "tags.stage" not in shown(first["arms"])["searchFilter"]
    rows["lora"] = view.row_of(trial, result)
    both = {key: shown(tag) for key, tag in view.views(objective, rows, summarized=True).items()}
    assert both["arms"]["searchFilter"] == "tags.kind = 'arm'"
    assert "tags.stage = 'seeds'" in both["trials"]["searchFilter"]
    assert list(both["trials"]["groupsExpanded"]) == ["tag.arm.lora"]
    assert "tags.stage = 'tune'" in both["tune"]["searchFilter"]
    assert both["tune"]["orderByKey"] == "metrics.`valid/accuracy`"


def shown(tag: str) -> dict:
    """The state of the page in a view's tag, as MLflow with and without names of views reads it."""
    found = json.loads(tag)
    state = json.loads(found.pop("state"))
    assert {"name", "createdAt", "updatedAt"} <= found.keys() and state.items() <= found.items()
    return state


def test_a_view_has_the_settings_that_tell_its_rows_apart(study) -> None:
    study.add("word", [0.5], {"adapter.start": "paper", "adapter.num_basis": 8})
    study.add("G=64", [0.5], {"adapter.num_basis": 64, "adapter.r": 8})
    rows = {trial.label: view.row_of(trial, result) for trial, result, _ in study.rows}
    found = view.views(study.study.objective, rows, summarized=True)
    arms, trials = shown(found["arms"]), shown(found["trials"])
    columns = [name for name in arms["selectedColumns"] if name.startswith("params.")]
    assert columns == [f"params.`adapter.{name}`" for name in ("method", "num_basis", "start")]
    [numeric] = [name for name in trials["selectedColumns"] if name.startswith("params.")]
    assert numeric == "params.`adapter.num_basis`"  # of words a group shows "-"


def test_the_charts_begin_with_the_answer_and_those_of_mlflow_are_folded(study) -> None:
    rows = {trial.label: view.row_of(trial, result) for trial, result, _ in study.rows}
    state = shown(view.views(study.study.objective, rows, summarized=True)["arms"])
    opened = [each["name"] for each in state["compareRunSections"] if each["display"]]
    assert opened == ["Answer", "Learning", "What it costs", "What was swept"]
    assert {"cost", "interval"} <= {each["name"] for each in state["compareRunSections"]}
    first, *more = state["compareRunCharts"]
    assert (first["type"], first["metricKey"]) == ("BAR", "test/accuracy")
    kinds = {each["type"] for each in more}
    assert kinds == {"BAR", "LINE", "SCATTER", "PARALLEL"}
    curves = [each["metricKey"] for each in more if each["type"] == "LINE"]
    assert curves == ["train/loss"]  # one value at the end is no curve
    known = {each["uuid"] for each in state["compareRunSections"]}
    assert {each["metricSectionId"] for each in more} <= known


def test_a_view_of_hundreds_of_settings_fits_into_its_tag(study) -> None:
    trial, result, _ = study.rows[0]
    rows = {
        str(n) * 30_000: view.row_of(
            trial.model_copy(
                update={
                    "swept": (swept := {f"adapter.options.setting_{i}": n for i in range(500)}),
                    "config": {"adapter": {"options": {p.split(".")[2]: n for p in swept}}},
                }
            ),
            result,
        )
        for n in (1, 2)
    }
    for tag in view.views(study.study.objective, rows, summarized=True).values():
        assert len(tag) <= view.LIMIT and "searchFilter" in shown(tag)
