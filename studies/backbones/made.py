"""Backbones without weights of their own: one linear layer, for tasks that approximate a matrix."""

from dataclasses import dataclass

from basis_zoo.registry import Registry


@dataclass(frozen=True)
class Made:
    """A frozen weight W (out, in) of the shape that the task needs; every study has the same."""

    name: str
    summary: str
    gain: float
    """W is normal with the variance gain² / in."""


_MADE: Registry[Made] = Registry("backbone", Made, origin=lambda made: made.summary)
get_made = _MADE.find
list_made = _MADE.names
for _made in (
    Made("zero_matrix", "one linear layer, W = 0", 0.0),
    Made("random_matrix", "one linear layer, W normal with variance 1 / in", 1.0),
):
    _MADE.add(_made.name, _made)
