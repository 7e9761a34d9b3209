"""Every family of transformers trains, saves, loads and merges to the same bits."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer

from adapters import BasisConfig, BasisLinear


def config(**options):
    return BasisConfig(r=2, num_basis=8, interval=(-1.0, 1.0), target_modules="all", **options)


@pytest.mark.slow
def test_trains_saves_loads_and_merges(every_family, few_steps, tmp_path):
    f = every_family
    model = get_peft_model(f.model(), config(alpha=4, b_std=0.1))
    before = {n: p.clone() for n, p in model.named_parameters() if p.requires_grad}
    untouched = f.output(model)
    assert torch.equal(untouched, f.output(f.model()))
    losses = few_steps(model, f.batch())
    assert losses[-1] < losses[0]
    factors = [(n, p) for n, p in model.named_parameters() if "basis_" in n]
    still = [n for n, p in factors if torch.equal(p, before[n])]
    # at zero amplitudes a factor's first gradient is zero; by step three everything moves
    assert not still, f"never trained: {still}"
    want = f.output(model)
    assert not torch.equal(want, untouched)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(f.model(), tmp_path)
    assert torch.equal(f.output(again), want)
    again.merge_adapter(safe_merge=True)
    assert torch.equal(f.output(again), want)
    again.unmerge_adapter()
    assert torch.equal(f.output(again), want)
    plain = again.merge_and_unload()
    assert not any(isinstance(m, BaseTunerLayer) for m in plain.modules())
    assert torch.equal(f.output(plain), want)
    plain.save_pretrained(tmp_path / "plain")
    reloaded = type(plain).from_pretrained(tmp_path / "plain")
    assert torch.equal(f.output(reloaded), want)


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
def test_bf16_merges_to_the_same_bits(family, name):
    f = family(name, torch.bfloat16)
    model = get_peft_model(f.model(), config(init_weights=False))
    want = f.output(model)
    assert not torch.equal(want, f.output(f.model()))
    assert torch.equal(f.output(model.merge_and_unload()), want)


def test_conv1d_is_the_transposed_definition(family):
    f = family("gpt2")
    model = get_peft_model(f.model(), config(init_weights=False))
    layer = next(m for m in model.modules() if isinstance(m, BasisLinear))
    assert layer.base_layer.weight.shape == (layer.in_features, layer.out_features) == (32, 96)
    b, a, phi = layer.member("default")
    want = layer.scaling["default"] * phi(b @ a)
    torch.testing.assert_close(layer.get_delta_weight("default"), want.T, rtol=1e-4, atol=1e-5)
    x = torch.randn(3, 32)
    exact = x @ (layer.base_layer.weight + want.T) + layer.base_layer.bias
    torch.testing.assert_close(layer(x), exact, rtol=1e-4, atol=1e-4)
