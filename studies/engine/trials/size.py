"""How much a trial's trained adapter needs on the disk, before anything is trained."""

import json
from functools import lru_cache

from studies import backbones, tasks
from studies.engine.records import Trial


def expected_bytes(trial: Trial) -> int | None:
    """About what `trial` keeps, found without weights or rows; None where the backbone's
    configuration is not on this machine."""
    config = trial.config
    adapter = config.get("match", config["adapter"])  # which the size is chosen to come near
    sections = (config["backbone"], config["task"], adapter)
    return _expected(*(json.dumps(section, sort_keys=True) for section in sections))


@lru_cache(maxsize=256)
def _expected(backbone: str, task: str, adapter: str) -> int | None:
    from studies.engine.trials import keeping  # with torch and PEFT, which take seconds
    from studies.engine.trials.attaching import attached

    kind = tasks.HEADS[tasks.check(json.loads(task)).kind]
    try:
        file = backbones.config_file(json.loads(backbone))
        model = None if file is None else backbones.skeleton(file, kind)  # a head is small
        if model is None:
            return None
        tensors = keeping.tensors(attached(model, json.loads(adapter)))
    except Exception:  # what cannot be built is said by its trial
        return None
    return sum(tensor.nbytes for tensor in tensors.values())
