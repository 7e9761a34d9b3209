"""How many trials run at once, and which share of the machine each one gets."""

import argparse
import os
from pathlib import Path

from studies.engine.trials import devices
from studies.engine.trials.devices import SLOTS_VARIABLE

STORAGE_VARIABLE = "BASIS_ZOO_STORAGE"
"""Optuna's storage, where that is not the file in the runs folder."""
SECRETS = (STORAGE_VARIABLE, "RAY_AUTH_TOKEN")
"""What a trial has no use for."""


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


def default_slots(gpus_per_trial: int = 1) -> int:
    """One trial for each `gpus_per_trial` GPUs; without a GPU one trial a core.

    A trial with one thread beats half as many with two: imports, tokenising and small products do
    not use the second.
    """
    return max(1, (devices.gpus() or devices.cores()) // gpus_per_trial)


def environment(slot: int, slots: int, gpus_per_trial: int = 1) -> dict[str, str]:
    """Variables for the trial in `slot` (0 to slots - 1); what the user has set stays.

    One thread a core over all slots, `gpus_per_trial` GPUs a slot in turn, and this checkout's
    packages.
    """
    variables = common_environment(slots)
    variables.setdefault("OMP_NUM_THREADS", str(max(1, devices.cores() // slots)))
    if devices.gpus():
        names = devices.gpu_names(variables)
        first = slot * gpus_per_trial
        own = [names[i % len(names)] for i in range(first, first + gpus_per_trial)]
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    return variables


def common_environment(slots: int) -> dict[str, str]:
    """What every trial on this machine gets, where `slots` run at once; its share comes on top."""
    variables = {name: value for name, value in os.environ.items() if name not in SECRETS}
    variables.setdefault("TOKENIZERS_PARALLELISM", "false")
    variables[SLOTS_VARIABLE] = str(slots)
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))]
    variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    return variables
