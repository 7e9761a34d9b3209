"""Types for what torch leaves without: decorators, and dictionaries of modules of one class."""

from collections.abc import Callable, ValuesView
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import nn

F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M", bound=nn.Module)


def never_compiled(function: F) -> F:
    """`torch.compiler.disable` as a decorator that keeps the function's type."""
    disabled: F = torch.compiler.disable(function)
    return disabled


if TYPE_CHECKING:

    class ModulesOf(nn.ModuleDict, Generic[M]):
        """A `nn.ModuleDict` all of whose modules are of one class; only checkers know it."""

        def __getitem__(self, key: str) -> M:
            """The module `key`."""

        def values(self) -> ValuesView[M]:
            """All modules."""
