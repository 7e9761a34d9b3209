"""Batches whose rows have adapters of their own, at inference."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from adapters.basis.layers import BasisLayer
from adapters.basis.layers.base import BASE


@contextmanager
def adapters_by_row(
    model: nn.Module,
    *,
    adapter_names: Sequence[str] | None = None,
    num_beams: int | None = None,
    **_: Any,
) -> Iterator[None]:
    """Hand `adapter_names` to every layer of `model` for the passes inside the context.

    Args:
        model: A model with adapters, in evaluation mode.
        adapter_names: For each row of the batch an adapter, or `__base__` for none; None does
            nothing.
        num_beams: Beams of a beam search, which repeats each row that often, except in an encoder.

    Raises:
        ValueError: The model is training, a name is unknown, or a layer cannot tell rows apart.
    """
    if adapter_names is None:
        yield
        return
    _check(model, adapter_names)
    repeated = [name for name in adapter_names for _ in range(num_beams or 1)]
    inside = _inside_encoder(model)
    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, BasisLayer | AuxiliaryTrainingWrapper):
                rows = list(adapter_names) if id(module) in inside else repeated

                def hand_over(_: Any, args: Any, kwargs: Any, rows: list[str] = rows) -> Any:
                    return args, {**kwargs, "adapter_names": rows}

                handle = module.register_forward_pre_hook(hand_over, with_kwargs=True)
                hooks.callback(handle.remove)
        yield


def _check(model: nn.Module, adapter_names: Sequence[str]) -> None:
    if model.training:
        raise ValueError("Cannot pass `adapter_names` when the model is in training mode.")
    layers = {n: m for n, m in model.named_modules() if isinstance(m, BasisLayer)}
    adapters = {name for layer in layers.values() for name in (*layer.basis_phi, *layer.sums)}
    if unknown := sorted(set(adapter_names) - adapters - {BASE}):
        raise ValueError(f"Trying to infer with non-existing adapter(s): {', '.join(unknown)}")
    for name, layer in layers.items():
        if not layer.mixes_batches or layer.weight_is_read:
            raise ValueError(
                f"{name!r} has one weight for all rows of a batch, so `adapter_names` cannot give "
                "each row its own: call the model once for each adapter"
            )


def _inside_encoder(model: nn.Module) -> set[int]:
    """The modules of an encoder beside a decoder, whose rows a beam search does not repeat."""
    get_encoder = getattr(model, "get_encoder", None)
    encoder = None if get_encoder is None else get_encoder()
    if not isinstance(encoder, nn.Module) or encoder is model:
        return set()
    return {id(module) for module in encoder.modules()}
