"""Forms and finer sharing on models: heads, measures, exports, refusals, compiled and mixed."""

import itertools
import re

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel

import adapters
from adapters import BasisConfig, BasisLayer
from adapters.export import to_lora
from adapters.export.affine_fit import affine_fits
from adapters.placement.heads import heads
from adapters.spectrum import phi_curves, spectra

LEARNS = {"start": "identity_anchored", "linear": True}
FORMS = {name: (LEARNS if name == "factors" else {}) for name in adapters.list_forms()}
MERGEABLE = [name for name in FORMS if adapters.get_form_class(name).mergeable]
SCOPES = ("head", "row", "column")
COMPILED = [
    *({"form": form, **FORMS[form]} for form in FORMS if form != "elementwise"),
    *({"sharing": "all", "sharing_scope": scope} for scope in SCOPES),
]
FIRST = ("components", "row")
"""Of `COMPILED`, by form or scope: phis of several blocks, and kernels of several."""


def _bert():
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20,
        vocab_size=50,
    )  # fmt: skip
    return BertModel(config).eval()


def _llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=20, vocab_size=50,
    )  # fmt: skip
    return LlamaModel(config).eval()


def _adapted(model, **options):
    options = {"target_modules": "attention", "r": 3, "num_basis": 6, **options}
    torch.manual_seed(1)
    adapted = get_peft_model(model, BasisConfig(**options))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return adapted


IDS = torch.arange(10).view(2, 5)


def test_heads_are_rows_of_inputs_and_columns_of_the_output():
    assert heads(_llama()) == {
        "layers.0.self_attn.q_proj": (4, False),
        "layers.0.self_attn.k_proj": (2, False),
        "layers.0.self_attn.v_proj": (2, False),
        "layers.0.self_attn.o_proj": (4, True),
    }
    config = GPT2Config(n_embd=16, n_layer=1, n_head=4, vocab_size=50)
    found = heads(GPT2Model(config))
    assert found["h.0.attn.c_attn"] == (12, False)  # queries, keys and values in one
    assert found["h.0.attn.c_proj"] == (4, True)


def test_each_head_has_a_phi_of_its_own():
    model = _adapted(_llama(), sharing="all", sharing_scope="head")
    layers = {n.rpartition(".")[2]: m for n, m in model.named_modules() if _is_layer(m)}
    copies = {name: layer.basis_phi["default"].copies for name, layer in layers.items()}
    assert copies == {"q_proj": 4, "k_proj": 2, "v_proj": 2, "o_proj": 4}
    for name, layer in layers.items():
        of, phi = layer.operands("default"), layer.basis_phi["default"]
        x = of.b @ of.a
        x = x.T if name == "o_proj" else x
        parts = [phi.single(k)(part) for k, part in enumerate(x.chunk(phi.copies))]
        want = torch.cat(parts) * layer.scaling["default"]
        want = want.T if name == "o_proj" else want
        assert torch.allclose(layer.get_delta_weight("default"), want, atol=1e-6), name


def _is_layer(module):
    return isinstance(module, BasisLayer)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_saved_adapter_of_finer_sharing_loads(scope, tmp_path):
    from peft import PeftModel

    model = _adapted(_bert(), sharing="all", sharing_scope=scope)
    want = model(IDS).last_hidden_state
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(_bert(), tmp_path)
    assert torch.equal(loaded(IDS).last_hidden_state, want)


@pytest.mark.parametrize("form", FORMS)
def test_measures_and_figures_know_every_form(form):
    model = _adapted(_bert(), form=form, **FORMS[form])
    model(IDS)
    numbers = adapters.monitor(model)
    mergeable = form in MERGEABLE
    assert ("update/stable_rank" in numbers) == mergeable
    assert all(value == value for value in numbers.values())
    assert phi_curves(model)
    assert "total" in adapters.parameter_table(model)
    if mergeable:
        assert spectra(model)[0].usage is not None


def test_copies_are_drawn_up_to_eight():
    model = _adapted(_bert(), sharing="all", sharing_scope="row", target_modules=["query"])
    curves = phi_curves(model)
    assert len(curves) == 2 * 8
    assert re.fullmatch(r"encoder\.layer\.0\.attention\.self\.query\[0\]", curves[0].name)
    assert not torch.equal(curves[0].y, curves[1].y)


@pytest.mark.parametrize("form", FORMS)
def test_exports_are_the_update_or_refused_by_name(form):
    model = _adapted(_bert(), form=form, **FORMS[form])
    if form not in MERGEABLE:
        for export in (to_lora, spectra):
            with pytest.raises(ValueError, match="form 'activation' changes no weight"):
                export(model)
        with pytest.raises(ValueError, match="form 'activation' changes no weight"):
            model.merge_adapter()
        return
    export = to_lora(model, rank=16)
    assert export.relative_error < 1e-3
    if form == "factors":
        assert to_lora(model, rank=3).relative_error < 1e-3


@pytest.mark.parametrize("form", ["hadamard", "components", "factors", "spectral"])
def test_an_affine_fit_is_of_entries_of_the_product(form):
    model = _adapted(_bert(), form=form, **FORMS[form])
    with pytest.raises(ValueError, match=f"form '{form}'"):
        affine_fits(model)


@pytest.mark.parametrize("form", FORMS)
def test_adapters_of_unlike_forms_share_a_model(form):
    model = _adapted(_bert(), form=form, **FORMS[form])
    model.add_adapter("other", BasisConfig(target_modules="attention", r=2, num_basis=5))
    for name, parameter in model.named_parameters():
        if ".other" in name:
            nn.init.normal_(parameter, std=0.3)
    own = model(IDS).last_hidden_state
    mixed = model(IDS, adapter_names=["default", "__base__"]).last_hidden_state
    assert torch.allclose(mixed[0], own[0], atol=1e-5)
    assert torch.allclose(mixed[1], _bert()(IDS).last_hidden_state[1], atol=1e-5)
    model.base_model.set_adapter(["default", "other"])
    both = model(IDS).last_hidden_state
    assert not torch.allclose(both, own)


@pytest.mark.parametrize("form", FORMS)
def test_a_form_by_module(form):
    if form == "factors":
        pattern = {"query": {"form": form, **LEARNS}}
    else:
        pattern = {"query": {"form": form}}
    model = _adapted(_bert(), phi_pattern=pattern)
    kinds = {n.rpartition(".")[2]: m.execution["default"].form.name
             for n, m in model.named_modules() if _is_layer(m)}  # fmt: skip
    assert kinds["query"] == form and kinds["key"] == "elementwise"
    assert torch.isfinite(model(IDS).last_hidden_state).all()


@pytest.mark.parametrize("form", ["hadamard", "components", "sum"])
def test_embeddings_and_convolutions_take_forms_that_change_weights(form):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.conv = nn.Embedding(11, 6), nn.Conv1d(6, 4, 3)

        def forward(self, ids):
            return self.conv(self.table(ids).transpose(1, 2))

    torch.manual_seed(0)
    model = _adapted(Net(), form=form, target_modules=["table", "conv"])
    y = model(torch.arange(10).view(1, 10))
    model.merge_adapter()
    assert torch.equal(model(torch.arange(10).view(1, 10)), y)
    with pytest.raises(ValueError, match="form 'activation' changes no weight, and Conv1d"):
        _adapted(Net(), form="activation", target_modules=["conv"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, marks=[pytest.mark.thorough] * (not set(FIRST) & {*options.values()}))
        for options in COMPILED
    ],
    ids=str,
)
def test_compiled_as_one_graph_it_is_eager(options):
    torch.compiler.reset()
    model = _adapted(_llama(), **options).train()
    eager = model(IDS).last_hidden_state
    eager.square().sum().backward()
    want = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    compiled = torch.compile(model, backend="aot_eager")
    got = compiled(IDS).last_hidden_state
    got.square().sum().backward()
    assert torch.allclose(got, eager, atol=1e-5)
    for name, parameter in model.named_parameters():
        if name in want:
            assert torch.allclose(parameter.grad, want[name], rtol=1e-3, atol=1e-4), name


REFUSED = [
    ({"sharing_scope": "head"}, "does not say which: take sharing 'all'"),
    ({"form": "elementwize"}, "Did you mean 'elementwise'"),
    ({"form": "factors"}, "gives no gradient to any number"),
    ({"form": "spectral", **LEARNS}, "it would change the model before the first step"),
    ({"form": "spectral", "sharing": "all", "sharing_scope": "row"}, "form 'spectral' has none"),
    ({"form": "components", "merge_once": True}, "`merge_once` True is for elementwise forms"),
    ({"form": "activation", "rounding": "stochastic"}, "is for elementwise forms"),
    ({"form": "activation", "input_scale": "rms"}, "`input_scale` 'rms' measures B A"),
    ({"form": "sum", "form_options": {"families": []}}, "one or more names"),
    ({"form": "sum", "form_options": {"families": ["rational"]}}, "cannot be part of a sum"),
    ({"form": "sum", "grid": "learned", "form_options": {"families": ["hat"]}}, "one order"),
    ({"form": "sum", "form_options": {"familys": ["hat"]}}, "Did you mean 'families'"),
    (
        {
            "form": "components",
            "start": "random",
            "train_amplitude": False,
            "train_bandwidth": False,
        },
        "and none is trained",
    ),
    ({"sharing": "grid", "sharing_scope": "row"}, "gives each row nothing"),
    ({"phi_pattern": {"q": {"form": "spectral", **LEARNS}}}, "before the first step"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BasisConfig(target_modules="attention", num_basis=6, **options)


def test_the_scope_of_heads_needs_heads():
    with pytest.raises(ValueError, match="finds no attention head"):
        _adapted(_bert(), target_modules="mlp", sharing="all", sharing_scope="head")
    net = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="does not tell the size of an attention head"):
        _adapted(net, target_modules=["0"], sharing="all", sharing_scope="head")


def test_settings_from_before_forms_still_load(tmp_path):
    import json

    from peft import PeftModel

    model = _adapted(_bert())
    want = model(IDS).last_hidden_state
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    settings = json.loads(file.read_text()) | {"schema_version": 4}
    del settings["form"], settings["form_options"]
    file.write_text(json.dumps(settings))
    loaded = PeftModel.from_pretrained(_bert(), tmp_path)
    assert torch.equal(loaded(IDS).last_hidden_state, want)


# what a review found


def _net(*sizes):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(sizes or (6, 8, 6))))


def _on_net(form, net=None, **options):
    given = {"target_modules": ["0", "1"], "form": form, **FORMS[form], **options}
    return _adapted(_net() if net is None else net, **given)


def test_heads_are_found_on_layers_that_carry_an_adapter():
    model = _adapted(_llama(), target_modules=["q_proj"])
    options = {"target_modules": ["q_proj"], "sharing": "all", "sharing_scope": "head"}
    model.add_adapter("heads", BasisConfig(r=2, num_basis=5, **options))
    layer = next(m for m in model.modules() if _is_layer(m))
    assert layer.basis_phi["heads"].copies == 4


def test_an_attention_module_says_how_large_its_heads_are():
    from transformers import BartConfig, BartModel

    config = BartConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=50,
    )  # fmt: skip
    found = heads(BartModel(config))
    assert found["encoder.layers.0.self_attn.q_proj"] == (4, False)
    assert found["decoder.layers.0.self_attn.out_proj"] == (2, True)
    latent = _llama()
    latent.config.qk_nope_head_dim = 8
    with pytest.raises(ValueError, match="parts of unlike sizes"):
        heads(latent)


def test_a_decomposition_is_made_anew_when_weights_are_loaded():
    other = _net()
    for layer in other:
        nn.init.normal_(layer.weight)
    first, second = _on_net("spectral"), _on_net("spectral", other)
    x = torch.randn(5, 6)
    want = second(x)
    first.load_state_dict(second.state_dict())
    assert torch.allclose(first(x), want, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_takes_a_learned_input_scale_and_rank_one(form):
    x = torch.randn(5, 6)
    for options in ({"input_scale": "learned"}, {"r": 1}, {"input_scale": 0.5}):
        model = _on_net(form, **options)
        y = model(x)
        y.square().sum().backward()
        assert y.isfinite().all(), options


def test_an_activation_is_cut_at_both_ends_of_the_interval():
    model = _on_net("activation", interval=(-6.0, 1.0))
    layer = model.base_model.model[0]
    of, phi = layer.operands("default"), layer.basis_phi["default"]
    x = 10 * torch.randn(5, 6)
    want = phi((x @ of.a.T).clamp(-6, 1)) @ of.b.T * layer.scaling["default"]
    assert torch.allclose(layer(x) - layer.base_layer(x), want, atol=1e-4)
    assert _on_net("activation", interval=(-3.0, 0.0))(x).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_decomposition_keeps_its_digits(dtype):
    model = _on_net("spectral").to(dtype)
    frozen = model.base_model.model[0].basis_frozen["default"].tensors
    assert {tensor.dtype for tensor in frozen} == {torch.float32}
    y = model(torch.randn(5, 6).to(dtype))
    assert y.dtype == dtype
    model.merge_and_unload()


def test_a_decomposition_made_in_inference_mode_serves_training():
    with torch.device("meta"):
        base = _net()
    model = get_peft_model(base, BasisConfig(target_modules=["0"], num_basis=6, form="spectral"))
    layer, plain = model.base_model.model[0], _net()
    layer.get_base_layer().load_state_dict(plain[0].state_dict(), assign=True)
    layer.to_empty(device="cpu") if layer.basis_phi["default"].amplitude.is_meta else None
    with torch.inference_mode():
        layer(torch.randn(5, 6))
    layer(torch.randn(5, 6)).sum().backward()


def test_shared_components_are_measured():
    model = _on_net("components", _net(6, 6, 6), sharing="all")
    assert adapters.monitor(model)["phi/utilization"] > 0
    assert len(phi_curves(model)) == 2 * 3


@pytest.mark.parametrize("form", ["factors", "spectral"])
def test_an_update_has_its_digits_under_autocast(form):
    layer = _on_net(form).base_model.model[0]
    want = layer.get_delta_weight("default")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(layer.get_delta_weight("default"), want, atol=1e-6)
