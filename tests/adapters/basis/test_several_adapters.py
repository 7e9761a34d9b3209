"""Batches whose rows have adapters of their own, and weighted sums of adapters."""

import pytest
import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn

from adapters import BasisConfig
from adapters.export import to_lora


def config(**options) -> BasisConfig:
    return BasisConfig(
        **{"r": 2, "num_basis": 6, "interval": (-1.0, 1.0), "init_weights": False, **options}
    )


class Mixed(nn.Module):
    """A table, a convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.conv = nn.Embedding(7, 5), nn.Conv1d(5, 6, 1)
        self.linear = nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.linear(self.conv(self.table(ids).mT).mT)


def mixed() -> PeftModel:
    torch.manual_seed(0)
    names = ["table", "conv", "linear"]
    model = get_peft_model(Mixed(), config(target_modules=names), adapter_name="a")
    model.add_adapter("b", config(target_modules=["conv", "linear"], r=3, basis="hat"))
    return model.eval()


@torch.no_grad()
def test_every_row_of_a_batch_may_have_an_adapter_of_its_own():
    model, ids = mixed(), torch.arange(10).reshape(5, 2) % 7
    names = ["b", "__base__", "a", "b", "a"]
    got = model(ids, adapter_names=names)
    for i, name in enumerate(names):
        if name == "__base__":
            with model.disable_adapter():
                want = model(ids[i : i + 1])
        else:
            model.set_adapter(name)
            want = model(ids[i : i + 1])
        torch.testing.assert_close(got[i : i + 1], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "c"], r"non-existing adapter\(s\): c"),
        (["a"], "Length of `adapter_names` should be the same as the number of inputs"),
    ],
)
def test_adapter_names_that_cannot_be_meant_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        mixed()(torch.zeros(2, 2, dtype=torch.long), adapter_names=names)


def test_rows_cannot_be_mixed_while_training_or_where_a_weight_is_read():
    ids = torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="training mode"):
        mixed().train()(ids, adapter_names=["a"])
    model = mixed()
    model.merge_adapter(["a"])
    with pytest.raises(ValueError, match="merged adapters"):
        model(ids, adapter_names=["a"])
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = get_peft_model(nn.Sequential(layer), config(target_modules=["linear1"])).eval()
    with pytest.raises(ValueError, match="linear1' has one weight for all rows"):
        model(torch.zeros(2, 3, 8), adapter_names=["default", "default"])


def test_generate_mixes_rows_with_beams_too(family):
    f = family("t5")
    model = get_peft_model(f.model(), config(target_modules="all", b_std=1.0), adapter_name="a")
    model.add_adapter("b", config(target_modules="all", b_std=1.0))
    model.eval()
    ids = f.batch(rows=2)["input_ids"]
    options = {"max_new_tokens": 4, "num_beams": 2, "do_sample": False}
    got = model.generate(input_ids=ids, adapter_names=["b", "a"], **options)
    for i, name in enumerate(["b", "a"]):
        model.set_adapter(name)
        want = model.generate(input_ids=ids[i : i + 1], **options)[0]
        assert torch.equal(got[i, : len(want)], want)


def test_a_weighted_sum_is_exported(family, tmp_path):
    f = family("llama")
    model = get_peft_model(f.model(), config(target_modules=["q_proj"]), adapter_name="a")
    model.add_adapter("b", config(target_modules=["q_proj", "v_proj"]))
    model.base_model.add_weighted_adapter(["a", "b"], [0.5, -1.0], "sum")
    model.set_adapter("sum")
    want = f.output(model)
    export = to_lora(model, rank=32, adapter="sum")
    export.save(folder := tmp_path / "sum")
    torch.testing.assert_close(
        f.output(PeftModel.from_pretrained(f.model(), folder)), want, rtol=1e-3, atol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize("kind", ["linear", "cat"])
def test_a_weighted_sum_of_adapters_follows_its_parts(kind):
    model, ids = mixed(), torch.arange(4).reshape(2, 2)
    model.base_model.add_weighted_adapter(["a", "b"], [0.25, -2.0], "sum", kind)
    model.set_adapter("sum")
    got = model(ids)
    layer = model.base_model.model.linear
    want = 0.25 * layer.get_delta_weight("a") - 2.0 * layer.get_delta_weight("b")
    torch.testing.assert_close(layer.get_delta_weight("sum"), want)
    model.merge_adapter()
    assert torch.equal(model(ids), got)
    model.unmerge_adapter()
    with pytest.raises(ValueError, match="'b' is part of the weighted adapters"):
        model.delete_adapter("b")
    with pytest.raises(ValueError, match="'sum' is a weighted sum"):
        get_peft_model_state_dict(model, adapter_name="sum")
    model.delete_adapter("sum")
    model.delete_adapter("b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "c"], [1, 1], "sum"), "unknown adapters"),
        ((["a", "b"], [1], "sum"), "one weight for each adapter"),
        ((["a"], [float("nan")], "sum"), "finite"),
        ((["a", "a"], [1, 1], "sum"), "more than once"),
        ((["a"], [1], "b"), "there is an adapter 'b' already"),
        ((["a"], [1], "sum", "svd"), "must be 'linear' or 'cat', got 'svd'"),
    ],
)
def test_a_weighted_sum_that_cannot_be_meant_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mixed().base_model.add_weighted_adapter(*arguments)


def test_a_weighted_sum_has_the_head_that_one_of_its_parts_trained():
    torch.manual_seed(0)
    one = config(target_modules=["conv"], modules_to_save=["linear"])
    model = get_peft_model(Mixed(), one, adapter_name="a")
    model.add_adapter("b", config(target_modules=["conv"]))
    with torch.no_grad():
        model.base_model.model.linear.modules_to_save["a"].weight.add_(1.0)
    model.base_model.add_weighted_adapter(["a", "b"], [1.0, 0.0], "sum")
    ids = torch.arange(4).reshape(2, 2)
    want = model(ids)
    model.set_adapter("sum")
    torch.testing.assert_close(model(ids), want)
    model.add_adapter("c", one)
    with pytest.raises(ValueError, match="same module with modules_to_save"):
        model.base_model.add_weighted_adapter(["a", "c"], [1.0, 1.0], "other")
