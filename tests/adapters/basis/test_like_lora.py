"""What people do with LoRA's layers and options, done with ours."""

import json

import pytest
import torch
from peft import PeftModel, get_peft_model, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import adapters
from adapters import BasisConfig, BasisLayer


def config(**options) -> BasisConfig:
    return BasisConfig(
        **{"r": 2, "num_basis": 6, "interval": (-1.0, 1.0), "init_weights": False, **options}
    )


class Small(nn.Module):
    """Two linear layers; the first's output is changed in place."""

    def __init__(self, first: nn.Module | None = None) -> None:
        super().__init__()
        self.one = first or nn.Linear(8, 8)
        self.two = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x).view(*x.shape[:-1], 2, 4)
        y /= 2.0
        y += 1
        return self.two(y.flatten(-2).relu_())


def small(**options) -> PeftModel:
    torch.manual_seed(0)
    return get_peft_model(Small(), config(**{"target_modules": ["one", "two"], **options}))


X = torch.linspace(-1, 1, 48).reshape(2, 3, 8)


@pytest.mark.parametrize("path", ["merged", "split"])
@pytest.mark.parametrize("x", [X[0], X, X[None]], ids=["two", "three", "four"])
def test_outputs_can_be_changed_in_place(path, x):
    model = small(path=path)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_a_trained_bias_and_a_trained_base_weight_get_their_gradients():
    model = small()
    layer = model.base_model.model.one
    base = layer.get_base_layer()
    base.requires_grad_(True)
    model(X).square().sum().backward()
    weight = layer.merged_matrix(base.weight, layer.parts(["default"])).detach().requires_grad_()
    bias = base.bias.detach().clone().requires_grad_()
    y = nn.functional.linear(X, weight, bias) / 2 + 1
    model.base_model.model.two(y.relu()).square().sum().backward()
    torch.testing.assert_close(base.weight.grad, weight.grad)
    torch.testing.assert_close(base.bias.grad, bias.grad)


def test_scales_are_loras():
    model = small(alpha=6.0, use_rslora=True, alpha_pattern={"two": 8.0}, rank_pattern={"two": 4})
    one, two = model.base_model.model.one, model.base_model.model.two
    assert one.scaling["default"] == pytest.approx(6 / 2**0.5)
    assert two.scaling["default"] == pytest.approx(8 / 4**0.5)


def test_dropout_is_of_the_updates_input_while_training():
    model = small(dropout=0.5, target_modules=["two"])
    layer = model.base_model.model.two
    model.eval()
    want = layer(X)
    with torch.no_grad():
        torch.testing.assert_close(want, small(target_modules=["two"]).base_model.model.two(X))
    model.train()
    torch.manual_seed(3)
    got = layer(X)
    torch.manual_seed(3)
    points = nn.functional.dropout(X, 0.5)
    exact = layer.base_layer(X) + points @ layer.get_delta_weight("default").T
    torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-6)
    got.sum().backward()
    assert layer.basis_A["default"].grad.abs().max() > 0


def test_dropout_of_a_convolution_is_of_the_updates_input():
    torch.manual_seed(0)
    model = get_peft_model(
        nn.Sequential(nn.Conv1d(3, 4, 2)), config(target_modules=["0"], dropout=0.5)
    )
    layer, x = model.base_model.model[0], torch.linspace(-1, 1, 30).reshape(2, 3, 5)
    torch.manual_seed(3)
    got = layer.train()(x)
    torch.manual_seed(3)
    update = layer.get_delta_weight("default")
    exact = layer.base_layer(x) + nn.functional.conv1d(nn.functional.dropout(x, 0.5), update)
    torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-6)


def test_dropout_where_the_input_cannot_be_told_is_refused():
    with pytest.raises(ValueError, match=r"`dropout` 0.1 is of the input .* MultiheadAttention"):
        get_peft_model(
            nn.Sequential(nn.MultiheadAttention(4, 2)), config(target_modules=["0"], dropout=0.1)
        )


@pytest.mark.parametrize("targets", [["linear1", "linear2"], ["self_attn"], ["out_proj"]])
def test_a_layer_whose_owner_reads_weights_is_adapted_on_every_path(targets):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    model = get_peft_model(nn.Sequential(layer), config(target_modules=targets)).eval()
    slow = model(X)  # gradients are on, so torch does not take its fused path
    slow.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        torch.testing.assert_close(model(X), slow.detach(), rtol=1e-4, atol=1e-5)
        with model.disable_adapter():
            base = model(X)
    assert (slow - base).abs().max() > 0.01
    model.merge_adapter()
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(X), base)
    plain = model.merge_and_unload()
    with torch.no_grad():
        torch.testing.assert_close(plain(X), slow.detach(), rtol=1e-4, atol=1e-5)


def test_mamba_reads_the_weights_in_force():
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    shape = {"vocab_size": 17, "hidden_size": 8, "num_hidden_layers": 1, "state_size": 4}
    names = ["in_proj", "x_proj", "dt_proj", "out_proj"]
    model = get_peft_model(MambaForCausalLM(MambaConfig(**shape)), config(target_modules=names))
    mixer = model.base_model.model.backbone.layers[0].mixer
    for name in ("x_proj", "dt_proj", "out_proj"):  # mamba_inner_fn is handed these
        layer = getattr(mixer, name)
        want = layer.get_base_layer().weight + layer.get_delta_weight("default")
        torch.testing.assert_close(layer.weight, want)
        assert layer.weight.requires_grad


@torch.no_grad()
def test_rescaling_is_for_a_while():
    model = small(merge_once=True).eval()
    full = model.base_model.model.two(X)
    with model.disable_adapter():
        none = model.base_model.model.two(X)
    with adapters.rescale_adapter_scale(model, 0.5):
        half = model.base_model.model.two(X)
    torch.testing.assert_close(half, (full + none) / 2, rtol=1e-5, atol=1e-6)
    assert torch.equal(model.base_model.model.two(X), full)
    with pytest.raises(TypeError, match="multiplier should be of type float, got <class 'str'>"):
        adapters.rescale_adapter_scale(model, "0.5").__enter__()


def test_what_is_trained_takes_the_bases_dtype_without_autocast():
    torch.manual_seed(0)
    options = config(target_modules=["one"])
    model = get_peft_model(Small().bfloat16(), options, autocast_adapter_dtype=False)
    layer = model.base_model.model.one
    assert layer.basis_A["default"].dtype == layer.basis_B["default"].dtype == torch.bfloat16
    phi = layer.basis_phi["default"]
    assert phi.amplitude.dtype == torch.bfloat16
    assert phi.raw_grid.dtype == torch.float32
    want = layer(X.bfloat16())
    want.sum().backward()
    assert layer.basis_A["default"].grad.dtype == torch.bfloat16
    model.merge_adapter()
    assert torch.equal(layer(X.bfloat16()), want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_the_default_dtype_of_torch_does_not_matter(dtype):
    want = small()
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(0)
        model = get_peft_model(Small().float(), config(target_modules=["one", "two"]))
        got = model(X)
        got.sum().backward()
        late = want(X)
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert torch.equal(late, want(X))


def test_a_parametrised_weight_is_merged_and_comes_back():
    torch.manual_seed(0)
    base = parametrizations.weight_norm(nn.Linear(8, 8))
    model = get_peft_model(Small(base), config(target_modules=["one"]))
    before = {n: p.clone() for n, p in base.state_dict().items()}
    want = model(X).detach()
    model.merge_adapter()
    assert torch.equal(model(X), want)
    model.unmerge_adapter()
    assert torch.equal(model(X), want)
    assert all(torch.equal(p, before[n]) for n, p in base.state_dict().items())
    assert torch.equal(model.merge_and_unload()(X), want)


def test_a_weight_that_is_made_in_every_pass_is_adapted_and_not_merged():
    torch.manual_seed(0)
    with pytest.warns(FutureWarning):
        base = torch.nn.utils.weight_norm(nn.Linear(8, 8))
    plain = base(X)
    model = get_peft_model(Small(base), config(target_modules=["one"]))
    layer = model.base_model.model.one
    update = X @ layer.get_delta_weight("default").T
    torch.testing.assert_close(layer(X), plain + update, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="makes its 'weight' anew"):
        model.merge_adapter()


def test_hooks_on_a_base_layer_are_called():
    model, seen = small(), []
    base = model.base_model.model.one.get_base_layer()
    base.register_forward_hook(lambda *_: seen.append(1))
    model(X)
    assert seen == [1]


def test_a_compiled_model_takes_an_adapter_from_a_state_dict():
    want = small()
    compiled = torch.compile(Small(), backend="eager")
    state = {k.removeprefix("base_model.model."): v for k, v in want.state_dict().items()}
    numbers = {k.replace(".default", ""): v for k, v in state.items() if "basis_" in k}
    options = config(target_modules=["one", "two"])
    model = inject_adapter_in_model(options, compiled, state_dict=numbers)
    carried = [n for n, m in model.named_modules() if isinstance(m, BasisLayer)]
    assert sorted(n.rpartition(".")[2] for n in carried) == ["one", "two"]


def test_an_adapter_of_the_first_version_of_the_settings_still_loads(tmp_path):
    model = small()
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    settings = json.loads(file.read_text()) | {"schema_version": 1}
    for name in ("use_rslora", "dropout", "alpha_pattern", "target_parameters"):
        del settings[name]
    file.write_text(json.dumps(settings))
    torch.manual_seed(0)
    assert torch.equal(PeftModel.from_pretrained(Small(), tmp_path)(X), model(X))
