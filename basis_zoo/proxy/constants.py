"""Tensors that depend on sizes alone: made once, kept for all who ask."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor


def constant(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`make`, called once for the same arguments; what it returns serves training everywhere.

    A tensor made in inference mode would not, and it must not matter which caller asks first.
    """
    return functools.lru_cache(maxsize=64)(torch.inference_mode(False)(make))
