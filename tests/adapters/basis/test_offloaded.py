"""Models of which accelerate keeps a part elsewhere."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from peft import PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict
from torch import nn

from adapters import BasisConfig

CPU = torch.device("cpu")
IDS = torch.arange(10).reshape(2, 5)


class Net(nn.Module):
    """A table, a linear layer and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(11, 6), nn.Linear(6, 6)
        self.conv = nn.Conv1d(6, 4, 1)

    def forward(self, ids):
        return self.conv(self.linear(self.table(ids)).mT)


def adapted(**options) -> PeftModel:
    torch.manual_seed(0)
    names = ["table", "linear", "conv"]
    shape = {"r": 2, "num_basis": 6, "interval": (-1.0, 1.0), "target_modules": names}
    return get_peft_model(Net(), BasisConfig(**shape, init_weights=False, **options)).eval()


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"merge_once": True}, {"path": "split"}], ids=str)
@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_an_offloaded_model_gives_the_same_bits(where, options, tmp_path):
    want = adapted(**options)(IDS)
    model = adapted(**options)
    if where == "cpu":
        model = cpu_offload(model, execution_device=CPU)
    else:
        model = disk_offload(model, str(tmp_path), execution_device=CPU)
    assert model.base_model.model.linear.base_layer.weight.is_meta
    for _ in range(2):
        assert torch.equal(model(IDS), want)
    with model.disable_adapter():
        assert not torch.equal(model(IDS), want)


@torch.no_grad()
def test_an_adapter_is_loaded_into_an_offloaded_model(family, tmp_path):
    f = family("llama")
    options = {"target_modules": ["q_proj", "down_proj"], "init_weights": False, "num_basis": 6}
    model = get_peft_model(f.model(), BasisConfig(r=2, **options))
    want = f.output(model)
    model.save_pretrained(tmp_path / "adapter")
    base = f.model()
    base.save_pretrained(tmp_path / "base")
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    places |= {"model.norm": "cpu", "lm_head": "cpu", "model.rotary_emb": "cpu"}
    folder = str(tmp_path / "offload")
    base = type(base).from_pretrained(tmp_path / "base", device_map=places, offload_folder=folder)
    again = get_peft_model(base, BasisConfig(r=2, **options))  # PEFT's loader wants a GPU for this
    set_peft_model_state_dict(again, load_peft_weights(str(tmp_path / "adapter"), device="cpu"))
    ids = f.batch()["input_ids"]
    torch.testing.assert_close(again.eval()(input_ids=ids).logits, want)


def test_a_weight_that_is_nowhere_is_told_of():
    with torch.device("meta"):
        base = nn.Sequential(nn.Linear(4, 4))
    model = get_peft_model(base, BasisConfig(r=2, num_basis=6, target_modules=["0"]))
    with pytest.raises(RuntimeError, match="on the meta device"):
        model(torch.zeros(1, 4))
