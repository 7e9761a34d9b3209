"""Parameters of a base layer: brought to its device for a while, or replaced and restored."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MethodType
from typing import Any, cast

import torch
from accelerate.utils import align_module_device
from torch import Tensor, func, nn


@contextmanager
def weight_here(base: nn.Module, name: str = "weight") -> Iterator[None]:
    """Inside, what accelerate has offloaded of `base` is on its device and keeps what is assigned.

    Raises:
        RuntimeError: The parameter `name` is on the meta device, and nothing brings it.
    """
    with align_module_device(base):
        if getattr(base, name).is_meta:
            raise RuntimeError(
                f"the {name!r} of an adapted {type(base).__name__} is on the meta device and has "
                "no values: load the model with a device_map, or call accelerate's dispatch_model"
            )
        hooked = base.__dict__.get("forward")
        if hooked is not None:  # accelerate's, which would bring the base's own weight once more
            base.forward = MethodType(type(base).forward, base)
        try:
            yield
        finally:
            if hooked is not None:
                base.forward = hooked


def execution_device(base: nn.Module) -> torch.device | None:
    """Where accelerate brings the offloaded `base` to; None where it does not."""
    device = getattr(getattr(base, "_hf_hook", None), "execution_device", None)
    return None if device is None else torch.device(device)


def functional_call(
    module: nn.Module, swapped: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """`torch.func.functional_call`, under FSDP1 too.

    FSDP1 lays its gathered views over the parameters as plain attributes, which hide what torch
    puts in the parameters' place: they are taken away for the call.
    """
    hidden = []
    for path in swapped:
        prefix, _, name = path.rpartition(".")
        attributes = vars(module.get_submodule(prefix))
        if name in attributes:
            hidden.append((attributes, name, attributes.pop(name)))
    try:
        return func.functional_call(module, dict(swapped), args, kwargs)
    finally:
        for attributes, name, view in hidden:
            attributes[name] = view


def weight_of(base: nn.Module) -> Tensor:
    """The weight of a module of any class that has one."""
    return cast(Tensor, base.weight)


def put_weight(base: nn.Module, weight: Tensor, name: str = "weight") -> nn.Parameter:
    """Put `weight` in the place of the parameter `name` of `base` alone, whatever shares it.

    Returns:
        The parameter that was there, for `restore_weight`.
    """
    original: nn.Parameter = getattr(base, name)
    setattr(base, name, nn.Parameter(weight, requires_grad=original.requires_grad))
    return original


def restore_weight(base: nn.Module, original: nn.Parameter, name: str = "weight") -> None:
    """Put back what `put_weight` returned, with the device and dtype that `base` has now."""
    now = getattr(base, name)
    if (original.device, original.dtype) != (now.device, now.dtype):
        original.data = original.data.to(now.device, now.dtype)
    setattr(base, name, original)


def without_parametrization(base: nn.Module) -> nn.Module:
    """A module like `base` whose parametrized tensors are plain parameters; the rest is shared."""
    # torch makes a class for each parametrized module
    original: type[nn.Module] = type(base).__bases__[0]
    plain = original.__new__(original)
    plain.__dict__.update(base.__dict__)
    plain._parameters = dict(base._parameters)
    plain._modules = {n: m for n, m in base._modules.items() if n != "parametrizations"}
    for name in cast(nn.ModuleDict, base.parametrizations):  # torch's, by parameter
        weight = getattr(base, name).detach().clone()
        plain.register_parameter(name, nn.Parameter(weight, requires_grad=False))
    return plain
