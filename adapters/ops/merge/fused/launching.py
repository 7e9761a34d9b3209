"""Launches that skip Triton's work on every call: what it chose for like arguments is kept."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from triton.runtime.jit import JITFunction


class Constants:
    """What a kernel is compiled for; equal to itself alone, so that a lookup costs nothing."""

    __slots__ = ("values",)

    def __init__(self, **values: Any) -> None:
        self.values = values
        """The kernel's constants in the order of its parameters, and Triton's options."""


class Launcher:
    """A kernel whose parameters are tensors, then free numbers, then sizes, then constants.

    Triton looks at every argument of every call to choose among its compilations, which takes the
    host longer than a small kernel takes the GPU. The choice depends on dtypes, on whether
    pointers are multiples of 16, on sizes and constants; those are compared here in one lookup.
    """

    def __init__(self, kernel: JITFunction) -> None:
        self.kernel = kernel
        self._compiled: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}

    def __call__(
        self,
        grid: tuple[int, ...],
        tensors: Sequence[Tensor],
        free: tuple[float, ...],
        sizes: tuple[int, ...],
        constants: Constants,
    ) -> None:
        """Run on the current stream of the device of the tensors.

        Args:
            grid: Programs along each axis.
            tensors: What the kernel reads and writes.
            free: Numbers that Triton does not look at: floats, and ints it is told not to.
            sizes: Numbers that Triton specializes on.
            constants: The same object for the same constants.
        """
        first = tensors[0]
        if not first.is_cuda:  # Triton's interpreter
            self.kernel[grid](*tensors, *free, *sizes, **constants.values)
            return
        if first.get_device() != torch.cuda.current_device():
            with torch.cuda.device(first.device):
                self(grid, tensors, free, sizes, constants)
            return
        tensor_kinds = [(t.dtype, t.data_ptr() & 15 == 0) for t in tensors]
        key = (tensors[0].get_device(), constants, *tensor_kinds, *sizes)
        entry = self._compiled.get(key)
        if entry is not None:
            compiled, tail = entry
            compiled[grid](*tensors, *free, *sizes, *tail)
            return
        compiled = self.kernel[grid](*tensors, *free, *sizes, **constants.values)
        names = self.kernel.arg_names[len(tensors) + len(free) + len(sizes) :]
        self._compiled[key] = compiled, tuple(constants.values[name] for name in names)
