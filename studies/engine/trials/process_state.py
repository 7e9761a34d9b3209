"""What a trial may leave behind in its process, and what would change the numbers of the next."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

import psutil
import torch

from studies.engine.trials.training.cuda_graph import CudaGraph

OWN_VARIABLES = ("ACCELERATE_", "TORCHINDUCTOR_", "TRITON_", "KMP_")
"""Beginnings of environment variables that libraries set for themselves."""


def process_state() -> dict[str, Any]:
    """Settings of the process by name, comparable with those of another moment.

    Random states are not among them: a trial sets every seed.
    """
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "torch's threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch's grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "torch's determinism": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            (cudnn.deterministic, cudnn.benchmark),
        ),
        "torch's precision": (
            torch.get_float32_matmul_precision(),
            (cuda.allow_tf32, cuda.allow_bf16_reduced_precision_reduction, cudnn.allow_tf32),
        ),
        "torch's autocast": torch.is_autocast_enabled("cpu"),
        "torch's anomaly detection": torch.is_anomaly_enabled(),
        "denormal numbers": float(torch.tensor(1e-40) * 1) != 0.0,
        "the environment": {
            name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)
        },
        "the working directory": os.getcwd(),
        "the path of imports": tuple(sys.path),
        "the recursion limit": sys.getrecursionlimit(),
        "garbage collection": gc.isenabled(),
        "signal handlers": [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)],
        "threads": frozenset(t.name for t in threading.enumerate() if not t.daemon),
        "captures of CUDA graphs that failed": CudaGraph.failures,
        "child processes": frozenset(child.pid for child in psutil.Process().children()),
    }


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names of what is not as it was before."""
    return [name for name, value in before.items() if after[name] != value]
