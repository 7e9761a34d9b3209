"""Evaluations after training: what they measure, that the model is left alone, and the report."""

from pathlib import Path
from typing import Any

import pytest
import torch
from refused import refusal

import adapters
from studies.engine.definition.schema import load_study
from studies.engine.definition.study import ClaimRule
from studies.engine.errors import StudyError
from studies.engine.planning.plan import plan, plan_tuning
from studies.engine.records import Result, Trial
from studies.engine.reporting.after_outcome import gather
from studies.engine.reporting.report import draft
from studies.engine.trials.landscape import filter_normalised, moved
from studies.engine.trials.trial import run_trial
from studies.engine.verdicts.claims import judge

AFTER = {
    "para": {"kept": [1.0, 0.25]},
    "affine": True,
    "landscape": {"points": 3, "radius": 0.5},
}
BASIS = {"method": "basis", "basis": "sinc", "num_basis": 8, "start": "anchored"}


@pytest.fixture
def make(tiny_bert: Path, tiny_csv: Path) -> Any:
    """A trial of 6 steps with an `after` section."""

    def build(adapter: dict[str, Any], after: dict[str, Any] | None = AFTER) -> Trial:
        config = {
            "backbone": {"name": str(tiny_bert)},
            "task": {"name": str(tiny_csv), "train_rows": 96, "valid_rows": 40, "test_rows": 60},
            "adapter": {"r": 4, "alpha": 8, "target_modules": ["query", "value"], **adapter},
            "train": {"epochs": 1, "batch_size": 16, "learning_rate": 0.02},
            "split_seed": 0,
        }
        config |= {} if after is None else {"after": after}
        return Trial(study="s", profile="p", arm="a", seed=0, config=config)

    return build


def test_a_lora_pruned_to_its_own_size_is_itself(make: Any, tmp_path: Path) -> None:
    result = run_trial(make({"method": "lora"}), tmp_path)
    assert result.failure is None
    found = result.metrics
    assert found["after/para_1/kept_energy"] == pytest.approx(1.0)
    assert found["after/para_1/rank_mean"] == 4 and found["after/para_1/rank_spread"] == 0
    parameters = found["after/para_1/parameters"]
    assert parameters == 4 * 4 * (32 + 32)  # rank, modules, sides
    assert found["after/para_0.25/parameters"] <= parameters / 4
    assert found["after/para_0.25/kept_energy"] < found["after/para_1/kept_energy"]
    for name in ("valid/accuracy", "valid/loss", "test/loss"):
        assert found[f"after/para_1/{name}"] == pytest.approx(found[name], rel=1e-4)
    assert found["after/para_0.25/test/loss"] != found["test/loss"]
    assert not any(name.startswith("after/affine") for name in found)  # it has no phi
    assert found["after/landscape/0"] == found["valid/loss"]
    assert found["after/landscape/-0.5"] != found["after/landscape/0.5"]


def test_the_evaluations_change_neither_the_training_nor_its_metrics(
    make: Any, tmp_path: Path
) -> None:
    adapter = BASIS | {"input_scale": 10.0}
    plain = run_trial(make(adapter, None), tmp_path / "plain")
    more = run_trial(make(adapter), tmp_path / "more")
    assert plain.metrics == {k: v for k, v in more.metrics.items() if not k.startswith("after/")}
    assert plain.key != more.key
    found = more.metrics
    for name in ("valid/loss", "test/accuracy"):
        difference = found[f"after/affine/{name}"] - found[name]
        assert found[f"after/affine/difference/{name}"] == pytest.approx(difference)
    assert 0 < found["after/affine/non_affine_share"] < 1
    assert found["after/affine/test/loss"] != found["test/loss"]


def test_an_affine_phi_loses_nothing_by_its_affine_fit(make: Any, tmp_path: Path) -> None:
    adapter = BASIS | {"basis": "polynomial", "num_basis": 2}
    found = run_trial(make(adapter, {"affine": True}), tmp_path).metrics
    assert found["after/affine/non_affine_share"] < 1e-5
    assert found["after/affine/valid/loss"] == pytest.approx(found["valid/loss"], rel=1e-4)
    assert found["after/affine/test/accuracy"] == found["test/accuracy"]


def test_a_method_without_a_matrix_update_is_not_pruned(make: Any, tmp_path: Path) -> None:
    result = run_trial(make({"method": "ia3"}), tmp_path)
    assert result.failure is None
    assert {name for name in result.metrics if name.startswith("after/")} == {
        f"after/landscape/{step}" for step in ("-0.5", "0", "0.5")
    }


def test_a_direction_is_as_large_as_the_parameters_row_by_row() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3)
    before = [p.detach().clone() for p in model.parameters()]
    direction = filter_normalised(model, 1)
    assert torch.equal(direction[model.weight], filter_normalised(model, 1)[model.weight])
    assert not torch.equal(direction[model.weight], filter_normalised(model, 2)[model.weight])
    torch.testing.assert_close(direction[model.weight].norm(dim=1), model.weight.norm(dim=1))
    torch.testing.assert_close(direction[model.bias].norm(), model.bias.norm())
    with pytest.raises(RuntimeError, match="no data"), moved(direction, 0.5):
        torch.testing.assert_close(model.weight, before[0] + 0.5 * direction[model.weight])
        raise RuntimeError("no data")
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


STUDY = """\
name: s
question: Which?
adapter: {method: lora}
arms:
  - {name: lora}
  - {name: phi, adapter: {method: basis, basis: sinc, num_basis: 8}}
baseline: lora
objective: {metric: test/accuracy, select_on: valid/accuracy}
after: {para: {kept: [1.0, 0.25]}, affine: true}
claims:
  - claim: little is lost
    arm: lora
    metric: after/para_0.25/test/accuracy
    than: lora
    than_metric: test/accuracy
    expect: not_lower
    margin: 0.01
"""


def test_the_seeds_are_evaluated_and_the_tuning_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(STUDY + "tune: {train.learning_rate: [1.0e-3, 1.0e-2], seeds: [7]}\n")
    study = load_study(path)
    wanted = {"para": {"kept": [1.0, 0.25]}, "affine": True, "spectra": False}
    assert all(trial.config["after"] == wanted for trial in plan(study))
    assert not any("after" in trial.config for trial in plan_tuning(study))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "kept: [1.0, 0.25]",
            "kept: [1.5]",
            "s.yaml:9: after.para.kept[0]: expected at most 1, got 1.5",
        ),
        ("kept: [1.0, 0.25]", "kept: [0.25, 0.25]", "each share once"),
        ("kept: [1.0, 0.25]", "kepp: [1.0]", "Did you mean 'kept'?"),
        ("{para: {kept: [1.0, 0.25]}, affine: true}", "{}", "nothing to evaluate"),
        ("affine: true", "landscape: {points: 4}", "expected an odd number"),
        ("after/para_0.25", "after/para_0.2", "Did you mean 'after/para_0.25/test/accuracy'?"),
        ("than_metric: test/accuracy", "than_metric: cost/step", "no cost is called 'step'"),
        ("    than_metric: test/accuracy\n", "", "'lora' is compared with itself"),
        ("than: lora", "than: 0.5", "`than_metric` is of an arm"),
        ("method: basis, basis: sinc, num_basis: 8", "method: dora", "after.affine: no arm has a"),
        ("after: {", "backbone: {name: minilm, quantization: 4bit}\nafter: {", "quantised"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(tmp_path: Path, old, new, message) -> None:
    assert message in refusal(tmp_path, STUDY, old, new)


@pytest.mark.parametrize(("method", "refused"), [("dora", True), ("rslora", False)])
def test_ranks_of_quantised_weights_are_those_of_matrices_beside_them(
    tmp_path: Path, method: str, refused: bool
) -> None:
    path = tmp_path / "s.yaml"
    text = STUDY.replace("{para: {kept: [1.0, 0.25]}, affine: true}", "{spectra: true}")
    text = text.replace("method: basis, basis: sinc, num_basis: 8", f"method: {method}")
    path.write_text(
        text[: text.index("claims:")] + "backbone: {name: minilm, quantization: 4bit}\n"
    )
    if not refused:
        load_study(path)
        return
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert "s.yaml:9: after.spectra: the ranks of 'phi' need weights" in str(caught.value)


def pruned(**arms: list[tuple[float, float]]) -> dict[str, dict[int, Result]]:
    """Results with a test accuracy and that at a quarter of the parameters, one pair a seed."""
    return {
        arm: {
            seed: Result(
                key="k",
                status="done",
                metrics={"test/accuracy": full, "after/para_0.25/test/accuracy": quarter},
            )
            for seed, (full, quarter) in enumerate(values)
        }
        for arm, values in arms.items()
    }


@pytest.mark.parametrize(
    ("lost", "word"), [(0.001, "confirmed"), (0.05, "refuted"), (0.0105, "not decided")]
)
def test_an_arms_metric_is_compared_with_another_of_the_same_seed(lost: float, word: str) -> None:
    full = [0.70, 0.80, 0.60, 0.75, 0.65]  # far apart: only the pairing shows what is lost
    noise = [0.001, -0.001, 0.002, -0.002, 0.0]
    pairs = [(f, f - lost + e) for f, e in zip(full, noise, strict=True)]
    fields = {"metric": "after/para_0.25/test/accuracy", "than_metric": "test/accuracy"}
    rule = ClaimRule(claim="c", arm="a", than="a", expect="not_lower", margin=0.01, **fields)
    [verdict] = judge([rule], pruned(a=pairs), "test/accuracy")
    assert verdict.word == word
    assert verdict.difference == pytest.approx(-lost)
    assert "`a` − `a` (its test/accuracy)" in verdict.rule
    more = ClaimRule(
        claim="c", arm="b", than="b", expect="lower", beyond={"arm": "a", "than": "a"}, **fields
    )
    worse = [(f, q - 0.1 + e) for (f, q), e in zip(pairs, reversed(noise), strict=True)]
    [verdict] = judge([more], pruned(a=pairs, b=worse), "test/accuracy")
    assert verdict.word == "confirmed" and verdict.difference == pytest.approx(-0.1)


@pytest.mark.slow
def test_the_report_has_a_curve_with_intervals(fabricate) -> None:
    fabricate.add("lora", [0.70, 0.72, 0.74]).add("phi", [0.71, 0.73, 0.72])
    for i, (trial, result, folder) in enumerate(fabricate.rows):
        accuracy, seed = result.metrics["test/accuracy"], trial.seed
        more = {"after/affine/non_affine_share": 0.02, "after/affine/test/accuracy": 0.6}
        for share, lost in ((1, 0.0), (0.25, 0.01 + seed / 1000)):
            about = {"parameters": 1000 * share, "kept_energy": share, "rank_mean": 4 * share,
                     "rank_spread": share / 2, "test/accuracy": accuracy - lost}  # fmt: skip
            more |= {f"after/para_{share:g}/{name}": value for name, value in about.items()}
        more |= {f"after/landscape/{step:g}": 0.5 + step**2 for step in (-0.5, 0, 0.5)}
        metrics = result.metrics | more
        fabricate.rows[i] = (trial, result.model_copy(update={"metrics": metrics}), folder)
    results: dict[str, dict[int, Result]] = {}
    for trial, result in fabricate.pairs:
        results.setdefault(trial.arm, {})[trial.seed] = result
    lora, phi = gather(results, "test/accuracy")
    assert [kept.share for kept in lora.curve] == [1.0, 0.25]
    assert lora.curve[1].difference.difference == pytest.approx(-0.011)
    assert phi.affine is not None
    assert phi.affine.difference.difference == pytest.approx(0.6 - 0.72)
    assert [step for step, _ in phi.landscape] == [-0.5, 0, 0.5]
    report = fabricate.report()
    text = report.markdown.read_text()
    assert "| lora | 0.25 | 250 | 0.7090 [" in text and "| -0.0110 [" in text
    assert "| 25.0% | 1.0 ± 0.1 |" in text
    assert "| phi | 3 | 0.7200 [" in text and "| 2.00% |" in text
    assert "| phi | 0.7500 | 0.5000 | 0.7500 |" in text
    names = {path.name for path in report.figures}
    assert {"kept_parameters.png", "landscape.svg"} <= names
    assert "![kept_parameters.png](kept_parameters.png)" in text


@pytest.mark.parametrize("kept", [(1000.0, 0.0), (0.0,)])
def test_a_share_for_which_no_singular_value_is_left_has_no_place_in_the_figure(
    fabricate, kept
) -> None:
    fabricate.add("lora", [0.70, 0.72, 0.74]).add("phi", [0.71, 0.73, 0.72])
    for i, (trial, result, folder) in enumerate(fabricate.rows):
        more = {
            f"after/para_{1 / 2**place:g}/{name}": value
            for place, parameters in enumerate(kept)
            for name, value in {"parameters": parameters, "kept_energy": 0.5, "rank_mean": 1.0,
                                "rank_spread": 0.0, "test/accuracy": 0.5}.items()
        }  # fmt: skip
        metrics = result.metrics | more
        fabricate.rows[i] = (trial, result.model_copy(update={"metrics": metrics}), folder)
    report = draft(fabricate.study, fabricate.out_dir.parent / "trials", fabricate.pairs)
    assert ("kept_parameters" in report.figures) == any(kept)
    assert "| phi | 0.5 | 0 |" in report.markdown or not any(kept)


def test_the_affine_fit_is_that_of_least_squares(tiny_bert: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    from adapters.export import affine_fits, affine_in_force

    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    settings = BASIS | {
        "start": "small",
        "r": 4,
        "target_modules": ["query"],
        "interval": [-1.0, 1.0],
    }
    model = adapters.attach(base, settings | {"init_weights": False, "b_std": 0.4}).eval()
    ids = torch.tensor([[2, 5, 9, 3]])
    want = model(input_ids=ids).logits
    fits = affine_fits(model)
    for name, layer in adapted(model):
        x = (layer.basis_B["default"] @ layer.basis_A["default"]).detach().double().flatten()
        u = layer.update("default").detach().double().flatten()
        design = torch.stack([x, torch.ones_like(x)], dim=1)
        slope, offset = torch.linalg.lstsq(design, u[:, None]).solution.flatten().tolist()
        fit = fits[name.removeprefix("base_model.model.")]
        assert (fit.slope, fit.offset) == pytest.approx((slope, offset), rel=1e-5)
        residual = (u - design @ torch.tensor([slope, offset], dtype=torch.float64)).norm()
        assert fit.residual == pytest.approx(float(residual / (u - u.mean()).norm()), rel=1e-5)
        assert fit.residual > 0.01
    weights = {n: m.get_base_layer().weight.clone() for n, m in adapted(model)}
    with affine_in_force(model):
        assert not torch.allclose(model(input_ids=ids).logits, want)
        for name, layer in adapted(model):
            fit = fits[name.removeprefix("base_model.model.")]
            x = layer.basis_B["default"] @ layer.basis_A["default"]
            put = weights[name] + fit.slope * x + fit.offset
            torch.testing.assert_close(layer.get_base_layer().weight, put, rtol=0, atol=1e-6)
    assert torch.equal(model(input_ids=ids).logits, want)
    with pytest.raises(ValueError, match="has a phi"), affine_in_force(_lora(tiny_bert)):
        pass


def adapted(model: torch.nn.Module) -> list[tuple[str, adapters.BasisLinear]]:
    return [(n, m) for n, m in model.named_modules() if isinstance(m, adapters.BasisLinear)]


def _lora(folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained(folder)
    return adapters.attach(base, {"method": "lora", "r": 2, "target_modules": ["query"]})
