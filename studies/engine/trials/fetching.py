"""Models and data before the first trial: in the cache, once, and a user's own files checked."""

import json
from collections.abc import Iterable

from studies import backbones, tasks
from studies.engine.definition.checks import is_at_hand
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


def absent(trials: Iterable[Trial]) -> list[Trial]:
    """Those of `trials` whose backbone could not be looked at, as it is still to be fetched."""
    return [trial for trial in trials if not is_at_hand(trial.config["backbone"])]


def check_data(trials: Iterable[Trial]) -> list[str]:
    """Read the files of the user's that `trials` train on; lines that tell what is in them.

    Raises:
        ValueError: a row cannot be used, or there are too few; the message is for the user.
    """
    wanted = {
        (json.dumps(trial.config["task"], sort_keys=True), trial.config.get("split_seed", 0))
        for trial in trials
    }
    lines: list[str] = []
    for task, split_seed in sorted(wanted):
        spec = json.loads(task)
        if tasks.is_local(spec):
            described = tasks.describe(tasks.load(spec, split_seed))
            lines += [tasks.sizes(described), *tasks.findings(described)]
    return list(dict.fromkeys(lines))
