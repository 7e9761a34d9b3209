"""The layers that carry adapters: one matrix of a module each."""

from adapters.layers.base import BasisLayer
from adapters.layers.choose import choose_layer
from adapters.layers.linear import BasisLinear
from adapters.layers.parameter import BasisParameter

__all__ = ["BasisLayer", "BasisLinear", "BasisParameter", "choose_layer"]
