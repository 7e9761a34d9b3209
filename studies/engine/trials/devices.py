"""Cores and GPUs that a process may use, and the variables that must be set before it starts."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_DEV = Path("/dev")
SLOTS_VARIABLE = "BASIS_ZOO_SLOTS"
"""Tells a trial how many share this machine: only times at the same number can be compared."""


def cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_GPU_FILES = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")
"""What Linux has in /dev where torch may find a GPU: of NVIDIA, Jetson, AMD, and in Windows."""


def gpus() -> int:
    """GPUs that this process may use; does not occupy any of them."""
    if sys.platform == "linux" and not any(any(_DEV.glob(name)) for name in _GPU_FILES):
        return 0
    import torch  # takes seconds, and a machine without GPUs need not wait for it

    return torch.cuda.device_count()


def gpu_names(variables: Mapping[str, str]) -> list[str]:
    """The GPUs that a process with these environment variables may use; [] without any."""
    named = [name for name in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named or [str(i) for i in range(gpus())]


def deterministic_variables(train: Mapping[str, Any]) -> dict[str, str]:
    """What the process of a trial with these `train` settings needs before CUDA starts."""
    return {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if train.get("deterministic") else {}
