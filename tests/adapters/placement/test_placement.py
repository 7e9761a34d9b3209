"""Words for parts of a block and choices of blocks, on every family of models."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoModelForCausalLM

import adapters
from adapters import BasisConfig, BasisLinear
from adapters.placement.module_names import block_of, depths, kind_of, short_kind
from adapters.placement.targets import adaptable, resolve

# family: (qkv, gate_up, rest of attention, rest of mlp), by last names
PARTS = {
    "llama": ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}, {"o_proj"}, {"down_proj"}),
    "qwen2": ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}, {"o_proj"}, {"down_proj"}),
    "gemma": ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}, {"o_proj"}, {"down_proj"}),
    "phi3": ({"qkv_proj"}, {"gate_up_proj"}, {"o_proj"}, {"down_proj"}),
    "gpt_neox": ({"query_key_value"}, {"dense_h_to_4h"}, {"dense"}, {"dense_4h_to_h"}),
    "gpt2": ({"c_attn"}, {"c_fc"}, {"c_proj"}, {"c_proj"}),
    "bert": ({"query", "key", "value"}, {"dense"}, {"dense"}, {"dense"}),
    "roberta": ({"query", "key", "value"}, {"dense"}, {"dense"}, {"dense"}),
    "deberta": (
        {"query_proj", "key_proj", "value_proj"},
        {"dense"},
        {"dense", "pos_key_proj", "pos_query_proj"},
        {"dense"},
    ),
    "t5": ({"q", "k", "v"}, {"wi"}, {"o"}, {"wo"}),
    "vit": ({"q_proj", "k_proj", "v_proj"}, {"fc1"}, {"o_proj"}, {"fc2"}),
    "dinov2": ({"q_proj", "k_proj", "v_proj"}, {"fc1"}, {"o_proj"}, {"fc2"}),
    "clip": ({"q_proj", "k_proj", "v_proj"}, {"fc1"}, {"out_proj"}, {"fc2"}),
    "qwen2_moe": (
        {"q_proj", "k_proj", "v_proj"},
        {"gate_proj", "up_proj"},
        {"o_proj"},
        {"down_proj"},
    ),
}


def last(names):
    return {name.rpartition(".")[2] for name in names}


def test_every_word_on_every_family(every_family):
    model = every_family.model()
    if every_family.name == "mixtral":
        assert last(resolve(model, "all")) == {"q_proj", "k_proj", "v_proj", "o_proj"}
        with pytest.raises(ValueError, match=r"'mlp' matches no layer of Mixtral.*one tens"):
            resolve(model, "mlp")
        return
    qkv, gate_up, other_attention, other_mlp = PARTS[every_family.name]
    assert last(resolve(model, "qkv")) == qkv
    assert last(resolve(model, "gate_up")) == gate_up
    attention, mlp = set(resolve(model, "attention")), set(resolve(model, "mlp"))
    assert last(attention - set(resolve(model, "qkv"))) == other_attention
    assert last(mlp - set(resolve(model, "gate_up"))) == other_mlp
    assert not attention & mlp
    assert resolve(model, "all") == [n for n in adaptable(model) if n in attention | mlp]
    linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear) and block_of(n)}
    if every_family.name != "gpt2":
        assert {n for n in linear if "shared_expert_gate" not in n} == attention | mlp


CHOICES = pytest.mark.parametrize(
    ("layers", "indices"),
    [
        ("all", [0, 1, 2, 3, 4]),
        ("odd", [1, 3]),
        ("even", [0, 2, 4]),
        ("first_last_1", [0, 4]),
        ("first_last_2", [0, 1, 3, 4]),
        ([0, -1], [0, 4]),
        ([2], [2]),
    ],
)


@CHOICES
def test_layers(layers, indices):
    model = nn.ModuleDict(
        {"blocks": nn.ModuleList(nn.ModuleDict({"fc1": nn.Linear(2, 2)}) for _ in range(5))}
    )
    names = resolve(model, ["fc1"], layers)
    assert names == [f"blocks.{i}.fc1" for i in indices]


@CHOICES
@pytest.mark.parametrize("linear", [0, 3])
def test_layers_count_blocks_without_linear_layers_too(layers, indices, linear):
    blocks = [nn.ModuleDict({"conv": nn.Conv1d(2, 2, 1)}) for _ in range(5)]
    for block in blocks[:linear]:
        block["fc1"] = nn.Linear(2, 2)
    model = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
    names = resolve(model, ["conv"], layers)
    assert names == [f"blocks.{i}.conv" for i in indices]
    with pytest.raises(ValueError, match=r"block 5 .* which has blocks \(0 to 4\)"):
        resolve(model, ["conv"], [5])


@pytest.mark.parametrize("layers", ["some", "first_last_0", [], ["a"], "first_last_x"])
def test_wrong_layers_are_refused(layers):
    with pytest.raises(ValueError, match="`layers` must be one of all, odd"):
        BasisConfig(layers=layers)


def test_stacks_are_counted_apart(family):
    names = resolve(family("t5").model(), "qkv", [-1])
    assert {block_of(n).stack for n in names} == {"encoder.block", "decoder.block"}
    assert {block_of(n).index for n in names} == {1}


def adapted(model):
    return [
        n.removeprefix("base_model.model.")
        for n, m in model.named_modules()
        if isinstance(m, BasisLinear)
    ]


def test_words_work_through_plain_peft_and_survive_saving(family, tmp_path):
    bert = family("bert")
    config = BasisConfig(r=2, target_modules="attention", layers="odd", init_weights=False)
    model = get_peft_model(bert.model(), config)
    names = adapted(model)
    assert len(names) == 4 and all(".layer.1.attention." in n for n in names)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(bert.model(), tmp_path)
    assert adapted(again) == names
    assert torch.equal(bert.output(again), bert.output(model))


def test_words_mix_with_names_and_with_peft_own_fields(family):
    bert = family("bert")
    model = get_peft_model(bert.model(), BasisConfig(target_modules=["qkv", "pooler.dense"]))
    assert last(adapted(model)) == {"query", "key", "value", "dense"} and len(adapted(model)) == 7
    config = BasisConfig(target_modules=["qkv"], layers_to_transform=0, exclude_modules=["key"])
    names = adapted(get_peft_model(bert.model(), config))
    assert last(names) == {"query", "value"} and {block_of(n).index for n in names} == {0}
    config = BasisConfig(target_modules=["query"], layers=[1])
    assert [block_of(n).index for n in adapted(get_peft_model(bert.model(), config))] == [1]


def test_a_second_adapter_is_placed_by_words_too(family):
    model = get_peft_model(family("bert").model(), BasisConfig(target_modules="qkv"))
    model.add_adapter("two", BasisConfig(target_modules="all", layers=[0]))
    carries = [n for n, m in model.named_modules() if isinstance(m, BasisLinear) and "two" in m.r]
    assert len(carries) == 6 and all(".layer.0." in n for n in carries)


@pytest.mark.parametrize("method", ["lora", "basis"])
def test_attach_places_every_method_alike(family, method):
    adapter = {"method": method, "r": 2, "target_modules": "gate_up", "layers": "first_last_1"}
    adapters.check_options(adapter)
    model = adapters.attach(family("phi3").model(), adapter)
    names = [
        n.removeprefix("base_model.model.")
        for n, m in model.named_modules()
        if isinstance(m, BaseTunerLayer)
    ]
    assert names == [f"model.layers.{i}.mlp.gate_up_proj" for i in (0, 1)]
    with pytest.raises(ValueError, match="first_last"):
        adapters.check_options(adapter | {"layers": "odds"})


@pytest.mark.parametrize("method", ["basis", "lora"])
@pytest.mark.parametrize("targets", [["querry", "valeu"], r".*\.querry"])
def test_names_that_the_model_lacks_are_refused_with_those_it_has(family, method, targets):
    model = family("bert").model()
    message = r"querry.* matches no layer of Bert.* It has: .*query.* Words: attention"
    with pytest.raises(ValueError, match=message):
        adapters.attach(model, {"method": method, "target_modules": targets})


def test_patterns_set_rank_and_phi_by_word_name_and_depth(family, tmp_path):
    bert = family("bert")
    config = BasisConfig(
        r=2,
        num_basis=6,
        target_modules="all",
        rank_pattern={"qkv": 3, "intermediate.dense": 5},
        phi_pattern={
            "mlp": {"basis": "polynomial", "num_basis": 4},
            r"1\..*query": {"start": "paper"},
        },
        depth_start={"bandwidth": (1.0, 3.0), "b_std": (0.01, 0.1)},
        init_weights=False,
    )
    model = get_peft_model(bert.model(), config)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, BasisLinear)}
    for name, layer in layers.items():
        phi = layer.basis_phi["default"]
        mlp = "attention" not in name
        assert phi.phi.basis.name == ("polynomial" if mlp else "sinc"), name
        assert phi.phi.anchored != (".1." in name and "query" in name), name
        want = 3 if "self" in name else 5 if "intermediate" in name else 2
        assert layer.r["default"] == want, name
        if not mlp:
            torch.testing.assert_close(
                phi.bandwidth, torch.full((6,), 3.0 if ".1." in name else 1.0)
            )
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(bert.model(), tmp_path)
    assert torch.equal(bert.output(again), bert.output(model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phi_pattern": {"query": {"basiss": "hat"}}}, "'query' has the option 'basiss'. Did you"),
        ({"phi_pattern": {"query": {"basis": "hatt"}}}, "`phi_pattern` 'query': unknown basis"),
        ({"depth_start": {"alpha": (1, 2)}}, "`depth_start` has the option 'alpha'"),
        ({"depth_start": {"bandwidth": 2}}, "must be two numbers"),
        ({"depth_start": {"bandwidth": (1, -1)}}, "`bandwidth` must be positive"),
        ({"sharing": "amplitudes"}, "`sharing` must be one of none, grid.*Did you mean"),
        ({"sharing_scope": "block"}, "`sharing_scope` must be one of all, kind, layer, module"),
    ],
)
def test_wrong_patterns_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BasisConfig(**options)


def test_names():
    name = "encoder.block.3.layer.0.SelfAttention.q"
    assert block_of(name) == ("encoder.block", 3) and block_of("lm_head") is None
    assert kind_of(name) == "encoder.block.layer.SelfAttention.q"
    assert short_kind(name) == "layer.SelfAttention.q"
    got = depths(["a.0.x", "a.1.x", "a.4.x", "b.0.x", "head"])
    assert got == {"a.0.x": 0.0, "a.1.x": 0.25, "a.4.x": 1.0, "b.0.x": 0.0, "head": 0.0}


class Stack(nn.Module):
    """torch's own layers, as a stack of blocks."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(block, 2, enable_nested_tensor=False).layers

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_words_mean_the_whole_of_torchs_attention():
    model = Stack()
    attention = [f"layers.{i}.self_attn" for i in (0, 1)]
    assert resolve(model, "attention") == attention
    mlp = [f"layers.{i}.linear{k}" for i in (0, 1) for k in (1, 2)]
    assert sorted(resolve(model, "all")) == sorted(attention + mlp)


@pytest.mark.parametrize("method", ["nola", "lora_xs"])
def test_baselines_refuse_a_layer_that_is_not_called_or_computes_something_else(method):
    with pytest.raises(ValueError, match="TransformerEncoderLayer reads its weight"):
        adapters.attach(Stack(), {"method": method, "r": 2, "target_modules": ["linear1"]})
    with pytest.raises(ValueError, match=r"'layers.0.self_attn' of type MultiheadAttention"):
        adapters.attach(Stack(), {"method": method, "r": 2, "target_modules": "attention"})


def test_a_word_that_means_nothing_here_is_a_name():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.other(self.attention(x))

    assert resolve(Net(), "attention") == ["attention"]
    model = get_peft_model(Net(), BasisConfig(r=2, target_modules=["attention"]))
    adapted = [n for n, m in model.named_modules() if isinstance(m, BasisLinear)]
    assert adapted == ["base_model.model.attention"]


def test_words_stand_beside_names_of_modules_that_are_not_linear(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    names = resolve(model, ["attention", "embed_tokens"])
    assert names[0] == "model.embed_tokens" and len(names) == 1 + 4 * 2
    assert resolve(model, ["attention", "embed_tokens"], [0]) == names[1:5]
    with pytest.raises(ValueError, match="'embed' matches no layer"):
        resolve(model, ["attention", "embed"])
