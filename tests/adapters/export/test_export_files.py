"""The files of an export: loaded by PEFT alone, and what servers ask of them."""

import json
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from adapters import BasisConfig
from adapters.export import layer_updates, save_base, to_lora


def basis(family, **options):
    torch.manual_seed(2)
    options = {"target_modules": "all", "init_weights": False, "b_std": 0.4, **options}
    config = BasisConfig(r=2, num_basis=8, interval=(-1.0, 1.0), **options)
    return get_peft_model(family.model(), config).eval()


# ---- PEFT alone

RELOAD = """
import json, sys, torch, transformers
from peft import PeftConfig, PeftModel
for task, base, lora, inputs, logits in json.loads(sys.argv[1]):
    base = getattr(transformers, f"AutoModelFor{task}").from_pretrained(base)
    model = PeftModel.from_pretrained(base, lora).eval()
    assert type(model.peft_config["default"]).__name__ == "LoraConfig"
    with torch.no_grad():
        torch.save(model(**torch.load(inputs)).logits, logits)
assert not any(name.split(".")[0] in ("adapters", "basis_zoo") for name in sys.modules)
try:
    PeftConfig.from_pretrained(sys.argv[2])
except Exception as error:
    print(type(error).__name__, error)
"""
TASKS = {"llama": "CausalLM", "gpt2": "CausalLM", "roberta": "SequenceClassification"}


@pytest.mark.slow
def test_peft_alone_loads_the_files_in_a_fresh_process(family, few_steps, tmp_path):
    made, jobs = {}, []
    for name, task in TASKS.items():
        f, folder = family(name), tmp_path / name
        task_type = "SEQ_CLS" if name == "roberta" else "CAUSAL_LM"
        model = basis(f, task_type=task_type, start="anchored")
        few_steps(model, f.batch(), steps=2)  # moves a trained head away from its base
        export = to_lora(model, energy=0.9999)
        assert len({layer.rank for layer in export.layers}) > 1
        export.save(folder / "lora", modules_to_save="keep")
        f.model().save_pretrained(folder / "base")
        torch.save(f.batch(), folder / "inputs.pt")
        files = [folder / n for n in ("base", "lora", "inputs.pt", "logits.pt")]
        jobs.append([task, *map(str, files)])
        made[name] = (f.output(model), export)
    model.save_pretrained(tmp_path / "basis")
    command = [sys.executable, "-c", RELOAD, json.dumps(jobs), str(tmp_path / "basis")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Error" in run.stdout and "BASIS" in run.stdout, "what is no export is refused by name"
    for name, (want, export) in made.items():
        f, folder = family(name), tmp_path / name
        got = torch.load(folder / "logits.pt")
        effect = (want - f.output(f.model())).norm()
        assert (got - want).norm() < 0.5 * effect
        report = json.loads((folder / "lora" / "export_report.json").read_text())
        assert report["parameters"] == export.parameters
        assert len(report["layers"]) == len(export.layers)
        again = PeftModel.from_pretrained(f.model(), folder / "lora")
        torch.testing.assert_close(f.output(again), got)
        loaded = {n: p.shape[0] for n, p in again.named_parameters() if "lora_A" in n}
        assert sorted(loaded.values()) == sorted(x.rank for x in export.layers if x.rank)


# ---- servers


def vllm_refuses(folder, max_lora_rank, linear):
    """What vLLM 0.11 (lora/peft_helper.py, lora/lora_model.py) would refuse, and why.

    Args:
        folder: The exported files.
        max_lora_rank: As the server was started with.
        linear: Last names of the model's layers that can carry a LoRA.
    """
    config = json.loads((folder / "adapter_config.json").read_text())
    if missing := {"r", "lora_alpha", "target_modules"} - set(config):
        return [f"no {missing}"]
    found = []
    if config["modules_to_save"]:
        found.append("modules_to_save")
    if config["use_dora"]:
        found.append("DoRA")
    if config["bias"] != "none":
        found.append("bias")
    if not 0 < config["r"] <= max_lora_rank:
        found.append("r")
    ends = (".lora_A.weight", ".lora_B.weight")
    tensors = load_file(folder / "adapter_model.safetensors")
    for name, tensor in tensors.items():
        module = name.removeprefix("base_model.model.").rpartition(".lora_")[0]
        if not (name.startswith("base_model.model.") and name.endswith(ends)):
            found.append(f"the tensor {name}")
        elif module.rpartition(".")[2] not in linear:
            found.append(f"the module {module}")
        elif {f"base_model.model.{module}{end}" for end in ends} - set(tensors):
            found.append(f"half of {module}")
        # buffers have max_lora_rank rows, and a request is held to it by `r` alone
        elif min(tensor.shape) > config["r"]:
            found.append(f"the rank of {module}")
    return found


def update_in_vllm(folder, module):
    """B A with the one scale that vLLM gives all layers; it reads no pattern."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
    root = 0.5 if config["use_rslora"] else 1.0
    return config["lora_alpha"] / config["r"] ** root * (b @ a)


@pytest.mark.parametrize("rule", [{"energy": 0.99}, {"budget": 0.3}, {"rank": 5}], ids=str)
def test_a_server_reads_the_largest_rank_and_the_right_scale(family, tmp_path, rule):
    model = basis(family("llama"), task_type="CAUSAL_LM")
    export = to_lora(model, **rule)
    export.save(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    ranks = {layer.name: layer.rank for layer in export.layers if layer.rank}
    assert config["r"] == config["lora_alpha"] == max(ranks.values())
    others = {name: rank for name, rank in ranks.items() if rank < config["r"]}
    assert config["rank_pattern"] == config["alpha_pattern"] == others
    assert bool(others) == ("rank" not in rule)
    linear = {name.rpartition(".")[2] for name in ranks}
    assert vllm_refuses(tmp_path, config["r"], linear) == []
    assert vllm_refuses(tmp_path, config["r"] - 1, linear) == ["r"]
    for update in layer_updates(model):
        want = export.update_of(update)
        if want is not None:
            torch.testing.assert_close(update_in_vllm(tmp_path, update.name), want)


def test_the_rules_of_vllm_refuse_a_rank_above_r(family, tmp_path):
    """What a plain LoRA of PEFT can be, and an export was."""
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], rank_pattern={"q_proj": 5})
    get_peft_model(family("llama").model(), config).save_pretrained(tmp_path)
    assert "the rank of model.layers.0.self_attn.q_proj" in vllm_refuses(
        tmp_path, 2, {"q_proj", "v_proj"}
    )


def test_modules_that_are_trained_whole_are_refused_kept_or_left_out(family, few_steps, tmp_path):
    roberta = family("roberta")
    model = basis(roberta, task_type="SEQ_CLS", start="anchored")
    few_steps(model, roberta.batch(), steps=2)
    want = roberta.output(model)
    export = to_lora(model, rank=32)
    with pytest.raises(ValueError, match=r"trains classifier whole.*vLLM.*save_base.*'keep'"):
        export.save(tmp_path / "lora")
    assert not (tmp_path / "lora").exists()
    with pytest.raises(
        ValueError, match=r"one of refuse, keep, leave_out, got 'leaveout'.*Did you"
    ):
        export.save(tmp_path / "lora", modules_to_save="leaveout")
    linear = {layer.name.rpartition(".")[2] for layer in export.layers}
    export.save(tmp_path / "kept", modules_to_save="keep")
    refused = vllm_refuses(tmp_path / "kept", 64, linear)
    assert "modules_to_save" in refused and any("classifier" in reason for reason in refused)
    export.save(tmp_path / "lora", modules_to_save="leave_out")
    assert vllm_refuses(tmp_path / "lora", 64, linear) == []
    save_base(model, tmp_path / "base")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base").eval()
    assert torch.equal(
        base.classifier.dense.weight,
        model.get_base_model().classifier.modules_to_save["default"].dense.weight,
    )
    plain = roberta.model()
    for name, tensor in base.state_dict().items():
        assert "classifier" in name or torch.equal(tensor, plain.state_dict()[name]), name
    served = PeftModel.from_pretrained(base, tmp_path / "lora").eval()
    torch.testing.assert_close(roberta.output(served), want, rtol=1e-3, atol=1e-4)
    assert torch.equal(roberta.output(model), want)


def test_a_base_is_written_only_as_it_was(family, tmp_path):
    model = basis(family("bert"))
    model.merge_adapter()
    with pytest.raises(ValueError, match="an adapter is merged: call `unmerge_adapter` first"):
        save_base(model, tmp_path)
    plain = get_peft_model(
        torch.nn.Sequential(torch.nn.Linear(4, 4)), LoraConfig(target_modules=["0"])
    )
    with pytest.raises(ValueError, match="Sequential has no save_pretrained"):
        save_base(plain, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_lora_weights": "pissa"}, "'pissa' has changed the base weights"),
        ({"init_lora_weights": "olora"}, "'olora' has changed the base weights"),
        ({"bias": "lora_only"}, "trains biases"),
        ({"lora_bias": True}, "trains biases"),
        ({"trainable_token_indices": [1, 2]}, r"trains single tokens \(`trainable_token_indices`"),
        ({"target_modules": ["embed_tokens"]}, "which a plain LoRA cannot express"),
        (
            {"target_modules": [], "target_parameters": ["q_proj.weight"]},
            "a parameter of several matrices, which a plain LoRA cannot express",
        ),
    ],
)
def test_what_an_export_would_drop_is_refused(family, options, message):
    options = {"target_modules": ["q_proj"], "init_lora_weights": False, **options}
    model = get_peft_model(family("llama").model(), LoraConfig(r=2, **options))
    with pytest.raises(ValueError, match=message):
        to_lora(model, rank=1)
