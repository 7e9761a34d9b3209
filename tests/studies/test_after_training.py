"""What is asked of the training itself: its rows, its loss around what it found, its pace."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from refused import refusal

from studies import tasks
from studies.engine.definition.schema import load_study
from studies.engine.planning.plan import plan
from studies.engine.records import Result
from studies.engine.reporting.after_tables import _interval_of_steps
from studies.engine.trials import keeping, seeds
from studies.engine.trials.after import steps_to
from studies.engine.trials.landscape import filter_normalised, surface
from studies.engine.trials.prepared_rows import Objective, as_test
from studies.engine.trials.trial import run_trial

pytestmark = pytest.mark.slow

SMALL = {"train_rows": 40, "valid_rows": 30, "test_rows": 60}


@pytest.fixture
def trial(make: Any) -> Any:
    """A trial that keeps its adapter, with a section `after`."""

    def build(after: dict[str, Any], **sections: Any) -> Any:
        made = make(**sections)
        config = made.config | {"after": after, "select_on": "valid/accuracy"}
        return made.model_copy(update={"config": config, "keep": ("adapter",)})

    return build


def loaded(made: Any, run_dir: Path) -> tuple[torch.nn.Module, Any]:
    """The trained model of a trial, and its rows."""
    model, processor = keeping.load(run_dir)
    data = tasks.load(made.config["task"], 0)
    return model, tasks.prepare(made.config["task"], data, processor)


def test_the_gap_is_that_between_training_rows_and_test_rows(trial: Any, tmp_path: Path) -> None:
    made = trial({"generalization": True}, task=SMALL)
    found = run_trial(made, tmp_path).metrics
    model, prepared = loaded(made, tmp_path)
    want = prepared.evaluate(model, "train", 64)  # 40 rows are fewer than 60: all of them
    for name, value in want.items():
        assert found[f"after/train/{name}"] == pytest.approx(value, rel=1e-5)
    gap = want["accuracy"] - found["test/accuracy"]
    assert found["after/generalization_gap/accuracy"] == pytest.approx(gap)
    less = found["test/loss"] - found["after/train/loss"]  # of a loss, lower is better
    assert found["after/generalization_gap/loss"] == pytest.approx(less) and less != 0
    assert found["after/train/loss"] != found["train/loss"]


def test_as_many_training_rows_are_taken_as_there_are_test_rows(tiny_csv: Path) -> None:
    sizes = {"train_rows": 90, "valid_rows": 30, "test_rows": 25}
    data = tasks.load({"name": str(tiny_csv), **sizes}, 0)
    one, other = as_test(data, 0), as_test(data, 1)
    assert len(one.splits["test"]) == len(set(one.splits["test"])) == 25
    assert set(one.splits["test"]) < set(data.splits["train"])
    assert one.splits["test"] == as_test(data, 0).splits["test"] != other.splits["test"]


def test_the_objective_is_the_loss_of_training(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(task=SMALL).model_copy(update={"keep": ("adapter",)})
    run_trial(made, tmp_path)
    model, prepared = loaded(made, tmp_path)
    whole = Objective(prepared, 1000, 0)
    want = prepared.evaluate(model, "train", 64)["loss"]
    model.train()  # dropout is off all the same
    for size in (64, 7):
        assert whole(model, size) == pytest.approx(want, rel=1e-5)
    assert model.training
    some = Objective(prepared, 9, 0)
    assert some(model, 4) == pytest.approx(Objective(prepared, 9, 0)(model, 9), rel=1e-5)
    assert some(model, 4) != pytest.approx(want, rel=1e-3)
    labels = [len(batch["labels"]) for batch in some._batches_of(4)]
    assert labels == [4, 4, 1]


def test_a_surface_of_a_quadratic_is_known() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3).double()
    center = {p: torch.randn_like(p) for p in model.parameters()}
    curvature = {p: torch.rand_like(p) for p in model.parameters()}

    def loss() -> float:
        return sum(
            float((curvature[p] * (p.detach() - c) ** 2).sum()) / 2 for p, c in center.items()
        )

    first, second = (filter_normalised(model, seed) for seed in (1, 2))
    assert not torch.equal(first[model.weight], second[model.weight])
    before = [p.detach().clone() for p in model.parameters()]
    steps = [-1.0, -0.5, 0.0, 0.5, 1.0]
    found = surface(loss, first, second, steps)
    flat = [np.concatenate([d[p].numpy().ravel() for p in center]) for d in (first, second)]
    h = np.concatenate([curvature[p].numpy().ravel() for p in center])
    away = np.concatenate(
        [(b - center[p]).numpy().ravel() for b, p in zip(before, center, strict=True)]
    )
    for i, down in enumerate(steps):
        for j, across in enumerate(steps):
            point = away + down * flat[0] + across * flat[1]
            assert found[i, j] == pytest.approx((h * point**2).sum() / 2)
    second_differences = np.diff(found, n=2, axis=0) / 0.25  # d1ᵀ H d1, everywhere
    assert second_differences == pytest.approx((h * flat[0] ** 2).sum() * np.ones((3, 5)))
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_a_trial_keeps_its_surface(trial: Any, tmp_path: Path) -> None:
    made = trial({"loss_surface": {"points": 3, "radius": 0.5, "rows": 20}}, task=SMALL)
    found = run_trial(made, tmp_path).metrics
    with np.load(tmp_path / "loss_surface.npz") as held:
        steps, loss = held["steps"], held["loss"]
    assert steps.tolist() == [-0.5, 0.0, 0.5] and loss.shape == (3, 3)
    objective = Objective(loaded(made, tmp_path)[1], 20, seeds.derive(0, "objective"))
    center = objective(loaded(made, tmp_path)[0], 64)
    assert loss[1, 1] == pytest.approx(center, rel=1e-5)
    facts = {name: found[f"after/loss_surface/{name}"] for name in ("center", "lowest", "highest")}
    assert facts == {"center": loss[1, 1], "lowest": loss.min(), "highest": loss.max()}
    assert len(np.unique(loss)) == 9
    plain = made.model_copy(update={"config": {**made.config, "after": {"affine": True}}})
    again = run_trial(plain, tmp_path / "plain").metrics
    assert again == {n: v for n, v in found.items() if not n.startswith("after/")}


@pytest.mark.parametrize(
    ("value", "higher", "steps", "reached"),
    [(0.7, True, 20, 1), (0.8, True, 30, 1), (0.81, True, 99, 0), (0.6, False, 10, 1),
     (0.1, False, 99, 0)],
)  # fmt: skip
def test_steps_to_a_value(value: float, higher: bool, steps: int, reached: int) -> None:
    curve = [(10, 0.6), (20, 0.7), (30, 0.8), (40, 0.75)]
    name = f"after/steps_to_{value:g}"
    want = {f"{name}/steps": steps, f"{name}/reached": reached}
    assert steps_to(value, curve, higher, 99) == want


def test_a_trial_says_when_it_reached_a_value(trial: Any, tmp_path: Path) -> None:
    made = trial({"steps_to": [0.0, 2.0]}, train={"eval_every": 3})
    found = run_trial(made, tmp_path).metrics
    assert found["after/steps_to_0/steps"] == 3 and found["after/steps_to_0/reached"] == 1
    assert found["after/steps_to_2/steps"] == 8 and found["after/steps_to_2/reached"] == 0
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    curve = {line["step"]: line["valid/accuracy"] for line in lines if "valid/accuracy" in line}
    assert list(curve) == [3, 6, 8]
    made.config["after"] = {"steps_to": [max(curve.values())]}
    (steps, reached) = (v for n, v in run_trial(made, tmp_path).metrics.items() if "steps_to" in n)
    assert steps == min(s for s, v in curve.items() if v == max(curve.values())) and reached


def test_a_training_that_gave_up_counts_as_the_whole(trial: Any, tmp_path: Path) -> None:
    train = {"eval_every": 1, "keep": "best", "patience": 1, "learning_rate": 1e-9}
    result = run_trial(trial({"steps_to": [2.0]}, train=train), tmp_path)
    assert result.kept is not None and result.kept.trained < 8
    assert result.metrics["after/steps_to_2/steps"] == 8


STUDY = """\
name: s
question: Which?
task: {name: movie_sentences, train_rows: 480}
adapter: {method: lora}
train: {epochs: 2, batch_size: 16, eval_every: 20}
arms: [{name: lora}, {name: phi, adapter: {method: basis}}]
baseline: lora
objective: {metric: test/accuracy, select_on: valid/accuracy}
after: {generalization: true, steps_to: 0.8, loss_surface: {points: 3}}
claims:
  - {claim: fits, arm: phi, metric: after/generalization_gap/accuracy, than: lora, expect: higher}
  - {claim: fast, arm: phi, metric: after/steps_to_0.8/steps, than: lora, expect: lower}
  - {claim: rows, arm: phi, metric: after/train/accuracy, than: 0.9, expect: higher}
  - {claim: low, arm: phi, metric: after/loss_surface/center, than: lora, expect: lower}
"""


def test_keys_that_came_later_are_there_only_where_they_ask(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(STUDY)
    trial = plan(load_study(path))[0]
    assert trial.config["select_on"] == "valid/accuracy"
    assert trial.config["after"] == {
        "affine": False, "spectra": False, "generalization": True, "steps_to": [0.8],
        "loss_surface": {"points": 3, "radius": 0.5, "rows": 256},
    }  # fmt: skip
    path.write_text(STUDY[: STUDY.index("after:")] + "after: {spectra: true}\n")
    trial = plan(load_study(path))[0]
    assert trial.config["after"] == {"affine": False, "spectra": True}
    assert "select_on" not in trial.config


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (", select_on: valid/accuracy", "", "after.steps_to: needs objective.select_on"),
        (", eval_every: 20", "", "after.steps_to: needs evaluations before the end: set "
         "train.eval_every, got none for the arm 'lora'"),
        ("eval_every: 20", "eval_every: 60", "got 60 of 60 steps for the arm 'lora'"),
        ("steps_to: 0.8", "steps_to: [0.8, 0.8]", "each value once, got 0.8, 0.8"),
        ("steps_to: 0.8", "steps_to: high", "after.steps_to[0]: expected a number, got 'high'"),
        ("points: 3", "points: 4", "expected an odd number"),
        ("points: 3", "rows: 0", "after.loss_surface.rows: expected at least 1, got 0"),
        ("steps_to_0.8/steps", "steps_to_0.9/steps", "Did you mean 'after/steps_to_0.8/steps'?"),
        ("gap/accuracy", "gap/acuracy", "Did you mean 'after/generalization_gap/accuracy'?"),
        ("generalization: true, ", "", "nothing measures 'after/generalization_gap/accuracy'"),
    ],
)  # fmt: skip
def test_what_a_training_cannot_tell_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert message in refusal(tmp_path, STUDY, old, new)


@pytest.mark.usefixtures("without_figures")
def test_the_report_says_what_was_not_reached(fabricate: SimpleNamespace) -> None:
    fabricate.add("lora", [0.70, 0.72, 0.74]).add("phi", [0.71, 0.73, 0.72])
    for i, (trial, result, folder) in enumerate(fabricate.rows):
        reached = trial.arm == "lora" or trial.seed > 0
        more = {"after/train/accuracy": 0.9 + trial.seed / 100,
                "after/steps_to_0.7/reached": float(reached),
                "after/generalization_gap/accuracy": 0.9 - result.metrics["test/accuracy"],
                "after/steps_to_0.7/steps": 20.0 + trial.seed if reached else 60.0}  # fmt: skip
        metrics = result.metrics | more
        fabricate.rows[i] = (trial, result.model_copy(update={"metrics": metrics}), folder)
    report = fabricate.report()
    text = report.markdown.read_text()
    assert "| lora | 3 | 0.9100 [0.8852, 0.9348] | 0.7200 [" in text and "| +0.1800 [" in text
    assert "| lora | 0.7 | 3 of 3 | 21 [19, 23] |" in text
    assert "| phi | 0.7 | 2 of 3 | ≥ 34 [" in text
    assert isinstance(fabricate.pairs[0][1], Result)


def test_a_bound_of_steps_is_never_minus_zero() -> None:
    assert _interval_of_steps((4.0, -0.3, 8.3)) == "4.0 [-0.3, 8.3]"
    assert _interval_of_steps((12.0, None, None)) == "12"
    assert _interval_of_steps((120.4, 100.2, 140.6)) == "120 [100, 141]"
