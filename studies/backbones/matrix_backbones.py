"""Backbones without weights of their own: one linear layer, for tasks that approximate a matrix."""

from dataclasses import dataclass

from basis_zoo.registry import Registry


@dataclass(frozen=True)
class MatrixBackbone:
    """A frozen weight W (out, in) of the shape that the task needs; every study has the same."""

    name: str
    summary: str
    gain: float
    """W is normal with the variance gain² / in."""


_REGISTRY: Registry[MatrixBackbone] = Registry(
    "backbone", MatrixBackbone, origin=lambda each: each.summary
)
get_matrix_backbone = _REGISTRY.find
list_matrix_backbones = _REGISTRY.names
for _backbone in (
    MatrixBackbone("zero_matrix", "one linear layer, W = 0", 0.0),
    MatrixBackbone("random_matrix", "one linear layer, W normal with variance 1 / in", 1.0),
):
    _REGISTRY.add(_backbone.name, _backbone)
