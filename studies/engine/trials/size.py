"""How much a trial's trained adapter needs on the disk, before anything is trained."""

import json
from functools import lru_cache
from typing import Any

from studies import backbones, tasks
from studies.engine.records import Trial
from studies.engine.trials import keeping
from studies.engine.trials.attaching import attached


def expected_bytes(trial: Trial) -> int | None:
    """About what `trial` keeps, found without weights or rows; None where the backbone's
    configuration is not on this machine."""
    config = trial.config
    adapter = config.get("match", config["adapter"])  # which the size is chosen to come near
    sections = (config["backbone"], config["task"], adapter)
    return _expected(*(json.dumps(section, sort_keys=True) for section in sections))


@lru_cache(maxsize=256)
def _expected(backbone: str, task: str, adapter: str) -> int | None:
    kind = tasks.HEADS[tasks.check(json.loads(task)).kind]
    labels = ("one", "other")  # a head's share is small, and its rows are not read
    head = backbones.Head(kind, labels if kind.endswith("classes") else ())
    try:
        model: Any = backbones.outline(json.loads(backbone), head)
        if model is None:
            return None
        tensors = keeping.tensors(attached(model, json.loads(adapter)))
    except Exception:  # what cannot be built is said by its trial
        return None
    return sum(tensor.nbytes for tensor in tensors.values())
