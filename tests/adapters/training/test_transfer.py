"""The phi of one adapter as the start of another's: which numbers go where, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import adapters
from adapters import BasisConfig, BasisLayer
from adapters.training.transfer import load_phi

NUMBERS = ("amplitude", "raw_bandwidth", "raw_grid", "line")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(6, 6), nn.Linear(6, 6)


class Stack(nn.Module):
    """Some blocks of two linear layers."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Block() for _ in range(blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.layer:
            x = x + block.value(torch.tanh(block.query(x)))
        return x


def adapted(blocks: int = 2, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    options = {"target_modules": ["query", "value"], "r": 2, "num_basis": 5, "grid": "learned",
               "start": "random", **options}  # fmt: skip
    return get_peft_model(Stack(blocks), BasisConfig(**options))


def trained(folder: Path, **options: Any) -> tuple[Any, Path]:
    """A model with random numbers in every phi, and where it is saved."""
    model = adapted(seed=1, **options)
    for parameter in adapters.phi_parameters(model):
        nn.init.normal_(parameter)
    model.save_pretrained(str(folder))
    return model, folder


def phis(model: nn.Module) -> dict[str, Any]:
    return {
        name.removeprefix("base_model.model."): layer.basis_phi["default"]
        for name, layer in model.named_modules()
        if isinstance(layer, BasisLayer)
    }


@pytest.mark.parametrize("sharing", ["none", "grid", "bandwidth", "amplitude", "all"])
@pytest.mark.parametrize("scope", ["all", "kind", "layer"])
def test_every_phi_of_a_like_model_is_the_saved_one(
    sharing: str, scope: str, tmp_path: Path
) -> None:
    source, folder = trained(tmp_path, sharing=sharing, sharing_scope=scope)
    model = adapted(sharing=sharing, sharing_scope=scope)
    factors = {n: p.clone() for n, p in model.named_parameters() if "basis_phi" not in n}
    load_phi(model, folder)
    for name, phi in phis(source).items():
        for number in NUMBERS:
            assert torch.equal(getattr(phis(model)[name], number), getattr(phi, number)), name
    for name, parameter in model.named_parameters():
        assert name not in factors or torch.equal(parameter, factors[name])


def test_a_deeper_model_has_the_means_of_the_kind_in_its_other_blocks(tmp_path: Path) -> None:
    source, folder = trained(tmp_path)
    model = adapted(blocks=3)
    load_phi(model, folder)
    there, here = phis(source), phis(model)
    for kind in ("query", "value"):
        for number in NUMBERS:
            each = [getattr(there[f"layer.{i}.{kind}"], number) for i in (0, 1)]
            assert torch.equal(getattr(here[f"layer.1.{kind}"], number), each[1])
            torch.testing.assert_close(
                getattr(here[f"layer.2.{kind}"], number), (each[0] + each[1]) / 2
            )


def test_what_is_shared_by_all_fits_other_modules_and_may_stay_fixed(tmp_path: Path) -> None:
    source, folder = trained(tmp_path, sharing="all", grid="uniform", target_modules=["query"])
    model = adapted(sharing="all", grid="uniform", target_modules=["value"], train_amplitude=False)
    load_phi(model, folder)
    wanted = next(iter(phis(source).values()))
    for phi in phis(model).values():
        assert torch.equal(phi.bandwidth, wanted.bandwidth)
    first = next(iter(phis(model).values()))
    assert torch.equal(first.amplitude, wanted.amplitude) and not first.amplitude.requires_grad


def test_the_start_random_leaves_the_model_alone_until_it_is_trained(tmp_path: Path) -> None:
    _, folder = trained(tmp_path)
    model, x = adapted(), torch.randn(3, 6)
    with model.disable_adapter():
        before = model(x)
    load_phi(model, folder)
    assert torch.equal(model(x), before)
    model(x).square().sum().backward()
    assert all(layer.basis_B["default"].grad.any() for layer in model.modules()
               if isinstance(layer, BasisLayer))  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"basis": "gaussian_rbf"}, "basis: gaussian_rbf here, sinc there"),
        ({"num_basis": 6}, "num_basis: 6 here, 5 there"),
        ({"interval": (-1.0, 1.0)}, r"interval: \(-1.0, 1.0\) here"),
        ({"sharing": "all"}, "sharing: all here, none there"),
        ({"sharing_scope": "kind"}, "sharing_scope: kind here, all there"),
        ({"start": "paper"}, "whether the start is anchored: False here, True there"),
        ({"phi_pattern": {"query": {"num_basis": 6}}}, "phi_pattern: .* there"),
    ],
)
def test_another_phi_is_refused_by_name(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    _, folder = trained(tmp_path)
    model = adapted(**options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=said):
        load_phi(model, folder)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_is_no_saved_phi_is_refused_by_name(tmp_path: Path) -> None:
    _, folder = trained(tmp_path / "query", target_modules=["query"])
    with pytest.raises(ValueError, match=r"has no amplitude for layer\.0\.value"):
        load_phi(adapted(), folder)
    with pytest.raises(ValueError, match=r"no folder of a saved adapter: it has no adapter_model"):
        load_phi(adapted(), tmp_path / "nowhere")
    lora = get_peft_model(Stack(1), LoraConfig(target_modules=["query"]))
    lora.save_pretrained(str(tmp_path / "lora"))
    with pytest.raises(ValueError, match="holds no basis adapter but one of LoraConfig"):
        load_phi(adapted(), tmp_path / "lora")
    with pytest.raises(ValueError, match="it has no update"):
        load_phi(adapted(), folder, adapter="other")
