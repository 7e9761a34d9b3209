"""Modules of every kind: W' is W + s phi(B A) whatever they do with it, merged and unmerged."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from torch.func import functional_call

from adapters import BasisConfig, BasisLayer


class InTimesOut(nn.Linear):
    """Multiplies from the other side, and with a gain."""

    def __init__(self) -> None:
        super().__init__(6, 6)
        self.gain = nn.Parameter(torch.full((6,), 1.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x @ self.weight + self.bias)


class Scaled(nn.Embedding):
    """As Gemma 3's."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * 3.0


class Experts(nn.Module):
    """Two matrices for each of three experts, as transformers keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 8, 6) / 3)
        self.down = nn.Parameter(torch.randn(3, 6, 8) / 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("eoi,bi->ebo", self.up, x).relu()
        return torch.einsum("eoi,ebi->bo", self.down, hidden)


class Attention(nn.Module):
    """`nn.MultiheadAttention` on one sequence."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(6, 2, batch_first=first)

    def forward(self, x: Tensor) -> Tensor:
        return self.mha(x, x, x, need_weights=False)[0]


class Kind(NamedTuple):
    """A module inside a model, and what it is fed."""

    make: Callable[[], nn.Module]
    x: Tensor
    config: Mapping = MappingProxyType({"target_modules": ["0"]})


IDS = torch.tensor([[1, 4, 4], [0, 8, 2]])
ROWS = torch.linspace(-1, 1, 24).reshape(4, 6)
IMAGE = torch.linspace(-1, 1, 2 * 4 * 7).reshape(2, 4, 7)
KINDS = {
    "linear": Kind(lambda: nn.Linear(6, 5), ROWS),
    "embedding": Kind(lambda: nn.Embedding(9, 5), IDS),
    "padded embedding": Kind(lambda: nn.Embedding(9, 5, padding_idx=2), IDS),
    "scaled embedding": Kind(lambda: Scaled(9, 5), IDS),
    "conv1d": Kind(lambda: nn.Conv1d(4, 6, 3, padding=1), IMAGE),
    "reflecting conv1d": Kind(lambda: nn.Conv1d(4, 6, 3, 1, 1, padding_mode="reflect"), IMAGE),
    "conv2d": Kind(
        lambda: nn.Conv2d(4, 6, (3, 2), bias=False), IMAGE[..., None, :].repeat(1, 1, 4, 1)
    ),
    "grouped conv2d": Kind(
        lambda: nn.Conv2d(4, 6, 2, groups=2), IMAGE[..., None].repeat(1, 1, 1, 3)
    ),
    "conv3d": Kind(lambda: nn.Conv3d(4, 2, 2), IMAGE[..., None, None].repeat(1, 1, 1, 2, 3)),
    "another linear": Kind(InTimesOut, ROWS),
    "attention": Kind(lambda: Attention(True), ROWS[None], {"target_modules": ["mha"]}),
    "attention, sequence first": Kind(
        lambda: Attention(False), ROWS[None], {"target_modules": ["mha"]}
    ),
    "output of attention": Kind(
        lambda: Attention(True), ROWS[None], {"target_modules": ["out_proj"]}
    ),
    "experts": Kind(Experts, ROWS, {"target_parameters": ["0.up", "0.down"]}),
    "one parameter": Kind(lambda: nn.Linear(6, 5), ROWS, {"target_parameters": ["0.weight"]}),
}


def config(kind: Kind, **options) -> BasisConfig:
    shape = {"r": 2, "alpha": 3.0, "num_basis": 6, "interval": (-1.0, 1.0)}
    return BasisConfig(**{**shape, "init_weights": False, **kind.config, **options})


def model(kind: Kind, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(kind.make(), nn.LayerNorm(1, elementwise_affine=False)).to(dtype).eval()


def output(adapted: nn.Module, kind: Kind, dtype: torch.dtype = torch.float32) -> Tensor:
    """What the module gives; its norm is only there to make it a model."""
    x = kind.x if not kind.x.is_floating_point() else kind.x.to(dtype)
    inner = adapted.get_base_model() if isinstance(adapted, PeftModel) else adapted
    for phis in inner.__dict__["_basis_state"].batches.values() if adapted is not inner else ():
        phis.begin_pass(False)
    return inner[0](x)


def merged_by_hand(adapted: nn.Module, kind: Kind) -> Tensor:
    """The base module in float64 with every adapted parameter replaced by the definition."""
    root = adapted.get_base_model()[0]
    plain, swapped = kind.make(), {}
    layers = [(n, m) for n, m in root.named_modules() if isinstance(m, BasisLayer)]
    for name, layer in layers:
        base = layer.get_base_layer()
        weight = getattr(base, layer.parameter_name).double()
        b, a, phi = layer.member("default")
        update = layer.scaling["default"] * phi(b.double() @ a.double()).reshape(weight.shape)
        path = ".".join([p for p in name.split(".") if p != "base_layer"] + [layer.parameter_name])
        swapped[path.lstrip(".")] = weight + update
    state = {n.replace("base_layer.", ""): p.double() for n, p in root.state_dict().items()}
    state = {n: p for n, p in state.items() if "basis_" not in n}
    x = kind.x.double() if kind.x.is_floating_point() else kind.x
    return functional_call(plain.double(), {**state, **swapped}, (x,))


@pytest.mark.parametrize("name", KINDS)
def test_the_output_and_its_gradients_are_the_definition(name):
    kind = KINDS[name]
    adapted = get_peft_model(model(kind), config(kind))
    trained = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
    got = output(adapted, kind)
    want = merged_by_hand(adapted, kind)
    torch.testing.assert_close(got, want.float(), rtol=1e-4, atol=1e-4)
    against = torch.linspace(0.5, 1.5, got.numel()).reshape(got.shape)
    ours = torch.autograd.grad((got * against).sum(), list(trained.values()))
    exact = torch.autograd.grad((want * against.double()).sum(), list(trained.values()))
    for parameter, mine, other in zip(trained, ours, exact, strict=True):
        assert other.abs().max() > 0, parameter
        torch.testing.assert_close(mine, other.float(), rtol=2e-3, atol=2e-4, msg=parameter)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_merged_unmerged_and_loaded_are_the_same_bits(name, dtype, tmp_path):
    kind = KINDS[name]
    base = output(model(kind, dtype), kind, dtype)
    adapted = get_peft_model(model(kind, dtype), config(kind)).eval()
    want = output(adapted, kind, dtype)
    assert not torch.equal(want, base)
    with adapted.disable_adapter():
        assert torch.equal(output(adapted, kind, dtype), base)
    adapted.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(model(kind, dtype), tmp_path).eval()
    assert torch.equal(output(loaded, kind, dtype), want)
    loaded.merge_adapter(safe_merge=True)
    assert torch.equal(output(loaded, kind, dtype), want)
    loaded.unmerge_adapter()
    assert torch.equal(output(loaded, kind, dtype), want)
    plain = loaded.merge_and_unload()
    assert not any(isinstance(m, BasisLayer) for m in plain.modules())
    assert torch.equal(output(plain, kind, dtype), want)
    assert plain.state_dict().keys() == model(kind, dtype).state_dict().keys()


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_two_adapters_add_up_and_unload_leaves_the_base(name):
    kind = KINDS[name]
    base = output(model(kind), kind)
    adapted = get_peft_model(model(kind), config(kind), adapter_name="one").eval()
    adapted.add_adapter("two", config(kind, r=3, basis="gaussian_rbf"))
    alone = output(adapted, kind)
    adapted.base_model.set_adapter(["one", "two"])
    both = output(adapted, kind)
    assert not torch.equal(alone, both)
    adapted.merge_adapter()
    assert torch.equal(output(adapted, kind), both)
    adapted.unmerge_adapter()
    adapted.delete_adapter("two")
    torch.testing.assert_close(output(adapted, kind), alone, rtol=0, atol=0)
    assert torch.equal(output(adapted.unload(), kind), base)
