"""Bases quantised by bitsandbytes and torchao, where these are installed; on a CPU and on a GPU."""

import pytest
import torch
import transformers as hf
from peft import PeftModel, get_peft_model
from torch import nn

from adapters import BasisConfig, BasisLinear
from adapters.export import to_lora

TARGETS = ("q_proj", "down_proj")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]
SHAPE = {"vocab_size": 67, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 1}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    config = hf.LlamaConfig(**SHAPE, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0)
    hf.LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def by_torchao(folder, device):
    quantization = pytest.importorskip("torchao.quantization")
    recipe = hf.TorchAoConfig(quantization.Int8WeightOnlyConfig())
    return (
        hf.AutoModelForCausalLM.from_pretrained(folder, quantization_config=recipe)
        .to(device)
        .eval()
    )


def by_torchao_outside_transformers(folder, device):
    quantization = pytest.importorskip("torchao.quantization")
    model = hf.AutoModelForCausalLM.from_pretrained(folder).to(device).eval()
    quantization.quantize_(model.model, quantization.Int8WeightOnlyConfig())
    return model


def _by_bitsandbytes(folder, device, linear, weight, own, **options):
    bnb = pytest.importorskip("bitsandbytes")
    model = hf.AutoModelForCausalLM.from_pretrained(folder).eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(TARGETS):
            new = getattr(bnb.nn, linear)(
                module.in_features, module.out_features, bias=False, **own
            )
            new.weight = getattr(bnb.nn, weight)(module.weight.data, requires_grad=False, **options)
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, new.to(device))
    return model.to(device)


def by_eight_bits(folder, device):
    fixed = {"has_fp16_weights": False}
    return _by_bitsandbytes(folder, device, "Linear8bitLt", "Int8Params", fixed, **fixed)


def by_four_bits(folder, device):
    return _by_bitsandbytes(folder, device, "Linear4bit", "Params4bit", {}, quant_type="nf4")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "make", [by_torchao, by_torchao_outside_transformers, by_eight_bits, by_four_bits]
)
def test_trains_reloads_merges_and_exports(folder, tmp_path, family, few_steps, make, device):
    llama = family("llama")
    torch.manual_seed(0)
    config = BasisConfig(
        r=2, num_basis=8, interval=(-1.0, 1.0), target_modules=list(TARGETS), b_std=0.1
    )
    model = get_peft_model(make(folder, device), config)
    base = llama.output(make(folder, device))
    losses = few_steps(model, llama.batch(device=device), rate=3e-2)
    assert losses[-1] < losses[0]
    want = llama.output(model)
    layers = [m for m in model.modules() if isinstance(m, BasisLinear)]
    assert all(layer.quantization_backend is not None for layer in layers)
    if make is by_torchao_outside_transformers:
        with pytest.raises(ValueError, match="whose weight is quantised"):
            model.merge_adapter()
    else:
        model.merge_adapter(safe_merge=True)
        error = (llama.output(model) - want).norm() / (want - base).norm()
        assert error < 0.5  # quantised anew: four bits lose much of a small update
        model.unmerge_adapter()
        assert torch.equal(llama.output(model), want)
    assert to_lora(model, rank=64).relative_error < 1e-2
    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(make(folder, device), tmp_path / "adapter").to(device)
    assert torch.equal(llama.output(again), want)
