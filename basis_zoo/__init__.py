"""A zoo of learnable one-dimensional bases: families, grids, starts, and the phi they make.

Names are imported on first use: `basis_zoo.registry` is needed where torch is not.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = ("basis", "grids", "input_scale", "nonlinearity", "phi", "starts")

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


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("basis_zoo.version").installed_version()
    if name in ("families", *_MODULES):
        return importlib.import_module(f"{__name__}.{name}")
    if name in __all__:
        for module in _MODULES:
            names = vars(importlib.import_module(f"{__name__}.{module}"))
            if name in names:
                globals()[name] = names[name]
                return names[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
