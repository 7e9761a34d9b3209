"""Which numbers of a layer are in this process, and which layers' numbers come and go together.

FSDP keeps a part of every parameter in each process and gathers it for the forward pass of a unit,
DeepSpeed's ZeRO-3 for that of a module; accelerate moves what does not fit the device away and
back.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import PrefixedDataset, named_module_tensors, set_module_tensor_to_device
from torch import Tensor, nn

from adapters.basis.sharing import Borrower

SHALLOW_COPY = (
    "{} is a shallow copy of one that adapters are on, as nn.DataParallel makes them: start one "
    "process for each GPU (torchrun, accelerate launch), let the process see one GPU, or copy the "
    "model by copy.deepcopy"
)
ABSENT = (
    "the numbers of adapter {!r} are not in this process: FSDP or DeepSpeed holds a part of them, "
    "or they are on the meta device. Call the whole model, which gathers them, or gather them "
    "around merging and reading (FullyShardedDataParallel.summon_full_params, FSDPModule.unshard), "
    "around reading alone by deepspeed.zero.GatheredParameters; load what is on meta onto a device"
)
"""Why the numbers of a layer cannot be read, and what to do."""

_PLAIN = (Tensor, nn.Parameter)


def are_here(numbers: Sequence[Tensor], with_factors: bool) -> bool:
    """Whether the tensors of a layer, B first if there are factors, are whole in this process."""
    first = numbers[0]
    flattened = with_factors and first.ndim != 2
    if flattened or not first.numel() or not first.untyped_storage().nbytes():
        return False  # flattened by FSDP1, or freed
    return all(type(n) in _PLAIN and not n.is_meta for n in numbers)  # FSDP2 shards as DTensors


def _containers(layer: Any) -> Iterator[nn.Module]:
    for name in layer.adapter_layer_names:
        yield getattr(layer, name)


def bring_home(layer: Any) -> None:
    """Put the adapters of `layer` that accelerate has offloaded on their device, to stay.

    They are small beside the base weight, which is left to come and go.
    """
    for container in _containers(layer):
        for module in container.modules():
            hook = getattr(module, "_hf_hook", None)
            for part in getattr(hook, "hooks", (hook,)):
                if getattr(part, "offload", False):
                    _bring(module, part)


def _bring(module: nn.Module, hook: Any) -> None:
    for name, tensor in named_module_tensors(module):
        if tensor.is_meta:
            value = _offloaded(hook.weights_map, name)
            set_module_tensor_to_device(module, name, hook.execution_device, value=value)
    hook.offload = False


def _offloaded(weights: Any, name: str) -> Tensor:
    """The value of a parameter in accelerate's map.

    PEFT files `layer.basis_A.adapter` on disk as `layer.adapter.basis_A` (0.21), where LoRA's
    names are right.
    """
    if isinstance(weights, PrefixedDataset) and name not in weights:
        parent, _, last = weights.prefix.rstrip(".").rpartition(".")
        name, weights = f"{parent}.{name}.{last}", weights.dataset
    value: Tensor = weights[name]
    return value


def held_by_zero_3(numbers: Iterable[Tensor]) -> bool:
    """Whether DeepSpeed's ZeRO-3 keeps a part of any of them in each process."""
    return any(hasattr(number, "ds_id") for number in numbers)


def announce_to_zero_3(layer: Any, numbers: Iterable[Tensor]) -> None:
    """Have ZeRO-3 gather what `layer` reads before its passes, and wait until it is there.

    It gathers what belongs to a module that is called; the numbers of an adapter and the weight of
    a base layer belong to modules that are not.
    """
    from deepspeed.runtime.zero import register_external_parameter

    for parameter in (*numbers, *layer.get_base_layer().parameters()):
        if hasattr(parameter, "ds_id"):
            register_external_parameter(layer, parameter)


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def fsdp2_is_used() -> bool:
    """Whether any module of this process has been through `fully_shard`."""
    if not _is_distributed():
        return False
    from torch.distributed.fsdp import FSDPModule

    return bool(FSDPModule.__subclasses__())


def units(model: nn.Module) -> dict[int, object]:
    """The FSDP unit of every module below `model` by the module's id; empty without units.

    Modules in no unit below `model` have no entry: they are gathered with the whole model.
    """
    if not _is_distributed():
        return {}
    unit_of: dict[int, object] = {}
    rest: list[tuple[nn.Module, object | None]] = [(model, None)]
    while rest:
        module, unit = rest.pop()
        unit = _unit(module) or unit
        if unit is not None:
            unit_of[id(module)] = unit
        rest += [(child, unit) for child in module.children()]
    return unit_of


def _unit(module: nn.Module) -> object | None:
    """What gathers `module`, where it is the top of an FSDP unit."""
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    if isinstance(module, FSDPModule):
        return module._get_fsdp_state()  # the same for modules that were sharded as one unit
    return module if isinstance(module, FullyShardedDataParallel) else None


def require_gathered_with(layer: Any, unit_of: Mapping[int, object]) -> None:
    """Refuse a layer whose adapters FSDP has wrapped by themselves.

    Raises:
        ValueError: FSDP has. The forward pass of such a unit never runs, so nothing gathers it.
    """
    for container in _containers(layer):
        for module in container.modules():
            if unit_of.get(id(module)) is not unit_of.get(id(layer)):
                raise ValueError(
                    f"FSDP has wrapped a part of an adapted layer ({type(module).__name__}) by "
                    "itself, and nothing would gather it: wrap whole blocks, by "
                    "transformer_auto_wrap_policy or by fully_shard on each block"
                )


def require_one_unit(model: nn.Module) -> None:
    """Refuse numbers that modules of several FSDP units share.

    Raises:
        ValueError: There are such numbers. FSDP would gather them for one of the units only.
    """
    unit_of = units(model)
    for module in model.modules() if unit_of else ():
        shared = [*module.lenders.items()] if isinstance(module, Borrower) else []
        shared += [("weight", donor) for donor in getattr(module, "tied_to", ())]
        for name, lender in shared:
            if unit_of.get(id(module)) is not unit_of.get(id(lender)):
                raise ValueError(
                    f"`sharing` ties {name!r} of layers that are in several FSDP units, which FSDP "
                    "cannot keep equal: take sharing_scope='layer' with one unit for each block, "
                    "wrap the whole model as one unit, or train by DDP"
                )
