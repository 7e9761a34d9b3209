"""`BasisConfig` behind LoRA's name and options, so that PEFT's own tests build it."""

import dataclasses
import inspect
import os
from types import SimpleNamespace
from typing import Any

import peft
import pytest

from adapters import BasisConfig, BasisModel, rescale_adapter_scale
from adapters.basis.layers.parameter import ParamWrapper
from tools.peft_tests.rules import LORA_OPTIONS

LORA = peft.LoraConfig
DEFAULTS = {field.name: field.default for field in dataclasses.fields(LORA)}
OURS = {field.name for field in dataclasses.fields(BasisConfig)}
ONLY = {"lora_only": "basis_only"}
"""`bias`: LoRA's word for the biases of the adapted modules, and ours."""
RENAMED = {"lora_alpha": "alpha", "lora_dropout": "dropout", "init_lora_weights": "init_weights"}


NAMES = {
    "LoraLayer": BasisModel.tuner_layer_cls,
    "ParamWrapper": ParamWrapper,
    "rescale_adapter_scale": rescale_adapter_scale,  # PEFT's looks for LoRA's layers
}
"""What stands under LoRA's names in PEFT's tests."""


def substitute_names(namespace: dict[str, Any]) -> None:
    """Replace the names of LoRA that a test file has imported into its `namespace` by ours."""
    namespace |= {name: ours for name, ours in NAMES.items() if name in namespace}
    if "lora" in namespace:
        names = vars(namespace["lora"])
        namespace["lora"] = SimpleNamespace(
            **names | {n: o for n, o in NAMES.items() if n in names}
        )


class LoraConfig(BasisConfig):  # the name is part of the names of PEFT's rows
    """Takes LoRA's options; refuses what neither LoRA nor BasisConfig has."""

    __signature__ = inspect.signature(BasisConfig)  # PEFT's tests choose configurations by it
    refused = ""
    """Why this object is no adapter, where it was made while pytest collects."""

    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            super().__init__(**translate({**dict(zip(DEFAULTS, args, strict=False)), **options}))
        except (pytest.skip.Exception, TypeError, ValueError) as error:
            if "PYTEST_CURRENT_TEST" in os.environ:
                raise
            super().__init__()
            self.__dict__["refused"] = f"{type(error).__name__}: {error}"

    @property
    def lora_alpha(self) -> float:
        """`alpha`, under LoRA's name."""
        return self.alpha


def translate(options: dict[str, Any]) -> dict[str, Any]:
    """LoRA's options as those of BasisConfig; LoRA's default where ours differs.

    Raises:
        pytest.skip.Exception: An option is LoRA's own.
    """
    if not isinstance(start := options.get("init_lora_weights", True), bool):
        pytest.skip(f"LoRA's own: the start {start!r}", allow_module_level=True)
    translated: dict[str, Any] = {"alpha": DEFAULTS["lora_alpha"]}
    for name, value in options.items():
        unset = name in DEFAULTS and (not value or value == DEFAULTS[name])
        if name in LORA_OPTIONS and not unset:
            pytest.skip(f"LoRA's own: {name}", allow_module_level=True)
        name = RENAMED.get(name, name)
        # our layers see Conv1D's layout for themselves
        if name != "fan_in_fan_out" and (name in OURS or not unset):
            translated[name] = ONLY.get(value, value) if name == "bias" else value
    return translated
