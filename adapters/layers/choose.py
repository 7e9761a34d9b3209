"""Which layer an adapter on a module needs, and whether the module's owner reads its weight."""

import functools
import inspect
import re

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from adapters.layers.base import BasisLayer
from adapters.layers.linear import BasisLinear, computes_linear
from adapters.layers.parameter import BasisParameter, ParamWrapper

_SETTING_UP = frozenset(
    ("__init__", "_init_weights", "reset_parameters", "_reset_parameters", "tie_weights")
)
"""Methods that may read a weight without an effect on what the model computes."""
_ABOUT = r"(?!\s*\.\s*(?:dtype|device|shape|size|ndim|dim|is_\w+|requires_grad)\b)"
"""Not followed by a question about the tensor that is no use of its numbers."""


def choose_layer(module: nn.Module, parameter_name: str | None) -> type[BasisLayer] | None:
    """The class of layer for `module`, or None where none can be right.

    Args:
        module: What is to be adapted, which may carry adapters of another method.
        parameter_name: The parameter that the user named, of any module; None for its weight.
    """
    base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    name = parameter_name or "weight"
    if parameter_name is None and computes_linear(base):
        return BasisLinear
    held = base._parameters.get(name)
    if held is None or held.ndim < 2 or not held.is_floating_point():
        return None
    if isinstance(module, BaseTunerLayer) and not isinstance(module, BasisParameter):
        return None  # what another method computes from the base's parameter is not known
    if isinstance(base, nn.Embedding | nn.EmbeddingBag) and base.max_norm is not None:
        return None  # it rescales its table in place
    return BasisParameter if parameter_name is None else ParamWrapper


@functools.cache
def reads_weight(owner: type[nn.Module], child: str) -> bool:
    """Whether code of `owner` uses the numbers of `self.<child>.weight` in place of a call.

    `nn.MultiheadAttention` and the fast paths of `nn.TransformerEncoderLayer` and of Mamba do.
    """
    reads = re.compile(rf"\bself\.{re.escape(child)}\.weight\b{_ABOUT}")
    about = re.compile(rf"isinstance\(\s*self\.{re.escape(child)}\.weight\s*,")
    for name, method in inspect.getmembers_static(owner, inspect.isfunction):
        if name in _SETTING_UP or (hasattr(nn.Module, name) and name != "forward"):
            continue
        try:
            source = inspect.getsource(method)
        except (OSError, TypeError):  # made at run time
            continue
        if reads.search(about.sub("", source)):
            return True
    return False
