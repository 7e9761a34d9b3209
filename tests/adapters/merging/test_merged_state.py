"""A merged model may be moved, cast, merged again or share its weights, and comes back."""

import pytest
import torch
from peft import get_peft_model
from torch import nn

import adapters
from adapters import BasisConfig
from adapters.export.substitution import in_force
from adapters.export.updates import layer_updates

METHODS = ["basis", "nola", "randlora_paper"]
X = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))


def attach(method="basis", tied=False):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12), nn.Linear(12, 3))
    if tied:
        net[2].weight = net[0].weight
    model = adapters.attach(net, {"method": method, "target_modules": ["0", "2"], "r": 4})
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad and "raw" not in name:
                p.normal_(std=0.3)
    return model


def weights(model):
    return [model.get_base_model()[i].get_base_layer().weight for i in (0, 2)]


@pytest.mark.parametrize("method", METHODS)
def test_layers_that_share_a_weight_are_merged_apart(method):
    model = attach(method, tied=True)
    with torch.no_grad():
        want, before = model(X), weights(model)[0].clone()
        model.merge_adapter()
        torch.testing.assert_close(model(X), want)
        model.unmerge_adapter()
        first, second = weights(model)
        assert first is second
        assert torch.equal(first, before)
        assert torch.equal(model(X), want)


@pytest.mark.parametrize("method", METHODS)
def test_other_updates_in_force_leave_a_shared_weight_as_it_was(method):
    model = attach(method, tied=True)
    with torch.no_grad():
        want, before = model(X), weights(model)[0].clone()
        with in_force(layer_updates(model), lambda update: update.dense()):
            torch.testing.assert_close(model(X), want)
        first, second = weights(model)
        assert first is second
        assert torch.equal(first, before)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_is_cast_while_merged(method, dtype):
    model = attach(method)
    cast = [w.detach().to(dtype) for w in weights(model)]
    model.merge_adapter()
    model.to(dtype)
    model.unmerge_adapter()
    assert all(torch.equal(w, c) for w, c in zip(weights(model), cast, strict=True))
    assert model(X.to(dtype)).isfinite().all()
    model.merge_adapter()
    assert {w.dtype for w in weights(model)} == {dtype}


@pytest.mark.parametrize("method", METHODS)
def test_what_is_merged_is_no_parameter_twice(method):
    model = attach(method)
    before = [name for name, _ in model.named_parameters()]
    keys = set(model.state_dict())
    model.merge_adapter()
    assert [name for name, _ in model.named_parameters()] == before
    assert set(model.state_dict()) == keys


def test_a_refused_second_merge_leaves_the_first():
    net = nn.Sequential(nn.Linear(12, 12))
    options = {"r": 2, "num_basis": 5, "target_modules": ["0"], "init_weights": False}
    model = get_peft_model(net, BasisConfig(**options))
    model.add_adapter("broken", BasisConfig(**options))
    layer = model.get_base_model()[0]
    with torch.no_grad():
        plain, want = net[0].base_layer(X), model(X)
        layer.basis_B["broken"].fill_(torch.nan)
        model.merge_adapter(["default"])
        with pytest.raises(ValueError, match=r"adapter broken"):
            model.merge_adapter(["broken"], safe_merge=True)
        assert layer.merged_adapters == ["default"]
        assert torch.equal(model(X), want)
        model.unmerge_adapter()
        assert torch.equal(layer.base_layer(X), plain)
