"""What every method promises: it trains, reloads to the same outputs, merges where it says so."""

import copy
import json

import pytest
import torch
from peft import PeftModel, get_peft_model

import adapters
from adapters.export import layer_updates, to_lora
from adapters.methods.registry import configured
from adapters.methods.tuner import UpdateLinear
from adapters.peft_integration.fixes import guard_heads
from adapters.spectrum import spectra
from tests.adapters.methods.shipped import SHIPPED

COMMON = {"r": 4, "alpha": 8.0, "target_modules": ["query", "value"]}
OPTIONS = {
    "ia3": {"feedforward_modules": []},
    "vera": {"r": 16},
    "fourierft": {"n_frequency": 50},
    "nola": {"num_basis": 8},
    "peanut": {"act_fn": "tanh"},
    "elalora": {"interval": 1, "initial_steps": 1, "final_steps": 1},
    "adalora": {"tinit": 1, "tfinal": 1},
}
PLAIN = ("bitfit", "full", "head_only")
RATE = {
    "ia3": 0.1,
    "fourierft": 0.1,
    "kradapter": 0.05,
    "lora_xs": 0.1,
    "vera": 0.1,
    "nola": 0.1,
    "randlora_paper": 0.1,
}
WRAPPED = [name for name in adapters.list_methods() if name not in PLAIN]
LOW_RANK = [name for name in WRAPPED if adapters.get_method(name).low_rank]
MERGEABLE = [name for name in WRAPPED if adapters.get_method(name).mergeable]
STEPS = 4
OWN = ("abba", "aurora", "dylora", "elalora", "kradapter", "lora_xs", "nola", "randlora_paper")


def options(name: str, **more) -> dict:
    return {"method": name, **COMMON, **OPTIONS.get(name, {}), **more}


def attached(family, name: str, **more):
    torch.manual_seed(3)
    return adapters.attach(family.model(), options(name, **more))


def train(model, batch, name: str, steps: int = STEPS) -> list[float]:
    """The loop that every method is promised: groups, `on_attach`, `after_step`."""
    groups = adapters.parameter_groups(model, RATE.get(name, 1e-2), 0.0)
    optimizer = torch.optim.AdamW(groups)
    adapters.on_attach(model, steps)
    losses = []
    model.train()
    for step in range(1, steps + 1):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        adapters.after_step(model, step)
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


@pytest.fixture(params=adapters.list_methods())
def method(request) -> str:
    return request.param


def test_training_changes_only_what_is_trained(family, method):
    bert = family("bert")
    model = attached(bert, method)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, bert.batch(), method)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert changed <= trained
    heads = {n for n in trained if "classifier" in n}
    assert method == "head_only" or changed - heads, "nothing beside the head has moved"


@pytest.mark.parametrize("method", [m for m in adapters.list_methods() if m != "head_only"])
def test_adapter_alone_lowers_the_loss(family, method):
    bert = family("bert")
    model = attached(bert, method)
    for name, parameter in model.named_parameters():
        if "classifier" in name:
            parameter.requires_grad_(False)
    model.config.hidden_dropout_prob = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    losses = train(model, bert.batch(), method, steps=12)
    assert losses[-1] < losses[0], losses


@pytest.mark.parametrize("name", WRAPPED)
def test_reloaded_model_has_the_same_outputs(family, tmp_path, name):
    bert = family("bert")
    model = attached(bert, name)
    train(model, bert.batch(), name)
    want = bert.output(model)
    assert not torch.equal(want, bert.output(bert.model()))
    model.save_pretrained(tmp_path)
    # PEFT's AdaLoRA cannot be called with labels when it was loaded for inference only
    again = PeftModel.from_pretrained(bert.model(), tmp_path, is_trainable=name == "adalora")
    torch.testing.assert_close(bert.output(again), want, rtol=0, atol=0)


@pytest.mark.parametrize("name", WRAPPED)
def test_merged_model_has_the_same_outputs_or_says_why_not(family, name):
    roberta = family("roberta")  # its composite head breaks PEFT's own merge (#3114)
    model = attached(roberta, name)
    train(model, roberta.batch(), name)
    want = roberta.output(model)
    if name not in MERGEABLE:
        with pytest.raises(ValueError, match=r"cannot be merged.*unmerged"):
            adapters.merge_and_unload(model)
        return
    merged = adapters.merge_and_unload(model)
    assert not any("base_layer" in key for key in merged.state_dict())
    torch.testing.assert_close(roberta.output(merged), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOW_RANK)
def test_an_update_of_low_rank_is_exported_as_it_is_merged(family, tmp_path, name):
    bert = family("bert")
    model = attached(bert, name)
    train(model, bert.batch(), name)
    want, most = bert.output(model), 2 * COMMON["r"]  # where ranks move, a layer has more than r
    to_lora(model, rank=most).save(tmp_path, modules_to_save="keep")
    again = PeftModel.from_pretrained(bert.model(), tmp_path)
    torch.testing.assert_close(bert.output(again), want, rtol=1e-4, atol=1e-6)
    updates, of_modules = layer_updates(model), spectra(model)
    weights = [update.layer.get_base_layer().weight.double().clone() for update in updates]
    model.merge_adapter()
    for update, before, module in zip(updates, weights, of_modules, strict=True):
        merged = update.layer.get_base_layer().weight.double() - before
        torch.testing.assert_close(update.dense().double(), merged, rtol=1e-4, atol=1e-7)
        values = torch.linalg.svdvals(update.dense().double())
        torch.testing.assert_close(module.values, values, rtol=1e-4, atol=1e-7)
        assert module.rank <= most


def test_models_without_an_adapter_merge_to_themselves(family):
    model = attached(family("bert"), "bitfit")
    assert adapters.merge_and_unload(model) is model


def test_counts_agree_with_the_parameters_that_are_trained(family, method):
    model = attached(family("bert"), method)
    counts = adapters.count_parameters(model)
    free = sum(m.idle_parameters() for m in model.modules() if hasattr(m, "idle_parameters"))
    assert (
        counts["trainable"] == sum(p.numel() for p in model.parameters() if p.requires_grad) - free
    )
    numbers = SHIPPED[method].numbers
    assert counts["adapter"] == (counts["adapter"] if numbers is None else 4 * numbers)


def test_every_method_has_its_line():
    shipped = set(adapters.list_methods())
    assert set(SHIPPED) == shipped, "add the new method to tests/adapters/methods/shipped.py"


@pytest.mark.parametrize("name", WRAPPED)
def test_exclusions_and_layers_are_obeyed_by_all(family, name):
    limits = {"exclude_modules": ["value"], "layers_to_transform": [1]}
    model = attached(family("bert"), name, **limits)
    adapted = {n.split(".base_layer")[0] for n, _ in model.named_modules() if ".base_layer" in n}
    assert {n.removeprefix("base_model.model.") for n in adapted} == {
        "bert.encoder.layer.1.attention.self.query"
    }


@pytest.mark.parametrize("name", OWN)
def test_adapters_load_without_memory_twice_natively_and_copied(family, tmp_path, name):
    bert = family("bert")
    model = attached(bert, name)
    train(model, bert.batch(), name)
    want = bert.output(model)
    assert torch.equal(bert.output(copy.deepcopy(model)), want)
    model.save_pretrained(tmp_path)
    native = bert.model()
    native.load_adapter(str(tmp_path))
    assert torch.equal(bert.output(native), want)
    again = PeftModel.from_pretrained(bert.model(), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(bert.output(again), want)
    again.load_adapter(tmp_path, "second")
    again.set_adapter("second")
    assert torch.equal(bert.output(again), want)
    again.delete_adapter("second")
    again.set_adapter("default")
    assert torch.equal(bert.output(again), want)
    with again.disable_adapter():
        assert not torch.equal(bert.output(again), want)


@pytest.mark.parametrize("name", [n for n in OWN if n != "randlora_paper"])
def test_numbers_stay_float32_on_a_bfloat16_base(family, tmp_path, name):
    llama = family("llama", torch.bfloat16)
    model = attached(llama, name, target_modules=["q_proj", "v_proj", "down_proj"])
    train(model, llama.batch(), name)
    kept = {n: t for n, t in model.state_dict().items() if "_update" in n and t.is_floating_point()}
    assert kept and all(t.dtype == torch.float32 for t in kept.values())
    want = llama.output(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(llama.output(PeftModel.from_pretrained(llama.model(), tmp_path)), want)


@pytest.mark.parametrize("name", OWN)
def test_a_whole_model_is_pickled_and_read(family, tmp_path, name):
    bert = family("bert")
    _, config = configured(options(name))
    model = get_peft_model(bert.model(), config)
    torch.save(model, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(bert.output(again), bert.output(model))
    own = [type(m) for m in again.modules() if isinstance(m, UpdateLinear)]
    assert own and own[0].__name__.endswith("Linear") and own[0] is again.tuner_layer_cls


@pytest.mark.parametrize("name", [n for n in OWN if n != "aurora"])
def test_unmerging_restores_the_weights_bit_for_bit(family, name):
    llama = family("llama", torch.bfloat16)
    model = attached(llama, name, target_modules=["q_proj", "v_proj"])
    train(model, llama.batch(), name)
    before = {n: w.clone() for n, w in model.state_dict().items() if "base_layer" in n}
    model.merge_adapter(safe_merge=True)
    moved = [n for n, w in before.items() if not torch.equal(w, model.state_dict()[n])]
    assert moved
    model.unmerge_adapter()
    assert all(torch.equal(w, model.state_dict()[n]) for n, w in before.items())


def test_a_broken_adapter_is_not_merged(family):
    model = attached(family("bert"), "abba")
    next(m for n, m in model.named_modules() if n.endswith("abba_update.default")).b2.data.fill_(
        torch.inf
    )
    with pytest.raises(ValueError, match="NaNs detected"):
        adapters.merge_and_unload(model)


def test_saved_files_hold_no_random_bases(family, tmp_path):
    for name in ("nola", "randlora", "randlora_paper", "vera"):
        model = attached(family("bert"), name)
        model.save_pretrained(tmp_path / name)
        size = (tmp_path / name / "adapter_model.safetensors").stat().st_size
        trained = 4 * adapters.count_parameters(model)["trainable"]
        assert size < trained + 4096, f"{name}: {size} bytes for {trained} bytes of numbers"


def test_lora_plus_is_saved_as_lora(family, tmp_path):
    model = attached(family("bert"), "lora_plus")
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["peft_type"] == "LORA" and "rate_ratio" not in saved


def test_methods_that_find_nothing_to_train_say_so(family):
    with pytest.raises(ValueError, match=r"bitfit.*finds nothing to train"):
        adapters.attach(family("llama").model(), {"method": "bitfit"})


def test_guarding_a_plain_model_changes_nothing(family):
    model = family("bert").model()
    assert guard_heads(model) is model


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"method": "abba", "rank": 2}, "no option 'rank'"),
        ({"method": "abba", "r": 0}, "`r` must be an integer >= 1"),
        ({"method": "dylora", "r": 4, "r_min": 5}, "`r_min` must be between 1 and r = 4"),
        ({"method": "kradapter", "rows": -1}, "`rows` must be an integer >= 0, got -1"),
        ({"method": "randlora_paper", "num_bases": 0}, "`num_bases` must be an integer >= 1"),
        ({"method": "nola", "num_basis": 0}, "`num_basis` must be at least 1"),
        ({"method": "elalora", "max_r": 2}, "`max_r` must be at least r = 10"),
        ({"method": "sine_lora", "basis": "sinc"}, "no option 'basis'"),
        ({"method": "lora_plus", "rate_ratio": 0}, "`rate_ratio` must be positive"),
    ],
)
def test_bad_options_are_refused_without_a_model(adapter, message):
    with pytest.raises(ValueError, match=message):
        adapters.check_options(adapter)
