"""Put models and data into the cache, once, before several trials want them at the same time."""

import json
from collections.abc import Iterable

from studies import backbones, tasks
from studies.engine.records import Trial


def fetch_for(trials: Iterable[Trial]) -> None:
    """Fetch what `trials` need.

    Raises:
        studies.archives.ArchiveError: something cannot be had.
    """
    configs = [trial.config for trial in trials]
    for section, room in (("backbone", backbones), ("task", tasks)):
        for spec in sorted({json.dumps(config[section], sort_keys=True) for config in configs}):
            room.fetch(json.loads(spec))
