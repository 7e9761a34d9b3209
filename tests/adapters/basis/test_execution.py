"""How W' is made and applied: once a step, split, rounded by chance; and phi fitted once a step."""

import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

import adapters
from adapters import BasisConfig, BasisLinear
from adapters.ops import merge
from basis_zoo.proxy import ProxyFitter
from bench.adapter.launches import Calls, standing_in

TARGETS = ["q_proj", "down_proj"]
CHECKPOINTING = {"none": None, "reentrant": True, "not reentrant": False}


def attach(family, **options):
    options = {"r": 2, "num_basis": 8, "interval": (-1.0, 1.0), "init_weights": False, **options}
    torch.manual_seed(7)
    return get_peft_model(family.model(), BasisConfig(target_modules=TARGETS, **options))


def layers(model):
    return [m for m in model.modules() if isinstance(m, BasisLinear)]


def trained(model):
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def set_checkpointing(model, reentrant):
    if reentrant is not None:
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()  # reentrant checkpointing needs it


def two_steps(model, family, rounds=2):
    """Two optimizer steps of several micro-batches; the gradients of both, and the losses."""
    optimizer = torch.optim.SGD(trained(model).values(), lr=1e-2)
    gradients, losses = [], []
    for _ in range(2):
        optimizer.zero_grad()
        for size in range(2, 2 + rounds):
            loss = model(**family.batch(size, 5)).loss
            loss.backward()
            losses.append(loss.detach())
        gradients += [p.grad.clone() for p in trained(model).values()]
        optimizer.step()
    return gradients, losses


@pytest.fixture
def made(monkeypatch):
    """How often a weight has been made."""
    calls, true = [], merge.merged_weight

    def counted(*args, **kwargs):
        calls.append(kwargs.get("seed"))
        return true(*args, **kwargs)

    monkeypatch.setattr(merge, "merged_weight", counted)
    return calls


@pytest.mark.parametrize("path", ["merged", "split"])
@pytest.mark.parametrize("checkpointing", list(CHECKPOINTING))
def test_merge_once_changes_no_bit_and_makes_each_weight_once_a_step(
    family, made, checkpointing, path
):
    llama = family("llama")
    told = {}
    for once in (False, True):
        model = attach(llama, merge_once=once, path=path).train()
        model.enable_input_require_grads()  # else the first layer's backward needs no weight
        set_checkpointing(model, CHECKPOINTING[checkpointing])
        made.clear()
        told[once] = two_steps(model, llama)
        passes = 2 if checkpointing == "none" else 3
        expected = 2 * len(layers(model)) * (1 if once else 2 * passes)
        assert len(made) == expected, f"merge_once={once}: {len(made)} weights made"
    for one, other in zip(*told.values(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_kept_weight_follows_every_change(family):
    bert = family("bert")
    config = BasisConfig(target_modules=["query"], init_weights=False, merge_once=True, r=2)
    model = get_peft_model(bert.model(), config).eval()
    layer = layers(model)[0]
    seen = [bert.output(model)]
    with torch.no_grad():
        layer.basis_A["default"].add_(0.1)
    seen.append(bert.output(model))
    with torch.no_grad():
        layer.base_layer.weight.mul_(1.1)
    seen.append(bert.output(model))
    layer.scaling["default"] *= 2
    seen.append(bert.output(model))
    for i, a in enumerate(seen):
        assert all(not torch.equal(a, b) for b in seen[:i])
    model.merge_adapter()
    assert torch.equal(bert.output(model), seen[-1])


def test_phi_is_fitted_once_a_step_and_every_micro_batch_reaches_it(family):
    llama = family("llama")
    model = attach(llama).train()
    batch = layers(model)[0].batches["default"]
    alone = []
    for size in (2, 3, 4):
        model.zero_grad()
        model(**llama.batch(size, 5)).loss.backward()
        alone.append([p.grad.clone() for p in trained(model).values()])
    assert batch.fits == 1
    model.zero_grad()
    for size in (2, 3, 4):
        model(**llama.batch(size, 5)).loss.backward()
    for p, *parts in zip(trained(model).values(), *alone, strict=True):
        torch.testing.assert_close(p.grad, sum(parts), rtol=1e-5, atol=1e-8)
    torch.optim.SGD(trained(model).values(), lr=1e-2).step()
    model(**llama.batch(2, 5))
    assert batch.fits == 2


def test_a_captured_pass_makes_its_own_fit(family, monkeypatch):
    llama = family("llama")
    model = attach(llama, merge_once=True).train()
    batch = layers(model)[0].batches["default"]
    model(**llama.batch())
    monkeypatch.setattr("adapters.basis.fitting.batch.is_captured", lambda: True)
    for count in (2, 3):  # a replay must read the numbers, though none has changed here
        model(**llama.batch())
        assert batch.fits == count
    monkeypatch.undo()
    model(**llama.batch())
    assert batch.fits == 4


class _NoReading(TorchDispatchMode):
    """Refuses what would make the host wait for a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "is_nonzero", "nonzero"), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"basis": "hat"}, {"input_scale": "rms"}], ids=str)
def test_a_step_on_a_gpu_would_not_wait_for_it(family, monkeypatch, options):
    model = attach(family("llama"), **options).train()
    layer = layers(model)[0]
    batch = layer.batches["default"]
    batch.lagging = ("cuda", "cpu")
    x = torch.randn(5, layer.in_features, requires_grad=True)
    layer(x).sum().backward()  # the first fit may wait
    with torch.no_grad():
        layer.basis_A["default"].mul_(1.1)
    fitted = batch.fits
    monkeypatch.setattr(ProxyFitter, "_receive", lambda self: None)  # reads the host's own copy
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: pytest.fail("a tensor was read"))
    with standing_in(Calls()), _NoReading():
        batch.begin_pass(True)
        layer(x).sum().backward()
        batch.end_pass()
    assert batch.fits == fitted + 1


@pytest.mark.parametrize("sharing", ["none", "all"])
def test_a_graph_can_be_walked_twice(family, sharing):
    llama = family("llama")
    model = attach(llama, sharing=sharing, grid="learned", linear=True).train()
    loss = model(**llama.batch()).loss
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in trained(model).values()]
    assert all(g.any() for g in once)
    loss.backward()
    for p, g in zip(trained(model).values(), once, strict=True):
        torch.testing.assert_close(p.grad, 2 * g)


def test_parameters_that_are_thawed_get_gradients(family):
    llama = family("llama")
    model = attach(llama).train()
    phi = adapters.phi_parameters(model)
    for p in phi:
        p.requires_grad_(False)
    model(**llama.batch()).loss.backward()
    assert all(p.grad is None for p in phi)
    for p in phi:
        p.requires_grad_(True)
    model(**llama.batch()).loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in phi)


def test_a_pass_that_fails_leaves_no_trust_behind(family):
    llama = family("llama")
    model = attach(llama).train()
    layer = layers(model)[-1]
    hook = layer.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(**llama.batch())
    hook.remove()
    x = torch.randn(3, layer.in_features)
    before = layer(x)
    with torch.no_grad():
        layer.basis_phi["default"].amplitude.mul_(2)  # only the proxy tells
    assert not torch.equal(layer(x), before)


def test_the_split_path_gives_the_merged_result(family):
    llama = family("llama")
    merged, split = (attach(llama, path=path).train() for path in ("merged", "split"))
    for model in (merged, split):
        model(**llama.batch()).loss.backward()
    for (name, one), other in zip(trained(merged).items(), trained(split).values(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=2e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("path", ["merged", "split"])
def test_an_update_below_half_an_ulp_reaches_the_output_on_the_split_path_only(path):
    base = torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False)).bfloat16()
    torch.nn.init.ones_(base[0].weight)
    config = BasisConfig(r=2, target_modules=["0"], path=path, start="identity", alpha=2.0)
    model = get_peft_model(base, config)
    layer = layers(model)[0]
    x = torch.tensor([1.0, -1.0]).repeat(32)[None].bfloat16()  # x W^T cancels
    with torch.no_grad():
        layer.basis_B["default"].fill_(1.0)
        layer.basis_A["default"].copy_(5e-4 * x.expand(2, 64))
        update = layer.get_delta_weight("default")
        assert 5e-4 < update.abs().min() and update.abs().max() < 2**-9  # half an ulp below 1
        y = model(x)
    want = x.float() @ update.T * (path == "split")
    torch.testing.assert_close(y.float(), want, rtol=2e-2, atol=0)


def rounding_model(family, **options):
    return attach(family("llama", torch.bfloat16), rounding="stochastic", **options)


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("checkpointing", list(CHECKPOINTING))
def test_stochastic_rounding_follows_torchs_seed_and_is_new_each_step(
    family, made, checkpointing, once
):
    llama, told = family("llama", torch.bfloat16), []
    for seed in (3, 3, 4):
        model = rounding_model(family, merge_once=once).train()
        set_checkpointing(model, CHECKPOINTING[checkpointing])
        made.clear()
        torch.manual_seed(seed)
        told.append(two_steps(model, llama))
        assert None not in made
        assert len(set(made)) == 2 * len(layers(model)), "one seed for each layer and step"
    (first, losses), (again, same), (_, other) = told
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert losses == same and losses != other


def test_recomputed_weights_are_rounded_alike(family):
    llama, told = family("llama", torch.bfloat16), []
    for reentrant in CHECKPOINTING.values():
        model = rounding_model(family).train()
        set_checkpointing(model, reentrant)
        torch.manual_seed(3)
        told.append(two_steps(model, llama)[0])
    for others in told[1:]:
        assert all(torch.equal(a, b) for a, b in zip(told[0], others, strict=True))


def test_evaluation_and_merging_round_to_nearest(family):
    llama = family("llama", torch.bfloat16)
    want = llama.output(attach(llama))
    model = rounding_model(family)
    assert torch.equal(llama.output(model), want)
    with torch.no_grad():
        assert not torch.equal(model.train()(**llama.batch()).logits, want)
    assert torch.equal(llama.output(model.merge_and_unload()), want)


def test_the_options_are_saved_and_taken_from_a_flat_mapping(family, tmp_path):
    llama = family("llama")
    options = {"merge_once": True, "rounding": "stochastic", "path": "merged"}
    mapping = {"method": "basis", "target_modules": TARGETS, **options}
    model = adapters.attach(llama.model(), mapping)
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert {name: saved[name] for name in options} == options
    again = PeftModel.from_pretrained(llama.model(), tmp_path)
    assert all(layer.execution["default"].merge_once for layer in layers(again))
    assert all(layer.execution["default"].stochastic for layer in layers(again))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "splitt"}, "Did you mean 'split'"),
        ({"rounding": "random"}, "must be one of nearest, stochastic"),
        ({"rounding": "stochastic", "path": "split"}, "take path 'merged'"),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BasisConfig(**options)
