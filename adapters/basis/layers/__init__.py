"""The layers that carry adapters: one matrix of a module each."""

from adapters.basis.layers.base import BasisLayer
from adapters.basis.layers.linear import BasisLinear
from adapters.basis.layers.parameter import BasisParameter
from adapters.basis.layers.selection import choose_layer

__all__ = ["BasisLayer", "BasisLinear", "BasisParameter", "choose_layer"]
