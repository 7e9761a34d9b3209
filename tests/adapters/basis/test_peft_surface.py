"""The rest of PEFT and transformers around the tuner."""

import copy

import pytest
import torch
import transformers as hf
from peft import (
    AutoPeftModelForCausalLM,
    LoraConfig,
    PeftModel,
    convert_to_lora,
    get_peft_model,
    inject_adapter_in_model,
    save_as_lora,
)
from peft.utils.quantization_utils import ForwardOnlyQuantizationBackend
from torch import nn
from torch.utils.data import Dataset
from transformers.integrations.peft import MIN_PEFT_VERSION
from transformers.utils import is_peft_greater_or_equal

from adapters import BasisConfig, BasisLinear

TARGETS = ["q_proj", "v_proj", "down_proj"]


def config(**options):
    options = {"target_modules": TARGETS, "task_type": "CAUSAL_LM", **options}
    return BasisConfig(r=2, num_basis=8, interval=(-1.0, 1.0), **options)


def attach(family, **options):
    torch.manual_seed(7)
    return get_peft_model(family.model(), config(**{"init_weights": False, **options})).eval()


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items() if "basis_" in k}


class Counting(Dataset):
    """Sequences that count upwards."""

    def __len__(self):
        return 32

    def __getitem__(self, i):
        ids = (torch.arange(8) + i) % 60 + 3
        return {"input_ids": ids, "labels": ids}


def trainer(model, folder, **options):
    arguments = hf.TrainingArguments(
        output_dir=str(folder),
        max_steps=6,
        save_steps=3,
        logging_steps=1,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=0,
        **options,
    )
    return hf.Trainer(model=model, args=arguments, train_dataset=Counting())


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["none", "all"])
def test_trainer_resumes_to_the_same_bits(family, tmp_path, sharing):
    llama = family("llama")

    def fresh():
        return attach(llama, sharing=sharing, input_scale="rms", init_weights=True)

    whole = fresh()
    run = trainer(whole, tmp_path)
    run.train()
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    resumed = fresh()
    trainer(resumed, tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    want, got = state(whole), state(resumed)
    assert want.keys() == got.keys()
    assert all(torch.equal(want[k], got[k]) for k in want), "resumed and whole runs differ"
    assert any(not torch.equal(want[k], v) for k, v in state(fresh()).items())


@pytest.mark.slow
@pytest.mark.parametrize("reentrant", [True, False])
def test_trainer_with_gradient_checkpointing_is_the_same_run(family, tmp_path, reentrant):
    llama = family("llama")
    plain, checkpointed = attach(llama), attach(llama)
    trainer(plain, tmp_path / "a").train()
    options = {"use_reentrant": reentrant}
    trainer(
        checkpointed,
        tmp_path / "b",
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs=options,
    ).train()
    for name, value in state(plain).items():
        torch.testing.assert_close(state(checkpointed)[name], value, rtol=1e-3, atol=1e-5)


def test_generation_with_a_cache_agrees_with_merged(family):
    llama = family("llama")
    model = attach(llama)
    ids = llama.batch()["input_ids"]
    kwargs = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    want = model.generate(input_ids=ids, **kwargs)
    assert want.shape == (4, 13)
    assert torch.equal(model.merge_and_unload().generate(input_ids=ids, **kwargs), want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_trains_in_float32_and_merges_to_the_same_bits(family, dtype):
    llama = family("llama")
    model = attach(llama).train()
    with torch.autocast("cpu", dtype):
        loss = model(**llama.batch()).loss
    loss.backward()
    grads = {p.grad.dtype for p in model.parameters() if p.requires_grad}
    assert torch.isfinite(loss) and grads == {torch.float32}
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype):
        want = model(**llama.batch()).logits
        model.merge_adapter()
        assert torch.equal(model(**llama.batch()).logits, want)


def test_low_cpu_memory_loading(family, tmp_path):
    llama = family("llama", torch.bfloat16)
    model = attach(llama, grid="learned")
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(llama.model(), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(llama.output(again), llama.output(model))


def test_auto_class_and_transformers_own_loading(family, tmp_path):
    llama = family("llama")
    model = attach(llama, sharing="all", input_scale="rms")
    model.train()(**llama.batch())  # measures the input scale
    want = llama.output(model)
    llama.model().save_pretrained(tmp_path / "base")
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(llama.output(loaded), want)
    direct = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(llama.output(direct), want)
    native = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    native.load_adapter(str(tmp_path / "adapter"))
    assert torch.equal(llama.output(native), want)
    phis = {id(m.basis_phi["default"].amplitude) for m in basis_layers(native)}
    assert len(phis) == 1, "the ties are gone"
    if not is_peft_greater_or_equal(MIN_PEFT_VERSION):
        return  # transformers itself deletes no adapter then, of whatever method
    native.delete_adapter("default")
    assert not any("default" in m.basis_A for m in basis_layers(native))
    assert torch.equal(llama.output(native), llama.output(llama.model()))


def basis_layers(model):
    return [m for m in model.modules() if isinstance(m, BasisLinear)]


def test_injection_without_a_peft_model(family):
    llama = family("llama")
    model = inject_adapter_in_model(config(), llama.model())
    model.train()(**llama.batch()).loss.backward()
    assert all(m.basis_phi["default"].amplitude.grad is not None for m in basis_layers(model))


def test_conversion_by_peft_itself(family, tmp_path):
    llama = family("llama")
    model = attach(llama)
    want = llama.output(model)
    save_as_lora(str(tmp_path), model, rank=16)
    lora = PeftModel.from_pretrained(llama.model(), tmp_path)
    assert type(lora.peft_config["default"]) is LoraConfig
    error = (llama.output(lora) - want).norm() / (want - llama.output(llama.model())).norm()
    assert error < 1e-3
    lora_config, _ = convert_to_lora(model, rank=0.9)
    assert 1 <= min(lora_config.rank_pattern.values())


def test_a_basis_adapter_around_a_lora_layer(family):
    llama = family("llama")
    lora = LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    inner = get_peft_model(llama.model(), lora)
    want = llama.output(inner)
    outer = get_peft_model(inner, config(target_modules=["q_proj"], exclude_modules=r".*lora_.*"))
    assert torch.equal(llama.output(outer), want)
    outer.train()(**llama.batch()).loss.backward()
    assert basis_layers(outer)[0].basis_phi["default"].amplitude.grad.abs().sum() > 0


def test_copies_and_files_of_a_model_in_training(family, tmp_path):
    llama = family("llama")
    model = attach(llama).train()
    model(**llama.batch())  # leaves a fit with a graph behind
    twin = copy.deepcopy(model)
    want = llama.output(model)
    assert torch.equal(llama.output(twin), want)
    with torch.no_grad():
        for layer in basis_layers(twin):
            layer.basis_phi["default"].amplitude.zero_()
    assert torch.equal(llama.output(model), want)
    assert torch.equal(llama.output(twin), llama.output(llama.model()))
    torch.save(model, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(llama.output(again), want)


def test_a_merged_model_keeps_nothing_of_the_adapter(family):
    llama = family("llama")
    model = attach(llama)
    llama.output(model)
    plain = model.merge_and_unload()
    assert not plain._forward_pre_hooks and not plain._load_state_dict_post_hooks
    assert not any(name.startswith("_basis") for name in vars(plain))


def test_inference_mode_and_training_alternate(family):
    llama = family("llama")
    model = attach(llama)
    with torch.inference_mode():
        want = model(**llama.batch()).logits.clone()
    model.merge_adapter()
    model.unmerge_adapter()
    model(**llama.batch()).loss.backward()
    assert torch.equal(llama.output(model), want)


class Quantised(nn.Module):
    """A linear layer that keeps eight-bit integers, as quantisers do."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("qweight", (linear.weight / scale).round().to(torch.int8).detach())
        self.register_buffer("scale", scale)

    def forward(self, x):
        return x @ (self.qweight * self.scale).T.to(x.dtype)


def quantised(family):
    model = family.model()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(tuple(TARGETS)):
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], Quantised(module))
    return model


def test_a_quantised_base_takes_the_path_of_two_products(family, few_steps, tmp_path, monkeypatch):
    backend = ForwardOnlyQuantizationBackend("test")
    monkeypatch.setattr(
        "adapters.placement.inspection.resolve_quantization_backend",
        lambda base, **_: backend if type(base).__name__ == "Quantised" else None,
    )
    llama = family("llama")
    torch.manual_seed(0)
    model = get_peft_model(quantised(llama), config(init_weights=True, b_std=0.1))
    before = state(model)
    losses = few_steps(model, llama.batch())
    assert losses[-1] < losses[0]
    assert any(not torch.equal(v, before[k]) for k, v in state(model).items())
    want = llama.output(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(llama.output(PeftModel.from_pretrained(quantised(llama), tmp_path)), want)
    with pytest.raises(ValueError, match="cannot merge into Quantised"):
        model.merge_adapter()


def test_a_quantised_layer_that_nobody_knows_is_refused(family):
    with pytest.raises(ValueError, match=r"q_proj' of type Quantised"):
        get_peft_model(quantised(family("llama")), config())


def test_a_quantised_base_with_a_back_end_merges_and_comes_back(family, monkeypatch):
    from peft.utils.quantization_utils import QuantizationBackend

    class Backend(QuantizationBackend):
        layer_type, supports_merge, backend_name = "linear", True, "test"

        def get_base_weight(self, base_layer):
            return base_layer.qweight * base_layer.scale

        def set_base_weight(self, peft_layer, weight):
            base = peft_layer.get_base_layer()
            base.scale = weight.abs().amax(1, keepdim=True) / 127
            base.qweight = (weight / base.scale).round().to(torch.int8)

    monkeypatch.setattr(
        "adapters.placement.inspection.resolve_quantization_backend", lambda *_, **__: Backend()
    )
    llama = family("llama")
    model = get_peft_model(quantised(llama), config(init_weights=False))
    want = llama.output(model)
    model.merge_adapter(safe_merge=True)
    merged = llama.output(model)
    assert not torch.equal(merged, want)  # quantised anew
    assert (merged - want).norm() < 0.1 * (want - llama.output(quantised(llama))).norm()
    model.unmerge_adapter()
    assert torch.equal(llama.output(model), want)
