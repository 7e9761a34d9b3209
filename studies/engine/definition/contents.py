"""What a trial reads of the user's own files: their content is part of its key, as plug-ins' is."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from studies import backbones, tasks
from studies.engine.definition import saved_phi
from studies.engine.errors import ChangedError
from studies.engine.records import Trial

SECTIONS = ("backbone", "task", "train")
"""What may name files of the user's."""


class Contents:
    """Looks at each file once, so that all stages of a command see the same."""

    def __init__(self) -> None:
        self._known: dict[str, str | None] = {}

    def of(self, config: Mapping[str, Any]) -> dict[str, str]:
        """The sha256 of what each section of `config` reads; none where it is of this project."""
        digests = {}
        for section, room in (("backbone", backbones), ("task", tasks)):
            name = json.dumps([section, config[section]], sort_keys=True)
            if name not in self._known:
                self._known[name] = room.content(config[section])
            digests[section] = self._known[name]
        if folder := config.get("train", {}).get("load_phi"):
            name = json.dumps(["train", folder])
            digests["train"] = self._known.setdefault(name, saved_phi.content(folder))
        return {section: digest for section, digest in digests.items() if digest is not None}

    @property
    def identity(self) -> str:
        """8 hex digits of all that was found; "" where none of it is of the user's."""
        own = sorted((name, digest) for name, digest in self._known.items() if digest is not None)
        return hashlib.sha256(json.dumps(own).encode()).hexdigest()[:8] if own else ""


def check_contents(trial: Trial) -> None:
    """Raise `ChangedError` where a file is not what it was when `trial` was planned."""
    if not trial.contents:
        return  # of an earlier version, which did not look
    now = Contents().of(trial.config)
    for section in SECTIONS:
        if now.get(section) != trial.contents.get(section):
            raise ChangedError(
                f"{source(trial.config, section)} does not hold what it held when this trial was "
                "planned: run the same command again; on another machine, bring the same file there"
            )


def source(config: Mapping[str, Any], section: str) -> str:
    """The file or folder that `section` of `config` names, as it names it."""
    entry = config.get(section)
    if section == "train":
        return str(entry.get("load_phi") if isinstance(entry, Mapping) else entry)
    return str(entry.get("data") or entry.get("name") if isinstance(entry, Mapping) else entry)
