"""The phi of a trained adapter as the start of another one's."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftConfig
from safetensors.torch import load_file
from torch import Tensor, nn

from adapters.basis.config import BasisConfig
from adapters.basis.layers import BasisLayer
from adapters.placement.module_names import IN_PEFT, kind_of
from adapters.training.needs import lacks

WEIGHTS = "adapter_model.safetensors"
ALIKE = ("form", "form_options", "phi_pattern", "basis", "basis_options", "num_basis", "interval",
         "grid", "linear", "extrapolation", "sharing", "sharing_scope")  # fmt: skip
"""Options that decide what the numbers of a phi mean, and which modules hold them."""


def mismatch(config: PeftConfig | None, saved: str | Path) -> str | None:
    """Why adapters made from `config` cannot have the phi in the folder `saved`; None if they can.

    Raises:
        ValueError: No basis adapter is there.
    """
    if not (Path(saved) / WEIGHTS).is_file():
        raise ValueError(f"{saved} is no folder of a saved adapter: it has no {WEIGHTS}")
    there = PeftConfig.from_pretrained(str(saved))
    if not isinstance(there, BasisConfig):
        raise ValueError(f"{saved} holds no basis adapter but one of {type(there).__name__}")
    if not isinstance(config, BasisConfig):
        return lacks(config, "update")
    here, other = (
        {name: getattr(each, name, None) for name in ALIKE}
        | {"whether the start is anchored": each.phi.build_start().anchored}
        for each in (config, there)
    )
    differ = [f"{n}: {v} here, {other[n]} there" for n, v in here.items() if v != other[n]]
    return f"another phi, {'; '.join(differ)}: set the same" if differ else None


@torch.no_grad()
def load_phi(model: nn.Module, saved: str | Path, adapter: str = "default") -> None:
    """Give every phi of `model` the numbers of a saved one; A, B and input scales stay.

    Those of the module of the same name, else the mean, number by number, over the modules of its
    kind in all blocks, else, with scope `all`, those that all modules had. Where B is not 0 the
    model changes at once: take the start `random`, with which W' stays W until the first step.

    Args:
        model: A model with the basis adapter `adapter`.
        saved: Folder with `adapter_config.json` and `adapter_model.safetensors`, of which only the
            numbers of phi are read.
        adapter: The adapter's name.

    Raises:
        ValueError: It is no basis adapter, its phi is of another family, size, interval or sharing,
            or a module has no counterpart; nothing is changed then.
    """
    mine = getattr(model, "peft_config", {}).get(adapter)
    if (why := mismatch(mine, saved)) or not isinstance(mine, BasisConfig):
        raise ValueError(f"the model cannot have the phi in {saved}: it has {why}")
    numbers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in load_file(Path(saved) / WEIGHTS).items():
        module, _, number = name.removeprefix(IN_PEFT).partition(".basis_phi.")
        numbers[number][module] = tensor
    shared = mine.sharing != "none" and mine.sharing_scope == "all"
    found: list[tuple[Tensor, Tensor]] = []
    for name, layer in model.named_modules():
        if not isinstance(layer, BasisLayer) or adapter not in layer.basis_phi:
            continue
        phi = layer.basis_phi[adapter]
        own = (*phi.named_parameters(recurse=False), *phi.named_buffers(recurse=False))
        for number, tensor in own:  # what is borrowed is the lender's to load
            module = name.removeprefix(IN_PEFT)
            value = _counterpart(numbers[number], module, shared)
            if value is None or value.shape != tensor.shape:
                has = "no" if value is None else f"a {tuple(value.shape)}"
                raise ValueError(
                    f"{saved} has {has} {number} for {module}, which needs one of "
                    f"{tuple(tensor.shape)}: adapt the same kinds of modules, with one phi_pattern"
                )
            found.append((tensor, value))
    for tensor, value in found:
        tensor.copy_(value)


def _counterpart(by_module: Mapping[str, Tensor], module: str, shared: bool) -> Tensor | None:
    if module in by_module:
        return by_module[module]
    alike = [t for name, t in by_module.items() if kind_of(name) == kind_of(module)]
    if alike and all(t.shape == alike[0].shape for t in alike):
        return torch.stack(alike).mean(0)
    first, *others = by_module.values() if shared and by_module else (None,)
    # what is fixed stands in each module, and is equal
    return first if first is not None and all(torch.equal(t, first) for t in others) else None
