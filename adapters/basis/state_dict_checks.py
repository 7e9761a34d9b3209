"""Checks that the tensors of a saved adapter are those that the model expects."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adapters.basis.sharing import Borrower
from adapters.placement.module_names import IN_PEFT

MAX_NAMES = 3
"""Names in a message."""


def without_copies(
    saved: Mapping[str, Tensor], model: nn.Module, adapter: str
) -> dict[str, Tensor]:
    """`saved`, named as in a file, without the copies of shared numbers that old versions wrote.

    Raises:
        ValueError: What should be a copy differs from the number that is shared.
    """
    state = dict(saved)
    names = {id(module): name for name, module in model.named_modules()}
    for name, module in model.named_modules():
        for number, lender in module.lenders.items() if isinstance(module, Borrower) else ():
            if not name.endswith(f".{adapter}"):
                continue
            for prefix in ("", IN_PEFT):  # which the names in a file always have
                copy, own = (
                    f"{prefix}{n.removesuffix(f'.{adapter}')}.{number}"
                    for n in (name, names[id(lender)])
                )
                if copy in state and own in state and not torch.equal(state.pop(copy), state[own]):
                    raise ValueError(
                        f"the saved adapter has numbers for {copy} that differ from {own}, which "
                        "this model reads in both places: it was saved with less `sharing`"
                    )
    return state


def check_saved(saved: Mapping[str, Tensor], model: Mapping[str, Tensor], adapter: str) -> None:
    """Refuse tensors `saved` of `adapter` that do not fit `model`; both have the model's names.

    Raises:
        ValueError: Tensors are missing or too many, of another shape, no floating-point numbers,
            or not finite.
    """
    own = re.compile(rf"(^|\.)basis_\w+\.{re.escape(adapter)}(\.|$)")
    expected = {name for name in model if own.search(name)}
    names = {name for name in saved if re.search(r"(^|\.)basis_(A|B|phi|scale)(\.|$)", name)}
    if missing := sorted(expected - names):
        raise ValueError(
            f"the saved adapter lacks {_some(missing)} of this model: it was saved from another "
            "model or with other settings, or its file is damaged"
        )
    if strange := sorted(names - expected):
        raise ValueError(
            f"the saved adapter has {_some(strange)}, for which this model has no place: it was "
            "saved from another model or with other settings"
        )
    for name in sorted(names):
        tensor = saved[name]
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must hold floating-point numbers, got {tensor.dtype}")
        if not tensor.is_meta and not tensor.isfinite().all():
            raise ValueError(
                f"{name} holds NaN or infinity: training diverged before the adapter was saved, or "
                "its file is damaged"
            )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
