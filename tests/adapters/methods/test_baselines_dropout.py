"""Dropout on the input of the update: of our own methods, and by one name for all."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.nn import functional as F

import adapters
from adapters.methods.tuner import UpdateConfig, UpdateLinear
from tests.adapters.methods.shipped import SHIPPED

METHODS = [adapters.get_method(name) for name in adapters.list_methods()]
OWN = [m.name for m in METHODS if m.config and issubclass(m.config, UpdateConfig)]
THEIRS = {name: facts.dropout for name, facts in SHIPPED.items() if facts.dropout}
WITHOUT_ADAPTER = [m.name for m in METHODS if m.config is None]
PHIS = [m.name for m in METHODS if m.config and issubclass(m.config, adapters.BasisConfig)]
NONE = sorted({m.name for m in METHODS} - {*OWN, *THEIRS, *WITHOUT_ADAPTER, *PHIS})


def attach(family, method, **options):
    torch.manual_seed(4)
    options = {"r": 4, "target_modules": ["query", "value"], **options}
    model = adapters.attach(family.model(), {"method": method, **options})
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "_update" in name:
                p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.mark.parametrize("method", OWN)
def test_only_the_update_sees_dropped_inputs_and_only_while_training(family, method):
    model = attach(family("bert"), method, dropout=0.4)
    layer = next(m for m in model.modules() if isinstance(m, UpdateLinear)).train()
    x = torch.randn(3, 5, 32)
    torch.manual_seed(0)
    got = layer(x)
    torch.manual_seed(0)
    dropped = F.dropout(x, 0.4)
    want = layer.base_layer(x) + layer.updates["default"](dropped)
    assert torch.equal(got, want)
    assert not torch.equal(got, layer(x)), "drawn anew each time"
    layer.eval()
    assert torch.equal(layer(x), layer.base_layer(x) + layer.updates["default"](x))


def test_no_dropout_draws_nothing(family):
    model = attach(family("bert"), "abba")
    layer = next(m for m in model.modules() if isinstance(m, UpdateLinear)).train()
    torch.manual_seed(0)
    layer(torch.zeros(2, 32))
    after = torch.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), after)


def test_adapters_have_dropouts_of_their_own_which_are_saved(family, tmp_path):
    bert = family("bert")
    model = attach(bert, "abba", dropout=0.4)
    config = type(model.peft_config["default"])
    model.add_adapter("two", config(r=4, target_modules=["query"], dropout=0.2))
    layer = next(m for m in model.modules() if isinstance(m, UpdateLinear))
    assert layer.dropout == {"default": 0.4, "two": 0.2}
    model.save_pretrained(tmp_path)
    model.delete_adapter("two")
    assert layer.dropout == {"default": 0.4}
    again = PeftModel.from_pretrained(bert.model(), tmp_path, is_trainable=True)
    assert next(m for m in again.modules() if isinstance(m, UpdateLinear)).dropout["default"] == 0.4
    merged = attach(bert, "abba", dropout=0.4).eval()
    want = bert.output(merged)
    torch.testing.assert_close(bert.output(merged.merge_and_unload()), want, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="`dropout` must be at least 0 and below 1, got 1"):
        get_peft_model(bert.model(), config(target_modules=["query"], dropout=1))


@pytest.mark.parametrize("method", THEIRS)
def test_methods_of_peft_have_it_by_our_name(method):
    config = adapters.get_method(method).build({"dropout": 0.05, "target_modules": ["query"]})
    assert getattr(config, THEIRS[method]) == 0.05


@pytest.mark.parametrize("method", NONE)
def test_methods_without_dropout_refuse_it(method):
    with pytest.raises(ValueError, match=f"method '{method}' has no dropout, got dropout 0.1: set"):
        adapters.check_options({"method": method, "dropout": 0.1})
    for none in (0, 0.0, None):
        adapters.check_options({"method": method, "dropout": none})


@pytest.mark.parametrize("method", WITHOUT_ADAPTER)
def test_without_an_adapter_dropout_changes_nothing(method):
    adapters.check_options({"method": method, "dropout": 0.1})


@pytest.mark.parametrize(
    ("dropout", "message"),
    [(-0.1, "at least 0, got -0.1"), (1, "below 1, got 1"), ("x", "a number"), (True, "a number")],
)
def test_a_share_is_asked_for(dropout, message):
    with pytest.raises(ValueError, match=f"option 'dropout' must be {message}"):
        adapters.check_options({"method": "lora", "dropout": dropout})


@pytest.mark.parametrize("method", ["abba", "lora", "basis", "loha"])
def test_null_leaves_a_common_option_to_the_method(method):
    build = adapters.get_method(method).build
    config = build(dict.fromkeys(adapters.COMMON_OPTIONS))
    assert config.to_dict() == build({}).to_dict()
