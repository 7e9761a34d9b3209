"""What `train` does to phi in a trial: penalties, and schedules of its numbers."""

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification

from adapters import BasisConfig, BasisLayer, load_phi
from studies.engine.definition import saved_phi, schema
from studies.engine.definition.contents import check_contents
from studies.engine.errors import ChangedError, StudyError
from studies.engine.planning.plan import plan
from studies.engine.records import Trial
from studies.engine.trials.training import captured, loop
from studies.engine.trials.training.loop import TrainingLoop
from studies.engine.trials.trial import run_trial

pytestmark = pytest.mark.slow

PHI = {"method": "basis", "basis": "sinc", "num_basis": 6, "start": "anchored", "input_scale": 2.0}
PENALTIES = {"roughness": 1e-3, "stable_rank": 1e-3, "amplitude_l1": 0.01, "orthogonality": 0.1}
# 100 rows: 7 batches an epoch, so the last of its 4 optimizer steps has one batch instead of two
TRAIN = {"epochs": 2, "gradient_accumulation": 2, "eval_every": 3, "warmup_ratio": 0.0}
SCHEDULES = {"phi_rate": 3.0, "phi_from": 0.25, "phi_until": 0.75, "bandwidth_to": 2.0,
             "input_scale_to": 0.5}  # fmt: skip


def lines(run_dir: Path) -> list[dict[str, float]]:
    """metrics.jsonl without the times."""
    text = (run_dir / "metrics.jsonl").read_text()
    return [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in text.splitlines()]


@pytest.fixture
def trial(make: Any) -> Any:
    def trial(adapter: dict[str, Any] = PHI, **train: Any) -> Trial:
        return make(adapter=adapter, task={"train_rows": 100}, train={**TRAIN, **train})

    return trial


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[dict[str, torch.Tensor]]]]:
    """Of every step, and of before the first, the numbers of every phi."""
    taken: list[Any] = []
    real = TrainingLoop.take

    def numbers(model: torch.nn.Module) -> list[dict[str, torch.Tensor]]:
        layers = [layer for layer in model.modules() if isinstance(layer, BasisLayer)]
        phis = [layer.basis_phi["default"] for layer in layers]
        return [
            {"amplitude": p.amplitude.detach().clone(), "omega": p.bandwidth.detach().clone()}
            | {"scale": torch.as_tensor(layer.basis_scale["default"]()).clone()}
            for p, layer in zip(phis, layers, strict=True)
        ]

    def take(self: TrainingLoop, batches: Any) -> None:
        if not taken:
            taken.append(numbers(self.model))
        real(self, batches)
        taken.append(numbers(self.model))

    monkeypatch.setattr(TrainingLoop, "take", take)
    yield taken


def test_penalties_are_written_down_and_lower_what_they_penalise(
    trial: Any, tmp_path: Path
) -> None:
    off = {name: 1e-12 for name in PENALTIES}
    for name, weights in (("with", {**PENALTIES, "orthogonality": 10.0}), ("without", off)):
        result = run_trial(trial(penalties=weights, learning_rate=0.02), tmp_path / name)
        assert result.status == "done", result.failure
    last = {}
    for name in ("with", "without"):
        of_steps = [line for line in lines(tmp_path / name) if "train/loss" in line]
        assert len(of_steps) == 8
        assert all(f"train/penalty/{each}" in line for line in of_steps for each in PENALTIES)
        last[name] = of_steps[-1]["train/penalty/orthogonality"]
    assert last["with"] < 0.9 * last["without"]


def test_a_penalty_is_added_once_a_step_however_many_batches_it_has(
    trial: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = loop.OptimizerStep._penalise
    monkeypatch.setattr(loop.OptimizerStep, "_penalise", lambda self: calls.append(1) or real(self))
    run_trial(trial(penalties=PENALTIES), tmp_path)
    assert len(calls) == 8


@pytest.mark.parametrize("batches", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_replayed_steps_give_the_numbers_of_others(
    batches: int, trial: Any, make: Any, tmp_path: Path, on_a_gpu: Any, without_dropout: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(captured, "WARM_UP", 1)
    monkeypatch.setattr(on_a_gpu, "numbers", 2 + len(PENALTIES))
    train = {**SCHEDULES, "penalties": PENALTIES, "gradient_accumulation": batches, "epochs": 4}
    one = trial(**train)
    one.config["backbone"]["name"] = str(without_dropout)
    plain = one.model_copy(deep=True)
    plain.config["train"]["capture"] = "off"
    metrics = run_trial(one, tmp_path / "auto").metrics
    assert sum(graph.replays for graph in on_a_gpu.made) > 4
    assert metrics == pytest.approx(run_trial(plain, tmp_path / "off").metrics, rel=1e-3)
    for mine, other in zip(lines(tmp_path / "auto"), lines(tmp_path / "off"), strict=True):
        assert mine == pytest.approx(other, rel=1e-3)


def test_a_trial_cut_off_goes_on_to_the_same_bits(
    trial: Any, run_until: Any, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    one = trial(**SCHEDULES, penalties=PENALTIES).model_copy(update={"keep": ("adapter",)})
    result = run_trial(one, whole)
    assert result.status == "done", result.failure
    run_until(one, cut, 3)
    run_until(one, cut, 7)
    assert run_trial(one, cut).metrics == result.metrics
    assert lines(cut) == lines(whole)
    kept, same = (load_file(d / "adapter" / "adapter_model.safetensors") for d in (whole, cut))
    assert all(torch.equal(tensor, same[name]) for name, tensor in kept.items())


def test_phi_changes_between_its_shares_of_the_steps_and_not_by_a_bit_elsewhere(
    trial: Any, tmp_path: Path, seen: Any
) -> None:
    run_trial(trial(phi_from=0.25, phi_until=0.75), tmp_path)
    changes = [
        any(not torch.equal(a["amplitude"], b["amplitude"]) for a, b in zip(x, y, strict=True))
        for x, y in itertools.pairwise(seen)
    ]
    assert changes == [False, False, True, True, True, True, False, False]


def test_phi_has_a_learning_rate_of_its_own(trial: Any, tmp_path: Path, seen: Any) -> None:
    first = []
    for rate in (1.0, 0.5):
        seen.clear()
        run_trial(trial(phi_rate=rate, learning_rate=0.01), tmp_path / str(rate))
        first.append((seen[1][0]["amplitude"] - seen[0][0]["amplitude"]).abs().max().item())
    assert first[0] > 1e-3 and first[1] == pytest.approx(
        first[0] / 2, rel=1e-4
    )  # Adam's first step


def test_bandwidths_and_scale_are_led_to_what_is_asked_for(
    trial: Any, tmp_path: Path, seen: Any
) -> None:
    fixed = {**PHI, "train_bandwidth": False}
    one = trial(fixed, bandwidth_to=2.0, input_scale_to=0.5)
    run_trial(one, tmp_path)
    for step, (start, now) in enumerate((seen[0], now) for now in seen):
        for before, after in zip(start, now, strict=True):
            share = step / 8
            assert torch.allclose(after["omega"], before["omega"] * 2.0**share, rtol=1e-5)
            assert after["scale"].item() == pytest.approx(2.0 * 0.5**share, rel=1e-6)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_kept_adapter_is_the_one_that_was_tested(keep: str, trial: Any, tmp_path: Path) -> None:
    from studies import trained
    from studies.engine.trials.training_run import TrainingRun

    one = trial(input_scale_to=3.0, keep=keep).model_copy(update={"keep": ("adapter",)})
    one.config["select_on"] = "valid/loss"
    tested: list[torch.Tensor] = []
    real = TrainingRun._keep

    def keeping(self: TrainingRun, *given: Any) -> None:
        layers = [m for m in self._model.modules() if isinstance(m, BasisLayer)]
        tested.extend(layer.get_delta_weight("default").detach() for layer in layers)
        real(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRun, "_keep", keeping)
        assert run_trial(one, tmp_path).status == "done"
    model, _ = trained.load(tmp_path)
    layers = [m for m in model.modules() if isinstance(m, BasisLayer)]
    assert tested and len(tested) == len(layers)
    for layer, delta in zip(layers, tested, strict=True):
        assert torch.equal(layer.get_delta_weight("default"), delta)
        assert layer.basis_scale["default"]() == 2.0


RANDOM = {**PHI, "start": "random"}


def test_a_loaded_phi_is_where_training_begins(
    trial: Any, tmp_path: Path, seen: Any, capsys: Any
) -> None:
    source = trial(RANDOM, learning_rate=0.05).model_copy(update={"keep": ("adapter",)})
    assert run_trial(source, tmp_path / "source").status == "done"
    last = seen[-1]
    seen.clear()
    run_trial(trial(RANDOM, load_phi=str(tmp_path / "source"), phi_rate=0.0), tmp_path / "other")
    for start, end, wanted in zip(seen[0], seen[-1], last, strict=True):
        for number in ("amplitude", "omega"):
            assert torch.equal(start[number], wanted[number])
            assert torch.equal(end[number], wanted[number])  # at a rate of 0


STUDY: dict[str, Any] = {
    "name": "s",
    "question": "Does it?",
    "adapter": {"method": "basis", "target_modules": ["query"]},
    "arms": [{"name": "phi"}, {"name": "lora", "adapter": {"method": "lora"}}],
    "baseline": "lora",
    "objective": {"metric": "test/accuracy", "select_on": "valid/accuracy"},
    "seeds": [0],
}


def planned(folder: Path, tiny_bert: Path, tiny_csv: Path, **sections: Any) -> list[Trial]:
    path = folder / "s.yaml"
    task = {"name": str(tiny_csv), "train_rows": 40, "valid_rows": 20, "test_rows": 20}
    study = {**STUDY, "backbone": str(tiny_bert), "task": task, **sections}
    path.write_text(yaml.safe_dump(study))
    return plan(schema.load_study(path))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"train": {"penalties": {"roughness": 1e-4}}},
         "train.penalties.roughness: the adapter of the arm 'lora' has no update s φ(BA)"),
        ({"train": {"penalties": {"roughnes": 1e-4}}}, "Did you mean 'roughness'?"),
        ({"train": {"penalties": {"bandwidths": 1e-4}}}, "unknown penalty 'bandwidths'"),
        ({"train": {"penalties": {"load_phi": 1e-4}}}, "unknown penalty 'load_phi'"),
        ({"train": {"penalties": {"roughness": -1}}}, "expected at least 0, got -1"),
        ({"train": {"phi_rate": 0.5}}, "train.phi_rate: the adapter of the arm 'lora' has no"),
        ({"train": {"bandwidth_to": 2.0}}, "the adapter of the arm 'lora' has no update"),
        ({"train": {"phi_from": 0.5, "phi_until": 0.5}}, "expected more than train.phi_from"),
        ({"sweep": {"train.penalties": [{"roughness": 1}]}, "adapter": {"method": "basis",
          "basis": "hat"}}, "functions have kinks or jumps"),
        ({"sweep": {"train.penalty.roughness": [1]}}, "unknown setting"),
        ({"sweep": {"train.input_scale_to": [2.0]}}, "no fixed input scale: set input_scale"),
        ({"tune": {"train.penalties.roughness": [0.0, 1.0], "seeds": [9]}},
         "tune.train.penalties.roughness: the adapter of the arm 'lora' has no update"),
        ({"search": {"arm": "phi", "trials": 2, "seed": 9, "objectives": [
            {"metric": "valid/accuracy"}], "space": {"train.penalties.rough": {"float": [1, 2]}}}},
         "unknown penalty 'rough'"),
    ],
)  # fmt: skip
def test_what_an_arm_has_no_use_for_is_refused_when_it_is_planned(
    sections: dict[str, Any], said: str, tmp_path: Path, tiny_bert: Path, tiny_csv: Path
) -> None:
    with pytest.raises(StudyError) as caught:
        planned(tmp_path, tiny_bert, tiny_csv, **sections)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "name", [each.name for each in saved_phi.SHIPPED.iterdir() if each.is_dir()]
)
def test_a_phi_that_ships_fits_any_model_and_names_no_place(name: str) -> None:
    folder = saved_phi.folder(name)
    shape = BertConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                       num_attention_heads=2)  # fmt: skip
    config = BasisConfig(target_modules="mlp", start="random", sharing="all")
    model = get_peft_model(BertForSequenceClassification(shape), config)
    load_phi(model, folder)
    phis = [m.basis_phi["default"] for m in model.modules() if isinstance(m, BasisLayer)]
    held = load_file(folder / "adapter_model.safetensors")
    (amplitude,) = (held[n] for n in held if n.endswith("amplitude"))
    assert amplitude.any() and all(torch.equal(phi.amplitude, amplitude) for phi in phis)
    assert all(".basis_phi." in key for key in held)
    assert "/" not in (folder / "adapter_config.json").read_text()
    assert f"`{name}`" in (saved_phi.SHIPPED / "README.md").read_text()


def test_a_plan_is_of_what_the_loaded_phi_holds(
    trial: Any, tmp_path: Path, tiny_bert: Path, tiny_csv: Path
) -> None:
    source = trial(RANDOM, max_steps=1).model_copy(update={"keep": ("adapter",)})
    assert run_trial(source, tmp_path / "source").status == "done"
    held = tmp_path / "source" / "adapter" / "adapter_model.safetensors"
    adapter = {**RANDOM, "target_modules": ["query"]}
    loads = {"name": "phi", "set": {"train.load_phi": str(tmp_path / "source")}}
    sections = {"adapter": adapter, "arms": [loads, STUDY["arms"][1]]}
    first, lora = planned(tmp_path, tiny_bert, tiny_csv, **sections)
    assert set(first.contents) == {*lora.contents, "train"}
    held.write_bytes(held.read_bytes()[:-4] + bytes(4))
    second, same = planned(tmp_path, tiny_bert, tiny_csv, **sections)
    assert same.key == lora.key and second.key != first.key
    with pytest.raises(ChangedError, match="source does not hold what it held"):
        check_contents(first)
    for change, said in (
        ({"num_basis": 7}, "num_basis: 7 here, 6 there"),
        ({"start": "anchored"}, "set start to random"),
        ({"method": "lora"}, "no update s φ(BA)"),
    ):
        with pytest.raises(StudyError) as caught:
            own = {"method": "lora"} if "method" in change else {**adapter, **change}
            planned(tmp_path, tiny_bert, tiny_csv, **{**sections, "adapter": own})
        assert said in str(caught.value)
    loads["set"] = {"train.load_phi": "sarcasme"}
    with pytest.raises(StudyError, match=r"no saved adapter is in 'sarcasme'.*Did you mean"):
        planned(tmp_path, tiny_bert, tiny_csv, **sections)


def test_a_weight_of_zero_is_none_and_points_and_searches_name_weights(
    tmp_path: Path, tiny_bert: Path, tiny_csv: Path
) -> None:
    plain = planned(tmp_path, tiny_bert, tiny_csv)
    sweep = {"train.penalties.roughness": [0.0, 1e-4]}
    swept = planned(tmp_path, tiny_bert, tiny_csv, sweep=sweep, arms=STUDY["arms"][1:])
    assert [trial.arm for trial in swept] == ["roughness=0", "roughness=0.0001", "lora"]
    assert swept[0].key == plain[0].key and swept[2].key == plain[1].key
    assert swept[1].config["train"]["penalties"] == {"roughness": 1e-4}
    space = {"train.penalties.roughness": {"float": [1e-6, 1e-2], "log": True}}
    search = {"arm": "phi", "trials": 2, "seed": 9, "space": space}
    planned(tmp_path, tiny_bert, tiny_csv,
            search={**search, "objectives": [{"metric": "valid/accuracy"}]})  # fmt: skip
    assert math.isclose(1e-4, swept[1].swept["train.penalties.roughness"])
