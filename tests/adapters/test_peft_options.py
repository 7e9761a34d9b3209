"""Options of LoRA that PEFT itself carries out, for our adapters."""

import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn

from adapters import BasisConfig
from adapters.export import to_lora


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
    file = tmp_path / "adapter_config.json"
    settings = json.loads(file.read_text()) | {"schema_version": 2}
    del settings["bias"]
    file.write_text(json.dumps(settings))
    torch.manual_seed(0)
    assert torch.equal(PeftModel.from_pretrained(Net(), tmp_path)(X), model(X))
