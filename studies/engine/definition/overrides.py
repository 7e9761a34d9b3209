"""`--set KEY=VALUE`: settings of a whole study, from the command line.

They lie above file and profile and below the arms: an arm that sets a key keeps its own value. What
decides numbers is part of every trial's configuration, so the study has a folder and a page of its
own then, as under another profile: `embedded+adapter.start=paper`.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from basis_zoo.registry import SYNONYMS
from studies.engine.definition import checks, layers
from studies.engine.definition.points import (
    SECTIONS,
    Point,
    Problems,
    expand,
    is_multiple,
    overlap,
)
from studies.engine.definition.study import Study, StudyBody
from studies.engine.definition.yaml_source import Entries, parse_scalar, parse_value
from studies.engine.errors import StudyError
from studies.engine.labels import short_value
from studies.sections import unlike

WITHOUT_NUMBERS = ("seeds", "keep", "budget")
"""Sections that change no trial: with another value the study goes on where it is."""
PLACE = "--set"
"""Where such a setting stands, as a problem of it says."""
SETTABLE = (*SECTIONS, "split_seed", "tune", "search", "after", *WITHOUT_NUMBERS)
DOTTED = ("tune.", "search.space.")
"""Sections whose keys are dotted settings."""
_LONGEST = 80  # of a folder's name


def parsed(given: Sequence[str]) -> dict[str, Any]:
    """The settings in arguments such as `adapter.start=paper`, by key.

    Raises `StudyError` where one is no KEY=VALUE, is given twice, or belongs into a study file.
    """
    values: dict[str, Any] = {}
    for text in given:
        key, sign, value = text.partition("=")
        key = key.strip()
        section, _, rest = key.partition(".")
        if not sign or not section:
            raise StudyError(f"--set {text!r}: expected KEY=VALUE, e.g. adapter.start=paper")
        if key in values:
            raise StudyError(f"--set {key}: given twice; say it once")
        if section in StudyBody.model_fields and section not in SETTABLE:
            raise StudyError(
                f"--set {key}: `{section}` says what the study asks: write a study file of your "
                f"own. To be set: {', '.join(SETTABLE)}"
            )
        if section not in SETTABLE:
            meant = {key, *(name for name, others in SYNONYMS.items() if key in others.split())}
            where = [
                f"{own}.{name}"
                for own, model in SECTIONS.items()
                for name in (model.model_fields if model else ())
                if name in meant
            ]
            if where:
                raise StudyError(f"--set {key}: unknown key. Did you mean {' or '.join(where)}?")
            raise StudyError(unlike(f"--set {key}: unknown key", section, SETTABLE, "To be set"))
        if not rest and section in ("adapter", "train", "budget"):
            raise StudyError(f"--set {key}: name one setting, e.g. {_EXAMPLES[section]}")
        values[key] = parse_value(value, PLACE)
    return {key: values[key] for key in sorted(values)}  # a section comes before what is in it


_EXAMPLES = {"adapter": "adapter.r=4", "train": "train.epochs=1", "budget": "budget.retries=1"}


def labelled(profile: str, settings: Mapping[str, Any]) -> str:
    """`profile` and what of `settings` decides numbers, as the name of a folder."""
    deciding = {k: v for k, v in settings.items() if k.partition(".")[0] not in WITHOUT_NUMBERS}
    text = "+".join([profile, *(f"{key}={short_value(value)}" for key, value in deciding.items())])
    name = re.sub(r"[^A-Za-z0-9_.=+-]", "-", text)
    whole = all(repr(parse_scalar(short_value(v))) == repr(v) for v in deciding.values())
    if name == text and whole and len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:8]
    return f"{name[: _LONGEST - 9]}-{digest}"


def laid_on(tree: Entries, settings: Mapping[str, Any]) -> Entries:
    """`tree` with `settings`; those of the adapter are left to each arm's method, but `method`."""
    for key, value in settings.items():
        if key.startswith("adapter.") and key != "adapter.method":
            continue
        keys, over = _keys(key), value
        for each in reversed(keys):
            over = Entries({each: over}, {each: PLACE})
        if isinstance(value, dict):  # it takes the place of what was there
            tree = _without(tree, keys)
        tree = layers.overlay(tree, over)
    return tree


def _keys(key: str) -> list[str]:
    for section in DOTTED:
        if key.startswith(section):
            return [*section.rstrip(".").split("."), key.removeprefix(section)]
    return key.split(".")


def _without(tree: Entries, keys: Sequence[str]) -> Entries:
    first, *rest = keys
    inner = tree.get(first)
    if rest and isinstance(inner, Entries):
        return Entries(tree | {first: _without(inner, rest)}, tree.places)
    return Entries({key: value for key, value in tree.items() if key != first}, tree.places)


def check(study: Study, points: Sequence[Point], problems: Problems) -> None:
    """Report settings that a stage or the sweep sets too, and those that reach no arm."""
    for key in study.set:
        axes = [axis for axis in study.sweep if overlap(key, axis)]
        # multiples are of what is set here, so they go with it
        compared = [axis for axis in axes if not all(map(is_multiple, study.sweep[axis]))]
        for axis in compared:
            values = ", ".join(map(short_value, study.sweep[axis]))
            problems.add(PLACE, key, (
                f"the study compares values of {axis}: {values}. `--only {axis}=VALUE` runs one"
                " of them; for others write a study file of your own"
            ))  # fmt: skip
        for section, chosen in study.chosen.items():
            for axis in chosen:
                if overlap(key, axis):
                    given = ".".join((*section, axis))
                    message = f"the study chooses it: give {given}=[VALUE] instead"
                    problems.add(PLACE, key, message)
        reach = _Reach(key, points)
        if points and not reach.reached and not compared:
            problems.add(PLACE, key, _reaches_none(key, reach, points))


def _reaches_none(key: str, reach: "_Reach", points: Sequence[Point]) -> str:
    if who := " and ".join(each for each in ("arms", "tasks") if getattr(reach, each)):
        return f"all {who} to which it applies set it themselves: nothing would change"
    methods = dict.fromkeys(str(point.config["adapter"].get("method")) for point in points)
    options = dict.fromkeys(name for method in methods for name in checks.options_of(method))
    option = key.split(".")[1]
    return unlike(f"no method of the study has an option '{option}'", option, options)


def notices(study: Study, option: str) -> list[str]:
    """What is said before a study runs: what `option` set, and claims that are not asked."""
    leaves = "not asked under this profile, which leaves out an arm of it"
    lines = [f"{option} {line}" for line in remarks(study)]
    return lines + [f"{leaves}: {claim}" for claim in study.unasked]


def remarks(study: Study) -> list[str]:
    """A line for each setting: what it is, and which arms and tasks it leaves as they are."""
    lines, points = [], expand(study)[0] if study.set else []
    for key, value in study.set.items():
        reach = _Reach(key, points)
        but = [f"{_names(reach.arms)}, which {_itself(reach.arms)}"] if reach.arms else []
        but += [f"{_names(reach.other)}, whose method has no such option"] if reach.other else []
        if reach.tasks:
            what = "a task that" if len(reach.tasks) == 1 else "tasks that"
            but.append(f"on {_names(reach.tasks)}, {what} {_itself(reach.tasks)}")
        whole = f" in all arms but {', and '.join(but)}" if but else ""
        times = dict.fromkeys(p.arm for p in points if any(overlap(key, f) for f in p.factors))
        have = "has" if len(times) == 1 else "have"
        whole += f"; {_names(times)} {have} a multiple of it" if times else ""
        lines.append(f"{key}={short_value(value)}{whole}")
    return lines


def _itself(names: Collection[str]) -> str:
    return "sets it itself" if len(names) == 1 else "set it themselves"


def _names(arms: Iterable[str]) -> str:
    return ", ".join(f"'{arm}'" for arm in arms)


class _Reach:
    """What `key` comes to: names, each once."""

    def __init__(self, key: str, points: Sequence[Point]) -> None:
        self.reached, self.arms, self.tasks, self.other = (dict[str, None]() for _ in range(4))
        """Arms that have it, or a multiple of it, on some task; arms, and tasks, that set it
        themselves; arms whose method does not know it."""
        for point in points:
            own = [p for p in point.places if overlap(key, p) and p not in point.factors]
            if any(path in point.swept for path in own):
                self.arms[point.arm] = None
            elif own:
                self.tasks[point.task] = None
            elif layers.takes(point.config["adapter"].get("method"), key):
                self.reached[point.arm] = None
            else:
                self.other[point.arm] = None
