"""Why a trial that was run is none that is planned: study file, data, plug-in, another choice."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.engine.definition.contents import SECTIONS, source
from studies.engine.definition.points import overlap
from studies.engine.definition.study import Study
from studies.engine.labels import flat
from studies.engine.records import Trial, deciding


@dataclass(frozen=True)
class Cause:
    """What happened, in words for the person at the terminal."""

    what: str
    """s.yaml was edited"""
    arm: str
    """Of what was run: other settings or seeds"""
    back: str = ""
    """What would bring its trials back: undo the edit; "" for nothing"""


def causes(study: Study, old: Trial, new: Trial | None, arms: Collection[str]) -> tuple[Cause, ...]:
    """Why `old` is not `new`, the planned trial nearest to it; None: there is none.

    `arms` are those that are planned.
    """
    if old.stage == "search":
        became = "points of another search, and an edited one begins anew"
    else:
        became = "other settings or seeds" if old.arm in arms else "no longer in the study"
    edited = Cause(f"{study.path.name} was edited", became, "undo the edit")
    if new is None:
        return (edited,)
    reasons = [*_files(old, new), *_plugins(old, new)]
    paths = _differing(old.config, new.config)
    chosen = [path for tried in study.chosen.values() for path in tried]
    by_choice = all(any(overlap(path, each) for each in chosen) for path in paths)
    if paths and old.stage == "seeds" and by_choice:
        chose = "the stage before the seeds chose other settings"
        reasons.append(Cause(chose, "trained with what had been chosen before", edited.back))
    elif paths or not reasons:  # where all is the same, it was asked for in another space
        reasons.insert(0, edited)
    return tuple(reasons)


def _files(old: Trial, new: Trial) -> Iterator[Cause]:
    for section in SECTIONS:
        then, now = old.contents.get(section), new.contents.get(section)
        file = source(new.config, section)
        if then == now or file != source(old.config, section):
            continue  # another file is another setting
        if then is None:
            yield Cause(
                f"what {file} held was not noted before this version",
                f"trained with a {file} that may have held something else, and again now, since "
                "that cannot be told",
            )
        else:
            back = f"restore the old {file}"
            yield Cause(f"{file} was changed", f"trained with another content of {file}", back)


def _plugins(old: Trial, new: Trial) -> Iterator[Cause]:
    then, now = (
        {Path(file).name: digest for file, digest in zip(t.plugins, t.plugin_hashes, strict=False)}
        for t in (old, new)
    )
    for name in sorted({*then, *now}):
        if then.get(name) == now.get(name):
            continue
        plugin = f"plug-in {name}"
        if name not in now:
            yield Cause(f"{plugin} counts for arms that use it alone", f"trained with {name}")
        elif name not in then:
            yield Cause(f"{plugin} is used now", f"trained without {name}", f"leave {name} out")
        else:
            back = f"restore the old {name}"
            yield Cause(f"{plugin} was changed", f"trained with another {name}", back)


def _differing(*configs: dict[str, Any]) -> set[str]:
    """The dotted settings in which two configurations differ, as JSON has them."""
    one, other = (flat(json.loads(json.dumps(deciding(c), default=repr))) for c in configs)
    return {path for path in {*one, *other} if one.get(path, ...) != other.get(path, ...)}
