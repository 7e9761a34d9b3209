"""How many trials run at once, and which share of the machine each one gets."""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import studies

SLOTS_VARIABLE = "BASIS_ZOO_SLOTS"
"""Tells a trial how many share this machine: only times at the same number can be compared."""
STORAGE_VARIABLE = "BASIS_ZOO_STORAGE"
"""Address of the database that several hosts share, see `storage`."""
SECRETS = (STORAGE_VARIABLE, "PGPASSWORD")
"""Variables that a trial has no use for."""


def count_given(text: str) -> int:
    """What `--slots` says: 0 for auto.

    Raises `argparse.ArgumentTypeError` for anything but auto or a whole number of at least 1.
    """
    if text == "auto":
        return 0
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"expected auto or a whole number of at least 1, got {text!r}"
        )
    return int(text)


def cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus() -> int:
    """GPUs that this process may use; does not occupy any of them."""
    import torch  # takes seconds, and few of those who import this file ask

    return torch.cuda.device_count()


def gpu_names(variables: Mapping[str, str]) -> list[str]:
    """The GPUs that a process with these environment variables may use; [] without any."""
    named = [name for name in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named or [str(i) for i in range(gpus())]


def default_slots(gpus_per_trial: int = 1) -> int:
    """One trial for each `gpus_per_trial` GPUs; without a GPU one trial a core.

    A trial with one thread beats half as many with two: imports, tokenising and small products do
    not use the second.
    """
    return max(1, (gpus() or cores()) // gpus_per_trial)


def environment(slot: int, slots: int, gpus_per_trial: int = 1) -> dict[str, str]:
    """Variables for the trial in `slot` (0 to slots - 1); what the user has set stays.

    One thread a core over all slots, `gpus_per_trial` GPUs a slot in turn, and this checkout's
    packages.
    """
    variables = {name: value for name, value in os.environ.items() if name not in SECRETS}
    variables.setdefault("OMP_NUM_THREADS", str(max(1, cores() // slots)))
    variables.setdefault("TOKENIZERS_PARALLELISM", "false")
    variables[SLOTS_VARIABLE] = str(slots)
    if gpus():
        names = gpu_names(variables)
        first = slot * gpus_per_trial
        own = [names[i % len(names)] for i in range(first, first + gpus_per_trial)]
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    root = str(Path(studies.__file__).resolve().parents[1])
    paths = [root, *filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))]
    variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    return variables


def deterministic_variables(train: Mapping[str, Any]) -> dict[str, str]:
    """What the process of a trial with these `train` settings needs before CUDA starts."""
    return {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if train.get("deterministic") else {}
