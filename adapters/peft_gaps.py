"""Where PEFT's methods differ or fail, and what makes them usable through one door."""

from collections.abc import Mapping
from types import MethodType
from typing import Any

from peft import LoraConfig, PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_target_module_exists
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn


def target_names(model: nn.Module, config: PeftConfig, wanted: Mapping[str, Any]) -> set[str]:
    """The full names of the modules that `config` means, with the options in `wanted` obeyed.

    For methods whose configuration has no `exclude_modules` or `layers_to_transform`. PEFT obeys
    neither for full names, so the one that `config` has is obeyed here too and cleared.

    Raises:
        ValueError: No module is left, or `target_modules` is not set.
    """
    if config.target_modules is None:
        raise ValueError(f"set `target_modules` to use {', '.join(wanted)} with this method")
    targets = config.target_modules
    probe = LoraConfig(
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=config.modules_to_save,
        **{"layers_to_transform": getattr(config, "layers_to_transform", None), **wanted},
    )
    if "layers_to_transform" not in wanted:
        config.layers_to_transform = None
    names = {name for name, _ in model.named_modules() if check_target_module_exists(probe, name)}
    if not names:
        raise ValueError(f"no module of the model fits target_modules {targets} with {wanted}")
    return names


def _replace_module(
    self: BaseTuner, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
) -> None:
    if isinstance(child, AuxiliaryTrainingWrapper):
        setattr(parent, child_name, new_module)
    else:
        type(self)._replace_module(self, parent, child_name, new_module, child)


def guard_heads(model: nn.Module) -> nn.Module:
    """Let `merge_and_unload` of `model` pass composite heads; returns `model`.

    PEFT reads `.weight` of a head kept in modules_to_save, which RoBERTa's has not: most of its
    methods fail there (peft #3114).
    """
    tuner = getattr(model, "base_model", None)
    if isinstance(tuner, BaseTuner):
        tuner._replace_module = MethodType(_replace_module, tuner)
    return model


def merge_and_unload(model: nn.Module, safe_merge: bool = True) -> nn.Module:
    """The plain model with the active adapters in its weights; `model` is used up.

    A model without adapters is returned as it is.

    Raises:
        ValueError: The method cannot be merged, or a merged weight is not finite.
    """
    if not any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        return model
    return guard_heads(model).merge_and_unload(safe_merge=safe_merge)
