"""Options of LoRA that PEFT itself carries out, for our adapters."""

import json
from pathlib import Path

import pytest
import torch
from peft import (
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from torch import nn

from adapters import BasisConfig
from adapters.export import to_lora
from adapters.methods.builtin.abba import AbbaConfig
from tests.adapters.older import saved_by


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x).relu())


def net(**options) -> PeftModel:
    torch.manual_seed(0)
    given = {"r": 2, "num_basis": 6, "init_weights": False, "target_modules": ["one"], **options}
    return get_peft_model(Net(), BasisConfig(**given))


X = torch.linspace(-1, 1, 48).reshape(6, 8)


@pytest.mark.parametrize(
    ("bias", "trained"), [("none", []), ("all", ["one", "two"]), ("basis_only", ["one"])]
)
def test_biases_are_trained_saved_and_loaded(bias, trained, tmp_path):
    model = net(bias=bias)
    biases = {
        name.split(".")[2]: parameter
        for name, parameter in model.named_parameters()
        if name.endswith("bias") and parameter.requires_grad
    }
    assert sorted(biases) == trained
    model(X).sum().backward()
    with torch.no_grad():
        for parameter in biases.values():
            parameter -= parameter.grad
    want = model(X)
    model.save_pretrained(tmp_path)
    torch.manual_seed(0)
    loaded = PeftModel.from_pretrained(Net(), tmp_path)
    assert torch.equal(loaded(X), want)
    assert torch.equal(model.merge_and_unload()(X), want)


def test_trained_biases_are_of_one_adapter_and_in_no_lora():
    model = net(bias="all")
    with pytest.raises(ValueError, match="supports only 1 adapter with bias"):
        model.add_adapter("other", BasisConfig(target_modules=["one"], bias="basis_only"))
    assert list(model.peft_config) == ["default"]
    with pytest.raises(ValueError, match="trains biases"):
        to_lora(model, rank=2)
    with pytest.warns(UserWarning, match="disabling adapter layers with bias"):
        model.base_model.disable_adapter_layers()


def test_a_bias_that_is_lora_s_word_is_refused():
    with pytest.raises(ValueError, match="`bias` must be one of none, all, basis_only, got 'lora_"):
        BasisConfig(bias="lora_only")


def test_settings_from_before_biases_still_load(tmp_path):
    model = net()
    model.save_pretrained(tmp_path)
    saved_by(tmp_path, 2, "bias")
    torch.manual_seed(0)
    assert torch.equal(PeftModel.from_pretrained(Net(), tmp_path)(X), model(X))


def test_a_layer_is_scaled_and_unscaled_as_loras():
    model = net(alpha=8.0, use_rslora=True)
    layer, start = model.base_model.model.one, 8 / 2**0.5
    plain = model(X)
    layer.scale_layer(2)
    layer.scale_layer(3)
    assert layer.scaling["default"] == pytest.approx(6 * start)
    layer.unscale_layer(2)
    assert layer.scaling["default"] == pytest.approx(3 * start)
    layer.set_scale("default", 0.5)  # of the settings, not of what it was
    assert layer.scaling["default"] == pytest.approx(start / 2)
    torch.testing.assert_close(
        layer(X), layer.base_layer(X) + X @ (layer.get_delta_weight("default")).T
    )
    layer.set_scale("elsewhere", 3)
    layer.unscale_layer()
    assert layer.scaling == {"default": start}
    assert torch.equal(model(X), plain)


def test_only_active_adapters_are_scaled():
    model = net()
    model.add_adapter("other", BasisConfig(target_modules=["one"], r=4))
    layer = model.base_model.model.one
    before = dict(layer.scaling)
    layer.scale_layer(5)
    assert layer.scaling == {"default": 5 * before["default"], "other": before["other"]}
    model.delete_adapter("other")
    assert layer.scaling.keys() == layer.initial_scaling.keys() == {"default"}


def test_what_a_scale_cannot_mean_is_refused():
    model = net()
    layer = model.base_model.model.one
    model.base_model.add_weighted_adapter(["default"], [0.5], "sum")
    with pytest.raises(ValueError, match="'sum' is a weighted sum: scale its parts"):
        layer.set_scale("sum", 2)
    model.merge_adapter()
    for change in (layer.scale_layer, layer.unscale_layer):
        with pytest.raises(ValueError, match="merged adapters keep their scale"):
            change(2)


def test_settings_are_the_same_before_and_after_a_file(tmp_path):
    config = BasisConfig(interval=(-2, 2))
    config.save_pretrained(tmp_path)
    assert BasisConfig.from_json_file(str(tmp_path / "adapter_config.json")) == config.to_dict()
    assert BasisConfig.from_pretrained(tmp_path).interval == config.interval == (-2.0, 2.0)


def test_a_class_made_from_ours_holds_settings_to_their_kinds():
    class Own(BasisConfig):
        pass

    with pytest.raises(ValueError, match=r"`target_parameters` must be list\[str\] \| None"):
        Own(target_parameters="one.weight")
    with pytest.raises(ValueError, match="the saved configuration lacks r, alpha"):
        Own.check_kwargs(target_modules=["one"])


class Experts(nn.Module):
    """Two parameters of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = (nn.Parameter(torch.randn(2, 8, 8)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum((x @ u).relu() @ d for u, d in zip(self.up, self.down, strict=True))


def test_every_adapter_has_the_same_parameters_and_loads_by_itself(tmp_path):
    def base() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(Experts())

    def config(*parameters: str) -> BasisConfig:
        shape = {"r": 2, "num_basis": 6, "init_weights": False, "target_modules": []}
        return BasisConfig(**shape, target_parameters=list(parameters))

    model = get_peft_model(base(), config("0.up"))
    # saved from here, the two parameters of the second adapter would change places
    with pytest.raises(ValueError, match=r"the same set of parameters, .*\['0.down', '0.up'\] now"):
        model.add_adapter("other", config("0.up", "0.down"))
    assert list(model.peft_config) == ["default"]
    model = get_peft_model(base(), config("0.up", "0.down"))
    model.add_adapter("other", config("0.down", "0.up"))
    model.set_adapter("other")
    model.save_pretrained(tmp_path)
    assert torch.equal(PeftModel.from_pretrained(base(), tmp_path / "other")(X), model(X))


@pytest.mark.parametrize("options", [{}, {"input_scale": "rms", "grid": "learned"}])
def test_an_adapter_without_memory_waits_for_its_numbers(options):
    whole = net(**options)
    want = whole(X)
    torch.manual_seed(0)
    config = whole.peft_config["default"]
    model = inject_adapter_in_model(config, Net(), low_cpu_mem_usage=True)
    assert {t.device.type for t in get_peft_model_state_dict(model).values()} == {"meta"}
    saved = {
        name.removeprefix("base_model.model."): number
        for name, number in get_peft_model_state_dict(whole).items()
    }
    set_peft_model_state_dict(model, saved, low_cpu_mem_usage=True)
    assert torch.equal(model(X), want)


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("lora_alpha", "Did you mean 'alpha'?"),
        ("lora_dropout", "Did you mean 'dropout'?"),
        ("grid_size", "Did you mean 'num_basis'?"),
        ("zzz", "help(BasisConfig) lists its options"),
    ],
)
def test_an_option_of_lora_is_called_by_its_name_here(option: str, hint: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{option}'") as caught:
        BasisConfig(**{"r": 8, option: 1})
    assert hint in str(caught.value)


def test_a_setting_of_a_later_version_is_left_out_as_peft_does(tmp_path: Path) -> None:
    AbbaConfig(r=2).save_pretrained(str(tmp_path))
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"future_option": 3}))
    with pytest.warns(UserWarning, match="future_option"):
        again = PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(again, AbbaConfig) and again.r == 2
