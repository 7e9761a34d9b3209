"""The tuner inside a model: the same bits merged or not, the gradients, and PEFT's life cycle."""

import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn import functional as F

import adapters
from adapters import BasisConfig, BasisLinear
from adapters.ops.merge import product

DTYPES = [torch.float32, torch.bfloat16]


def attach(family, **options):
    options = {"r": 2, "num_basis": 8, "interval": (-1.0, 1.0), "init_weights": False, **options}
    torch.manual_seed(7)
    return get_peft_model(family.model(), BasisConfig(**options)).eval()


def adapter_state(model):
    return {k: v.clone() for k, v in model.state_dict().items() if "basis_" in k}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_forward_reloaded_merged_and_unmerged_are_bit_equal(family, few_steps, tmp_path, dtype):
    bert = family("bert", dtype)
    model = attach(bert, target_modules=["query", "value", "dense"], task_type="SEQ_CLS")
    few_steps(model, bert.batch())
    want, base = bert.output(model), bert.output(bert.model())
    assert not torch.equal(want, base)
    weights = {k: v.clone() for k, v in model.state_dict().items() if "base_layer" in k}
    model.save_pretrained(tmp_path)
    assert torch.equal(bert.output(PeftModel.from_pretrained(bert.model(), tmp_path)), want)
    model.merge_adapter(safe_merge=True)
    assert torch.equal(bert.output(model), want)
    model.unmerge_adapter()
    assert torch.equal(bert.output(model), want)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in weights.items())
    with model.disable_adapter():
        disabled = model.get_base_model().bert(**{"input_ids": bert.batch()["input_ids"]})[0]
    plain = bert.model().bert(**{"input_ids": bert.batch()["input_ids"]})[0]
    assert torch.equal(disabled, plain)
    merged = model.merge_and_unload()
    assert not any(isinstance(m, BaseTunerLayer) for m in merged.modules())
    assert torch.equal(bert.output(merged), want)


def test_phi_stays_float32_on_a_bf16_base(family, tmp_path):
    bert = family("bert", torch.bfloat16)
    options = {"target_modules": ["query"], "bandwidth": 0.3, "grid": "learned"}
    model = attach(bert, **options)
    exact = BasisConfig(r=2, num_basis=8, interval=(-1, 1), **options).phi.build_nonlinearity()
    model.save_pretrained(tmp_path)
    for each in (model, PeftModel.from_pretrained(bert.model(), tmp_path)):
        state = adapter_state(each)
        assert {v.dtype for v in state.values()} == {torch.float32}
        for name, value in state.items():
            if name.endswith("raw_bandwidth"):
                assert torch.equal(value, exact.raw_bandwidth)
            if name.endswith("raw_grid"):
                assert torch.equal(value, exact.raw_grid)


def naive_forward(layer, x):
    """The definition, by autograd all the way."""
    b, a, phi = layer.member("default")
    update = layer.scaling["default"] * phi(product(b, a))
    return F.linear(x, layer.base_layer.weight + update, layer.base_layer.bias)


def gradients(model, batch, monkeypatch=None):
    model.zero_grad()
    if monkeypatch is None:
        model(**batch).loss.backward()
    else:
        with monkeypatch.context() as patch:
            patch.setattr(BasisLinear, "forward", naive_forward)
            model(**batch).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def assert_close(got, want, tolerance=2e-4):
    """Errors relative to a gradient, or to 3% of the largest of its kind if it is smaller.

    A gradient that almost cancels is all rounding: a constant added to W_q, say.
    """
    assert got.keys() == want.keys() and len(got) > 0
    largest = {}
    for name, value in want.items():
        kind = name.rpartition("basis_")[2]
        largest[kind] = max(largest.get(kind, 1e-12), value.norm().item())
    for name, value in want.items():
        floor = 0.03 * largest[name.rpartition("basis_")[2]]
        error = (got[name] - value).norm() / value.norm().clamp_min(floor)
        assert error < tolerance, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("start", ["anchored", "paper"])
def test_gradients_are_those_of_the_definition(family, monkeypatch, start):
    llama = family("llama")
    model = attach(
        llama,
        target_modules="all-linear",
        start=start,
        linear=True,
        grid="learned",
        num_basis=5,
        b_std=0.3,
    )
    with torch.no_grad():
        for layer in layers(model):  # tame, or float32 itself is lost in an unanchored model
            layer.basis_phi["default"].amplitude.mul_(0.01 if start == "paper" else 1.0)
    got = gradients(model.train(), llama.batch())
    exact = gradients(model.double(), llama.batch(), monkeypatch)  # float32 loses 1e-3 here
    want = {name: g.float() for name, g in exact.items()}
    assert_close(got, want, 1e-3)


def test_accumulated_and_interleaved_passes_give_the_summed_gradient(family):
    llama = family("llama")
    model = attach(llama, target_modules=["q_proj", "down_proj"]).train()
    first, second = llama.batch(2, 5), llama.batch(3, 7)
    want = {n: g + gradients(model, second)[n] for n, g in gradients(model, first).items()}
    model.zero_grad()
    for batch in (first, second):
        model(**batch).loss.backward()
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert_close({n: p.grad.clone() for n, p in parameters.items()}, want, 1e-5)
    model.zero_grad()
    losses = [model(**batch).loss for batch in (first, second)]
    with torch.no_grad():
        model(**first)
    for loss in losses:
        loss.backward()
    assert_close({n: p.grad for n, p in parameters.items()}, want, 1e-5)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(family, reentrant):
    llama = family("llama")
    model = attach(llama, target_modules=["q_proj", "down_proj"]).train()
    want = gradients(model, llama.batch())
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    assert_close(gradients(model, llama.batch()), want, 1e-5)


def test_no_dense_matrix_is_saved_for_the_backward_pass(family):
    llama = family("llama")
    model = attach(llama, target_modules=["q_proj", "down_proj"]).train()
    frozen = {p.data_ptr() for p in model.parameters()}
    dense = {layer.base_layer.weight.shape for layer in layers(model)}
    saved = []

    def pack(t):
        if t.data_ptr() not in frozen and t.shape in dense:
            saved.append(tuple(t.shape))
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model(**llama.batch(3, 5)).loss.backward()
    assert saved == []


def layers(model):
    return [m for m in model.modules() if isinstance(m, BasisLinear)]


@pytest.mark.parametrize("start", ["paper", "anchored"])
def test_the_update_is_zero_before_training(family, start):
    bert = family("bert")
    model = attach(bert, target_modules=["query", "dense"], init_weights=True, start=start)
    assert torch.equal(bert.output(model), bert.output(bert.model()))
    assert all(not layer.get_delta_weight("default").any() for layer in layers(model))
    zero_b = [not layer.basis_B["default"].any() for layer in layers(model)]
    assert all(zero_b) if start == "paper" else not any(zero_b)


def test_a_proxy_follows_every_way_a_parameter_can_change(family):
    """In place, by a new Parameter, and by `.data`: no stale phi in any of them."""
    bert = family("bert")
    model = attach(bert, target_modules=["query"])
    phi = layers(model)[0].basis_phi["default"]
    seen = [bert.output(model)]
    with torch.no_grad():
        phi.amplitude.add_(3.0 * torch.arange(8))
    seen.append(bert.output(model))
    phi.amplitude.data = -2 * phi.amplitude.data
    seen.append(bert.output(model))
    phi.amplitude = torch.nn.Parameter(phi.amplitude.detach().flip(0))
    seen.append(bert.output(model))
    for i, a in enumerate(seen):
        assert all(not torch.equal(a, b) for b in seen[:i])


def test_parameter_groups_and_clipping_set_phi_apart(family):
    bert = family("bert")
    model = attach(bert, target_modules=["query"], task_type="SEQ_CLS").train()
    phi = {id(p) for p in adapters.phi_parameters(model)}
    decayed, plain = adapters.parameter_groups(model, 1e-3, 0.1)
    assert decayed["weight_decay"] == 0.1 and plain["weight_decay"] == 0.0
    assert phi <= {id(p) for p in plain["params"]}
    listed = [id(p) for group in (decayed, plain) for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    model(**bert.batch()).loss.backward()
    with torch.no_grad():
        for p in adapters.phi_parameters(model):
            p.grad.mul_(1e12)
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in phi]
    before = torch.stack([p.grad.norm() for p in rest]).norm()
    norm = adapters.clip_gradients(model, 1e3)
    assert norm == pytest.approx(before.item(), rel=1e-5)
    after = torch.stack([p.grad.norm() for p in rest]).norm()
    assert after == pytest.approx(before.item(), rel=1e-5), "phi's gradient shrank the others"
    clipped = torch.stack([p.grad.norm() for p in adapters.phi_parameters(model)]).norm()
    assert clipped == pytest.approx(1e3, rel=1e-3)


def test_parameters_are_counted(family):
    model = attach(family("bert"), target_modules=["query"], task_type="SEQ_CLS")
    counts = adapters.count_parameters(model)
    assert counts["phi"] == 2 * 2 * 8
    assert counts["adapter"] == 2 * (2 * (32 + 32) + 2 * 8)
    assert counts["trainable"] == counts["adapter"] + 32 * 3 + 3


def test_several_adapters_add_up_and_can_be_deleted(family):
    bert = family("bert")
    model = attach(bert, target_modules=["query"])
    one = bert.output(model)
    config = BasisConfig(
        r=3, basis="polynomial", num_basis=4, target_modules=["query", "key"], init_weights=False
    )
    model.add_adapter("two", config)
    assert torch.equal(bert.output(model), one)
    model.set_adapter("two")
    two = bert.output(model)
    model.base_model.set_adapter(["default", "two"])
    both = bert.output(model)
    assert len({one.sum().item(), two.sum().item(), both.sum().item()}) == 3
    model.merge_adapter()
    assert torch.equal(bert.output(model), both)
    model.unmerge_adapter()
    model.set_adapter("default")
    model.delete_adapter("two")
    assert torch.equal(bert.output(model), one)
    assert not any("two" in name for name in model.state_dict())


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_whole_head_is_trained_saved_and_merged(family, few_steps, tmp_path, kind):
    f = family(kind)
    model = attach(f, target_modules=["query", "value"], task_type="SEQ_CLS")
    head = "classifier.modules_to_save"
    before = {n: p.clone() for n, p in model.named_parameters() if head in n}
    assert before and all(p.requires_grad for n, p in model.named_parameters() if head in n)
    few_steps(model, f.batch())
    assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters() if n in before)
    want = f.output(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(f.output(PeftModel.from_pretrained(f.model(), tmp_path)), want)
    assert torch.equal(f.output(model.merge_and_unload()), want)


def test_files_of_a_newer_version_are_refused(family, tmp_path):
    bert = family("bert")
    attach(bert, target_modules=["query"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "BASIS" and config["schema_version"] == 5
    config["schema_version"] = 99
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="newer basis-zoo"):
        BasisConfig.from_pretrained(tmp_path)


def test_a_merge_that_is_not_finite_is_refused(family):
    model = attach(family("bert"), target_modules=["query"])
    with torch.no_grad():
        layers(model)[0].base_layer.weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match="NaNs detected"):
        model.merge_adapter(safe_merge=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs a `method`"),
        ({"method": "bassis"}, "Did you mean 'basis'"),
        ({"method": "basis", "num_bases": 8}, "Did you mean 'num_basis'"),
        ({"method": "basis", "basis": "gausian_rbf"}, "Did you mean 'gaussian_rbf'"),
        ({"method": "basis", "grid": "unifrom"}, "Did you mean 'uniform'"),
        ({"method": "basis", "start": "papers"}, "Did you mean 'paper'"),
        ({"method": "basis", "r": 0}, "`r` must be an integer >= 1, got 0"),
        ({"method": "basis", "alpha": -1.0}, "`alpha` must be positive"),
        ({"method": "basis", "interval": [1]}, "`interval` must be two ends"),
        ({"method": "basis", "bandwidth": 0}, "`bandwidth` must be positive"),
        ({"method": "lora", "num_basis": 8}, "method 'lora' has no option 'num_basis'"),
        ({"method": "lora", "r": "8"}, "option 'r' must be a whole number, got '8'"),
        ({"method": "dora", "alpha": [1]}, "option 'alpha' must be a number, got"),
        ({"method": "lora", "target_modules": 5}, "'target_modules' must be text or a list, got 5"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        adapters.check_options(options)


def test_a_module_without_a_matrix_is_refused_by_name(family):
    with pytest.raises(ValueError, match=r"output.LayerNorm' of type LayerNorm"):
        attach(family("bert"), target_modules=["output.LayerNorm"])
