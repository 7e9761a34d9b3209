"""`keep: adapter`: what a trial has trained is kept, and is the trained model when loaded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import adapters
from studies import tasks
from studies.engine.definition.sections import After
from studies.engine.errors import StudyError
from studies.engine.records import ADAPTER, Trial
from studies.engine.trials import keeping
from studies.engine.trials.after import Subject, evaluate_after
from studies.engine.trials.size import expected_bytes
from studies.engine.trials.trial import run_trial
from studies.tasks.kinds.prepared import Prepared

pytestmark = pytest.mark.slow

OPTIONS = {
    "aurora": {"alpha": 8},
    "vera": {"r": 16},
    "fourierft": {"n_frequency": 64},
    "adalora": {"tinit": 1, "tfinal": 2},
    "elalora": {"interval": 1, "initial_steps": 1, "final_steps": 1},
}
TRAIN = {"max_steps": 6, "learning_rate": 0.02, "warmup_ratio": 0.0, "schedule": "constant"}


@pytest.fixture
def trial_of(make: Any) -> Any:
    """A trial of a method that keeps its adapter."""

    def build(method: str, **sections: Any) -> Trial:
        adapter = {"method": method, **OPTIONS.get(method, {})}
        trial = make(adapter=adapter, train=TRAIN, **sections)
        return trial.model_copy(update={"keep": ("adapter",)})

    return build


def measured(trial: Trial, folder: Path) -> dict[str, float]:
    """What the loaded model finds on validation and test."""
    model, processor = keeping.load(folder)
    data = tasks.load(trial.config["task"], 0)
    half = torch.bfloat16 if "dtype" in trial.config["backbone"] else None
    prepared: Prepared = tasks.prepare(trial.config["task"], data, processor)
    return {
        f"{split}/{metric}": value
        for split in ("valid", "test")
        for metric, value in prepared.evaluate(model, split, 64, half).items()
    }


@pytest.mark.parametrize("method", adapters.list_methods())
def test_the_loaded_model_finds_what_the_trained_one_found(
    method: str, trial_of: Any, tmp_path: Path
) -> None:
    trial = trial_of(method)
    result = run_trial(trial, tmp_path)
    assert result.status == "done", result.failure
    found = measured(trial, tmp_path)
    assert found == {name: result.metrics[name] for name in found} and len(found) >= 4
    before, after = (tmp_path / name for name in ("metrics.jsonl", ADAPTER))
    assert before.is_file() and not (tmp_path / f".{ADAPTER}").exists()
    names = {path.name for path in after.iterdir()}
    peft = {"adapter_config.json", keeping.WEIGHTS, "README.md"}
    has_config = adapters.get_method(method).config is not None
    tensors = load_file(after / (keeping.WEIGHTS if has_config else keeping.PLAIN))
    assert sum(t.nbytes for t in tensors.values()) <= expected_bytes(trial)  # less: AdaLoRA cuts
    assert expected_bytes(trial) < 1.5 * sum(t.nbytes for t in tensors.values())
    assert names == {"trained.json", *(peft if has_config else {keeping.PLAIN})}


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("basis", {"backbone": {"dtype": "bfloat16"}}),
        ("full", {"backbone": {"dtype": "bfloat16"}}),
        ("lora", {"match": {"method": "lora", "r": 2, "target_modules": ["query"]}}),
        ("elalora", {"train": {"keep": "best", "eval_every": 2}}),
    ],
)
def test_half_weights_a_chosen_size_and_the_best_are_kept(
    method: str, more: dict[str, Any], trial_of: Any, tmp_path: Path
) -> None:
    plain = trial_of(method)
    train = plain.config["train"] | more.pop("train", {})
    config = plain.config | {"train": train, "select_on": "valid/loss"}
    config |= {key: value | config.get(key, {}) for key, value in more.items()}
    trial = plain.model_copy(update={"config": config})
    result = run_trial(trial, tmp_path)
    assert result.status == "done", result.failure
    found = measured(trial, tmp_path)
    assert found == {name: result.metrics[name] for name in found}
    if "match" in more:
        saved = json.loads((tmp_path / ADAPTER / "adapter_config.json").read_text())
        assert saved["r"] == result.chosen["value"] != 4


def test_nothing_is_kept_unasked_and_numbers_do_not_depend_on_it(
    trial_of: Any, tmp_path: Path
) -> None:
    keeps = trial_of("basis")
    plain = keeps.model_copy(update={"keep": ()})
    assert plain.key == keeps.key
    results = [run_trial(t, tmp_path / (".".join(t.keep) or "nothing")) for t in (plain, keeps)]
    assert results[0].metrics == results[1].metrics
    assert not (tmp_path / "nothing" / ADAPTER).exists()


def test_a_kept_adapter_is_pruned_as_the_trial_pruned_it(trial_of: Any, tmp_path: Path) -> None:
    plain = trial_of("basis")
    after = {"para": {"kept": [0.5]}, "affine": True, "spectra": True}
    trial = plain.model_copy(update={"config": plain.config | {"after": after}})
    result = run_trial(trial, tmp_path / "run")
    model, processor = keeping.load(tmp_path / "run")
    prepared: Prepared = tasks.prepare(
        trial.config["task"], tasks.load(trial.config["task"], 0), processor
    )

    def evaluate(*splits: str) -> dict[str, float]:
        return {
            f"{split}/{name}": value
            for split in splits
            for name, value in prepared.evaluate(model, split, 64, None).items()
        }

    adapter, trained = trial.config["adapter"], result.metrics
    subject = Subject(model, adapter, trained, evaluate, lambda: model, trial.seed, tmp_path)
    again = evaluate_after(After.model_validate(after), subject)
    assert again == {name: result.metrics[name] for name in again} and len(again) > 8
    spectra = [(folder / "spectra.npz").stat().st_size for folder in (tmp_path, tmp_path / "run")]
    assert spectra[0] == spectra[1]


def test_a_full_disk_fails_the_trial_and_leaves_no_half_adapter(
    trial_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping, "write_record", full)
    result = run_trial(trial_of("lora"), tmp_path)
    assert result.failure is not None and result.failure.kind == "disk_full"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "result.json"]


@pytest.fixture
def kept(trial_of: Any, without_dropout: Path, tmp_path: Path) -> Path:
    """The folder of a trial that kept its adapter, of a backbone that can be changed."""
    trial = trial_of("lora", backbone={"name": str(without_dropout)})
    assert run_trial(trial, tmp_path / "run").status == "done"
    return tmp_path / "run"


def test_what_is_no_whole_trained_adapter_is_refused(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no trained adapter: expected the folder of a trial"):
        keeping.load(tmp_path)
    copy = shutil.copytree(kept / ADAPTER, tmp_path / "copy")
    assert keeping.load(copy)[0].peft_config
    file = copy / "trained.json"
    text = file.read_text()
    file.write_text(text.replace('"head"', '"heads"'))
    with pytest.raises(StudyError, match="damaged, or of another version"):
        keeping.load(copy)
    file.write_text(text.replace('"query",', ""))
    with pytest.raises(StudyError, match="what it holds is not what this model trains"):
        keeping.load(copy)


def test_another_backbone_is_refused_by_its_files(kept: Path, without_dropout: Path) -> None:
    with (without_dropout / "config.json").open("a") as file:
        file.write("\n")
    with pytest.raises(StudyError, match=r"trained on another .*: config\.json changed since"):
        keeping.load(kept)


def test_a_plug_in_that_has_moved_can_be_named(trial_of: Any, tmp_path: Path) -> None:
    from studies.engine.definition.plugins import load_plugins

    plugin = tmp_path / "plugin.py"
    plugin.write_text("NAME = 'moved'\n")
    update = {"plugins": (str(plugin),), "plugin_hashes": (load_plugins([plugin])[0].sha256,)}
    run_trial(trial_of("lora").model_copy(update=update), tmp_path / "run")
    there = plugin.rename(tmp_path / "elsewhere.py")
    with pytest.raises(StudyError, match="cannot be read"):
        keeping.load(tmp_path / "run")
    assert keeping.load(tmp_path / "run", [there])[0].peft_config
