"""What lets all of PEFT's methods be used in one way, where some differ or fail."""

from collections.abc import Callable
from types import MethodType
from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn


def sparing_heads(replace: Callable[..., None]) -> Callable[..., None]:
    """`replace`, a tuner's `_replace_module`, without PEFT's look at the `.weight` of a head.

    A composite head that is kept in modules_to_save, such as RoBERTa's, has none, and unloading
    most methods fails there (peft #3114).
    """

    def _replace_module(
        self: BaseTuner, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        if isinstance(child, AuxiliaryTrainingWrapper):
            setattr(parent, child_name, new_module)
        else:
            replace(self, parent, child_name, new_module, child)

    return _replace_module


def guard_heads(model: nn.Module) -> nn.Module:
    """Let `merge_and_unload` of `model` pass composite heads (`sparing_heads`); returns `model`."""
    tuner = getattr(model, "base_model", None)
    if isinstance(tuner, BaseTuner):
        replacing = MethodType(sparing_heads(type(tuner)._replace_module), tuner)
        tuner._replace_module = replacing  # type: ignore[method-assign]  # of this model alone
    return model


def merge_and_unload(model: nn.Module, safe_merge: bool = True) -> nn.Module:
    """The plain model with the active adapters in its weights; `model` is used up.

    A model without adapters is returned as it is.

    Raises:
        ValueError: The method cannot be merged, or a merged weight is not finite.
    """
    if not any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        return model
    guarded: Any = guard_heads(model)  # PEFT's, which hands the call on to its tuner
    plain: nn.Module = guarded.merge_and_unload(safe_merge=safe_merge)
    return plain
