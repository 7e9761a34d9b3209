"""A zoo of learnable one-dimensional bases: families, grids, starts, and the phi they make."""

from basis_zoo import families
from basis_zoo.basis import (
    Basis,
    Claim,
    LinearBasis,
    LocationScaleBasis,
    get_basis,
    list_bases,
    register_basis,
)
from basis_zoo.grids import Grid, get_grid, list_grids, register_grid
from basis_zoo.input_scale import InputScale
from basis_zoo.nonlinearity import Nonlinearity
from basis_zoo.phi import Phi, PhiParameters, stack_parameters
from basis_zoo.starts import Start, StartValues, get_start, list_starts, register_start

__all__ = [
    "Basis",
    "Claim",
    "Grid",
    "InputScale",
    "LinearBasis",
    "LocationScaleBasis",
    "Nonlinearity",
    "Phi",
    "PhiParameters",
    "Start",
    "StartValues",
    "families",
    "get_basis",
    "get_grid",
    "get_start",
    "list_bases",
    "list_grids",
    "list_starts",
    "register_basis",
    "register_grid",
    "register_start",
    "stack_parameters",
]
