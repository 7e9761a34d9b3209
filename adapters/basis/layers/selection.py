"""Which layer an adapter on a module needs."""

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from adapters.basis.layers.base import BasisLayer
from adapters.basis.layers.linear import BasisLinear
from adapters.basis.layers.parameter import BasisParameter, ParamWrapper
from adapters.placement.inspection import base_of, computes_linear


def choose_layer(module: nn.Module, parameter_name: str | None) -> type[BasisLayer] | None:
    """The class of layer for `module`, or None where none can be right.

    The module may carry adapters of another method; `parameter_name` is what the user named, or
    None for its weight.
    """
    base = base_of(module)
    name = parameter_name or "weight"
    if parameter_name is None and computes_linear(base):
        return BasisLinear
    parameter = base._parameters.get(name)
    if parameter is None or parameter.ndim < 2 or not parameter.is_floating_point():
        return None
    if isinstance(module, BaseTunerLayer) and not isinstance(module, BasisParameter):
        return None  # what another method computes from the base's parameter is not known
    if isinstance(base, nn.Embedding | nn.EmbeddingBag) and base.max_norm is not None:
        return None  # it rescales its table in place
    return BasisParameter if parameter_name is None else ParamWrapper
