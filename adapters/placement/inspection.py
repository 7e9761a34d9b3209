"""What a module computes, and whether the module around it reads its weight instead of calling
it."""

import functools
import inspect
import re
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.quantization_utils import (
    ForwardOnlyQuantizationBackend,
    QuantizationBackend,
    resolve_quantization_backend,
)
from torch import nn
from transformers.pytorch_utils import Conv1D

LINEAR_FORWARDS = (nn.Linear.forward, Conv1D.forward)
"""The methods that compute x W^T + bias."""
_SETTING_UP = frozenset(
    ("__init__", "_init_weights", "reset_parameters", "_reset_parameters", "tie_weights")
)
"""Methods that may read a weight without an effect on what the model computes."""
_ABOUT = r"(?!\s*\.\s*(?:dtype|device|shape|size|ndim|dim|is_\w+|requires_grad)\b)"
"""A lookahead that excludes attributes which tell nothing of the tensor's numbers."""


def quantization_backend(base: nn.Module, options: dict[str, Any]) -> QuantizationBackend | None:
    """PEFT's back end for a quantised layer; None for one that is not quantised."""
    try:
        return resolve_quantization_backend(base, **options)
    except ValueError:  # torchao outside transformers: W can be read, not quantised anew
        return ForwardOnlyQuantizationBackend("torchao")


def base_of(module: nn.Module) -> nn.Module:
    """The module below all adapters on `module`; itself where there are none."""
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def computes_linear(module: nn.Module) -> bool:
    """Whether `module` is known to compute x W^T + bias, in whatever form it keeps W."""
    if quantization_backend(module, {}) is not None:
        return True
    return type(module).forward in LINEAR_FORWARDS


@functools.cache
def reads_weight(owner: type[nn.Module], child: str) -> bool:
    """Whether code of `owner` uses the numbers of `self.<child>.weight` instead of calling the
    child.

    `nn.MultiheadAttention` and the fast paths of `nn.TransformerEncoderLayer` and of Mamba do.
    """
    use = re.compile(rf"\bself\.{re.escape(child)}\.weight\b{_ABOUT}")
    about = re.compile(rf"isinstance\(\s*self\.{re.escape(child)}\.weight\s*,")
    for name, method in inspect.getmembers_static(owner, inspect.isfunction):
        if name in _SETTING_UP or (hasattr(nn.Module, name) and name != "forward"):
            continue
        try:
            source = inspect.getsource(method)
        except (OSError, TypeError):  # made at run time
            continue
        if use.search(about.sub("", source)):
            return True
    return False
