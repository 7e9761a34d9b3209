"""Names that match nothing are refused, each with the nearest, before anything is changed."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import yaml
from peft import (
    IA3Config,
    LoraConfig,
    PeftModel,
    PeftModelForSequenceClassification,
    get_peft_config,
    get_peft_model,
    inject_adapter_in_model,
)
from peft.tuners.ia3.layer import IA3Layer
from peft.tuners.tuners_utils import BaseTunerLayer

import adapters
import studies
from adapters import BasisConfig
from adapters.placement.name_checks import check_names, targeted

QKV = ["query", "key", "value"]


def adapted(model):
    return [
        n.split("layer.")[-1] for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)
    ]


WRONG = {
    "a name beside a right one": (
        {"target_modules": ["query", "valeu"]},
        r"`target_modules` 'valeu' matches no layer of BertFor.*Did you mean 'value'\?",
    ),
    "names of another model": (
        {"target_modules": ["q_proj", "kei", "o_proj", "value", "up_proj", "x", "y"]},
        r"'kei' matches no layer .*Did you mean 'key'\?.*Nor do 3 more names.*Words: attention,",
    ),
    "a full name": (
        {"target_modules": ["bert.encoder.layer.7.attention.self.query", "value"]},
        r"layer.7.attention.self.query' matches no .*mean 'bert.encoder.layer.[01].attention.self",
    ),
    "a pattern": (
        {"target_modules": r".*\.(quarry)"},
        r"'.*\(quarry\)' matches no layer.*Did you mean 'query'\?",
    ),
    "no pattern": ({"target_modules": "(query"}, r"'\(query' is not a regular expression: missing"),
    "an exclusion": (
        {"target_modules": QKV, "exclude_modules": ["keys"]},
        r"`exclude_modules` 'keys' matches no module of Bert.*Did you mean 'key'\?",
    ),
    "an exclusion by pattern": (
        {"target_modules": QKV, "exclude_modules": r".*\.5\..*"},
        r"`exclude_modules` '.*5.*' matches no module of Bert",
    ),
    "an exclusion that holds adapted modules": (
        {"target_modules": "all", "exclude_modules": ["attention"]},
        r"`exclude_modules` 'attention' leaves out modules of exactly this name.*'\.\*\\.attention",
    ),
    "a module to save": (
        {"target_modules": QKV, "modules_to_save": ["clasifier"]},
        r"`modules_to_save` 'clasifier' matches no module of Bert.*Did you mean 'classifier'\?",
    ),
    "a block": (
        {"target_modules": QKV, "layers_to_transform": [0, 2]},
        r"`layers_to_transform` \[2\] matches no block; the model has: 0 to 1",
    ),
    "a block counted from the end": (
        {"target_modules": QKV, "layers_to_transform": -1},
        r"`layers_to_transform` \[-1\] matches no block.*`layers` takes .* from the end",
    ),
    "a block beside words": (
        {"target_modules": ["qkv"], "layers_to_transform": [0, 2]},
        r"block 2 of `layers` or `layers_to_transform` is in no stack.*bert.encoder.layer \(0 to 1",
    ),
    "a block of layers": (
        {"target_modules": QKV, "layers": [1, -3]},
        r"block -3 of `layers` or `layers_to_transform` is in no stack",
    ),
    "a list of blocks": (
        {"target_modules": QKV, "layers_to_transform": 0, "layers_pattern": "layers"},
        r"`layers_to_transform` \[0\] matches no block in `layers_pattern` 'layers'",
    ),
    "a key": (
        {"target_modules": QKV, "rank_pattern": {"query": 2, "vale": 3}},
        r"`rank_pattern` 'vale' matches no adapted layer of Bert.*Did you mean 'value'\?",
    ),
    "a key that is not adapted": (
        {"target_modules": QKV, "rank_pattern": {"dense": 2}},
        r"`rank_pattern` 'dense' matches no adapted layer",
    ),
    "a word that is not adapted": (
        {"target_modules": QKV, "rank_pattern": {"mlp": 2}},
        r"`rank_pattern` 'mlp' matches no adapted layer",
    ),
}


@pytest.mark.parametrize("method", ["basis", "lora"])
@pytest.mark.parametrize("case", WRONG)
def test_attach_refuses(family, method, case):
    options, message = WRONG[case]
    model = family("bert").model()
    before = [name for name, _ in model.named_modules()]
    with pytest.raises(ValueError, match=message):
        adapters.attach(model, {"method": method, **options})
    assert [name for name, _ in model.named_modules()] == before


@pytest.mark.parametrize("case", WRONG)
def test_get_peft_model_refuses(family, case):
    options, message = WRONG[case]
    model = family("bert").model()
    before = [name for name, _ in model.named_modules()]
    with pytest.raises(ValueError, match=message):
        get_peft_model(model, BasisConfig(**options))
    assert [name for name, _ in model.named_modules()] == before


def test_keys_of_other_patterns_are_refused(family):
    bert = family("bert")
    with pytest.raises(ValueError, match=r"`phi_pattern` 'valu' matches no adapted layer.*'value'"):
        get_peft_model(
            bert.model(), BasisConfig(target_modules=QKV, phi_pattern={"valu": {"num_basis": 4}})
        )
    with pytest.raises(ValueError, match="`alpha_pattern` 'valu' matches no adapted layer"):
        adapters.attach(
            bert.model(), {"method": "lora", "target_modules": QKV, "alpha_pattern": {"valu": 4}}
        )
    with pytest.raises(ValueError, match="`target_parameters` 'wate' matches no parameter"):
        check_names(bert.model(), LoraConfig(target_modules=QKV, target_parameters=["wate"]))
    parameters = {
        "target_parameters": ["intermediate.dense.weight"],
        "rank_pattern": {"dense.weight": 2},
    }
    check_names(bert.model(), LoraConfig(target_modules=QKV, **parameters))
    with pytest.raises(ValueError, match=r"`rank_pattern` .* is not a regular expression"):
        check_names(bert.model(), LoraConfig(target_modules=QKV, rank_pattern={"(query": 2}))


PEFTS_WORDS = "No `target_modules` passed but also no `target_parameters` found"


@pytest.mark.parametrize("targets", [None, [], ""])
def test_parameters_alone_that_match_nothing_are_refused(targets):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    wrong = BasisConfig(target_modules=targets, target_parameters=["0.wait"])
    with pytest.raises(ValueError, match=rf"{PEFTS_WORDS}.*Did you mean '0\.weight'\?"):
        get_peft_model(model, wrong)
    right = BasisConfig(target_modules=targets, target_parameters=["0.weight"])
    assert adapted(get_peft_model(model, right)) == ["base_model.model.0"]


def test_a_parametrized_parameter_is_named_by_its_module():
    linear = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 4))
    model = torch.nn.Sequential(OrderedDict(one=linear))
    with pytest.raises(ValueError, match=r"\['one.weight'\] are parametrized.*`target_modules`"):
        get_peft_model(model, BasisConfig(target_modules=[], target_parameters=["one.weight"]))
    model = get_peft_model(model, BasisConfig(target_modules=["one"]))
    assert adapted(model) == ["base_model.model.one"]


@pytest.mark.parametrize("blocks", [{"layers_to_transform": [0]}, {"layers_pattern": "layer"}])
@pytest.mark.parametrize("targets", [r".*\.query", "all-linear"])
def test_blocks_cannot_be_chosen_beside_a_pattern(family, targets, blocks):
    """PEFT ignores them there, for a pattern of names and for all-linear."""
    message = r"when `target_modules` is a str\. .* does nothing to the pattern .*by `layers`"
    with pytest.raises(ValueError, match=message):
        BasisConfig(target_modules=targets, **blocks)
    config = IA3Config(target_modules=targets, feedforward_modules=[])
    with pytest.raises(ValueError, match=message):
        check_names(family("bert").model(), config, **blocks)


def test_a_list_of_blocks_without_indices_is_refused():
    with pytest.raises(ValueError, match="`layers_to_transform` must also be specified: 'layer'"):
        BasisConfig(target_modules=QKV, layers_pattern="layer")


def test_a_second_adapter_is_held_to_the_names_too(family):
    model = get_peft_model(family("bert").model(), BasisConfig(target_modules=QKV))
    with pytest.raises(ValueError, match=r"'querry' matches no layer .* Did you mean 'query'\?"):
        model.add_adapter("two", BasisConfig(target_modules=["querry", "value"]))
    assert list(model.peft_config) == ["default"]
    model.add_adapter("two", BasisConfig(target_modules=["query"], rank_pattern={"query": 2}))


RIGHT = [
    {"target_modules": "all-linear"},
    {"target_modules": "ALL-LINEAR", "exclude_modules": ["pooler.dense"]},
    {"target_modules": r".*\.(query|value)", "rank_pattern": {r"1\..*query": 2}},
    {"target_modules": QKV, "layers_to_transform": [1], "layers_pattern": ["layer", "layers"]},
    {"target_modules": QKV, "layers_to_transform": [], "exclude_modules": ["classifier"]},
    {"target_modules": ["qkv", "pooler.dense"], "rank_pattern": {"qkv": 2}, "layers": "all"},
    {"target_modules": "all", "layers": "odd", "rank_pattern": {"mlp": 2}},
    {"target_modules": ["all"], "layers_to_transform": [-1]},
    {"target_modules": None},
]


@pytest.mark.parametrize("options", RIGHT, ids=str)
def test_what_matches_goes_on_working(family, options):
    model = get_peft_model(family("bert").model(), BasisConfig(**options, num_basis=4))
    assert adapted(model)
    if options["target_modules"] == "all-linear":
        assert len(adapted(model)) == 14


def test_heads_that_peft_adds_need_not_exist(family):
    config = BasisConfig(target_modules=QKV, task_type="SEQ_CLS")
    model = get_peft_model(family("bert").model(), config)
    assert {"classifier", "score"} <= set(config.modules_to_save)
    model.add_adapter("more", BasisConfig(target_modules=QKV))  # PEFT adds them here too
    PeftModelForSequenceClassification(family("bert").model(), BasisConfig(target_modules=QKV))
    with pytest.raises(ValueError, match="'scores' matches no module"):
        wrong = BasisConfig(target_modules=QKV, task_type="SEQ_CLS", modules_to_save=["scores"])
        model.add_adapter("two", wrong)


def test_a_saved_configuration_is_taken_as_it_is(family, tmp_path):
    """As older versions wrote it: with names that match nothing."""
    bert = family("bert")
    model = get_peft_model(bert.model(), BasisConfig(target_modules=QKV, init_weights=False))
    config = model.peft_config["default"]
    config.target_modules = {"q_proj", *(f"bert.encoder.layer.{n}" for n in adapted(model))}
    config.layers = [0, 1, 7]
    config.exclude_modules, config.rank_pattern = {"lm_head"}, {"k_proj": 3}
    model.save_pretrained(tmp_path)
    want = bert.output(model)
    for trainable in (False, True):
        again = PeftModel.from_pretrained(bert.model(), tmp_path, is_trainable=trainable)
        assert torch.equal(bert.output(again), want)
    native = bert.model()
    native.load_adapter(str(tmp_path))
    assert torch.equal(bert.output(native), want)
    again.load_adapter(tmp_path, "two")
    with pytest.raises(ValueError, match="'q_proj' matches no layer"):
        get_peft_model(
            bert.model(), get_peft_config({"peft_type": "BASIS", "target_modules": ["q_proj"]})
        )


def test_a_state_dict_says_by_itself_what_is_adapted(family):
    bert = family("bert")
    source = get_peft_model(bert.model(), BasisConfig(target_modules=["query"]))
    state = {n.removeprefix("base_model.model."): p for n, p in source.state_dict().items()}
    state = {name: p for name, p in state.items() if "basis_" in name}
    with pytest.warns(RuntimeWarning, match="inconsistency"):
        model = inject_adapter_in_model(
            BasisConfig(target_modules=["q"]), bert.model(), state_dict=state
        )
    assert adapted(model) == ["0.attention.self.query", "1.attention.self.query"]


def test_options_that_a_configuration_lacks_go_with_words(family):
    """IA3 knows neither blocks nor words."""
    adapter = {"method": "ia3", "target_modules": "qkv", "layers_to_transform": [1]}
    model = adapters.attach(family("bert").model(), adapter)
    assert adapted(model) == [f"1.attention.self.{name}" for name in QKV]
    with pytest.raises(ValueError, match=r"block 4 .* is in no stack"):
        adapters.attach(family("bert").model(), adapter | {"layers_to_transform": [4]})
    model = adapters.attach(
        family("bert").model(),
        {"method": "lora", "target_modules": "qkv", "layers_to_transform": 0},
    )
    assert adapted(model) == [f"0.attention.self.{name}" for name in QKV]


@pytest.mark.parametrize("targets", ["all", ["all"], ["query", "dense"], r".*\.(query|dense)"])
def test_ia3_knows_the_feed_forward_layers_however_they_are_named(family, targets):
    model = adapters.attach(family("bert").model(), {"method": "ia3", "target_modules": targets})
    layers = {n: m for n, m in model.named_modules() if isinstance(m, IA3Layer)}
    inputs = {n.split("layer.")[-1] for n, m in layers.items() if m.is_feedforward}
    assert inputs == {"0.output.dense", "1.output.dense"} and len(layers) > 6


PAPER = {
    ("paper", "qwen2"): [
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    ],
    ("paper", "phi3"): ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    ("paper_glue", "roberta"): ["query", "key", "value", "dense"],
    ("paper_vision", "clip"): ["q_proj", "k_proj", "v_proj", "fc1", "fc2"],
}
"""The paper's names on models that have them, and what they stand for on Phi-3."""


@pytest.mark.parametrize(("profile", "name"), PAPER)
def test_words_of_the_profiles_are_the_paper_s_placement(family, profile, name):
    file = Path(studies.__file__).parent / "profiles" / f"{profile}.yaml"
    words = yaml.safe_load(file.read_text())["adapter"]["target_modules"]
    model = family(name).model()
    for method in ("lora", "basis"):
        build = adapters.get_method(method).build
        head = {"modules_to_save": ["classifier"]}
        want = build({"target_modules": PAPER[profile, name], **head})
        assert targeted(model, build({"target_modules": words, **head})) == targeted(model, want)
