"""`--set KEY=VALUE`: settings of a whole study, from the command line.

They lie above file and profile and below the arms: an arm that sets a key keeps its own value. What
decides numbers is part of every trial's configuration, so the study has a folder and a page of its
own then, as under another profile: `embedded+adapter.start=paper`.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from studies.engine.definition import checks, layers
from studies.engine.definition.points import SECTIONS, Point, Problems, expand
from studies.engine.definition.study import Study, StudyBody
from studies.engine.definition.yaml_source import Entries, parse_scalar, parse_value
from studies.engine.errors import StudyError
from studies.engine.labels import shown
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

    Raises:
        StudyError: one is no KEY=VALUE, is given twice, or belongs into a study file.
    """
    found: dict[str, Any] = {}
    for text in given:
        key, sign, value = text.partition("=")
        key = key.strip()
        section, _, rest = key.partition(".")
        if not sign or not section:
            raise StudyError(f"--set {text!r}: expected KEY=VALUE, e.g. adapter.start=paper")
        if key in found:
            raise StudyError(f"--set {key}: given twice; say it once")
        if section in StudyBody.model_fields and section not in SETTABLE:
            raise StudyError(
                f"--set {key}: `{section}` says what the study asks: write a study file of your "
                f"own. To be set: {', '.join(SETTABLE)}"
            )
        if section not in SETTABLE:
            known = {own: model for own, model in SECTIONS.items() if model is not None}
            where = [f"{own}.{key}" for own, model in known.items() if key in model.model_fields]
            if where:
                raise StudyError(f"--set {key}: unknown key. Did you mean {' or '.join(where)}?")
            raise StudyError(unlike(f"--set {key}: unknown key", section, SETTABLE, "To be set"))
        if not rest and section in ("adapter", "train", "budget"):
            raise StudyError(f"--set {key}: name one setting, e.g. {_EXAMPLES[section]}")
        found[key] = parse_value(value, PLACE)
    return {key: found[key] for key in sorted(found)}  # a section comes before what is in it


_EXAMPLES = {"adapter": "adapter.r=4", "train": "train.epochs=1", "budget": "budget.retries=1"}


def labelled(profile: str, settings: Mapping[str, Any]) -> str:
    """`profile` and what of `settings` decides numbers, as the name of a folder."""
    told = {k: v for k, v in settings.items() if k.partition(".")[0] not in WITHOUT_NUMBERS}
    text = "+".join([profile, *(f"{key}={shown(value)}" for key, value in told.items())])
    name = re.sub(r"[^A-Za-z0-9_.=+-]", "-", text)
    whole = all(repr(parse_scalar(shown(value))) == repr(value) for value in told.values())
    if name == text and whole and len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    return f"{name[: _LONGEST - 9]}-{digest}"


def laid_on(tree: Entries, settings: Mapping[str, Any]) -> Entries:
    """`tree` with `settings`; those of the adapter are left to each arm's method, but `method`."""
    for key, value in settings.items():
        if key.startswith("adapter.") and key != "adapter.method":
            continue
        keys, over = _keys(key), value
        for each in reversed(keys):
            over = Entries({each: over})
            over.places = {each: PLACE}
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
        kept = layers.part(tree, dict(tree))
        kept[first] = _without(inner, rest)
        return kept
    return layers.part(tree, {key: value for key, value in tree.items() if key != first})


def check(study: Study, points: Sequence[Point], problems: Problems) -> None:
    """Report settings that a stage or the sweep sets too, and those that reach no arm."""
    for key in study.set:
        for axis in study.sweep:
            if _overlap(key, axis):
                values = ", ".join(map(shown, study.sweep[axis]))
                problems.add(PLACE, key, (
                    f"the study compares values of {axis}: {values}. `--only {axis}=VALUE` runs one"
                    " of them; for others write a study file of your own"
                ))  # fmt: skip
        space = {} if study.search is None else study.search.space
        for section, chosen in (("tune", study.tune), ("search.space", space)):
            for axis in chosen:
                if _overlap(key, axis):
                    message = f"the study chooses it: give {section}.{axis}=[VALUE] instead"
                    problems.add(PLACE, key, message)
        reached, own, _ = _arms(key, points)
        swept = any(_overlap(key, axis) for axis in study.sweep)
        if points and not reached and not swept:
            problems.add(PLACE, key, _reaches_none(key, own, points))


def _reaches_none(key: str, own: Sequence[str], points: Sequence[Point]) -> str:
    if own:
        return "all arms to which it applies set it themselves: nothing would change"
    methods = dict.fromkeys(str(point.config["adapter"].get("method")) for point in points)
    options = dict.fromkeys(name for method in methods for name in checks.options_of(method))
    option = key.split(".")[1]
    return unlike(f"no method of the study has an option '{option}'", option, options)


def remarks(study: Study) -> list[str]:
    """A line for each setting: what it is, and which arms it leaves as they are."""
    lines, points = [], expand(study)[0] if study.set else []
    for key, value in study.set.items():
        _, own, other = _arms(key, points)
        itself = "sets it itself" if len(own) == 1 else "set it themselves"
        but = [f"{_names(own)}, which {itself}"] if own else []
        but += [f"{_names(other)}, whose method has no such option"] if other else []
        whole = f" in all arms but {', and '.join(but)}" if but else ""
        lines.append(f"{key}={shown(value)}{whole}")
    return lines


def _names(arms: Iterable[str]) -> str:
    return ", ".join(f"'{arm}'" for arm in arms)


def _arms(key: str, points: Sequence[Point]) -> tuple[list[str], list[str], list[str]]:
    """The arms that `key` reaches, those that set it themselves, and those that do not know it."""
    reached: list[str] = []
    own: list[str] = []
    other: list[str] = []
    for point in points:
        if any(_overlap(key, path) for path in point.places):
            own.append(point.arm)
        elif layers.takes(point.config["adapter"].get("method"), key):
            reached.append(point.arm)
        else:
            other.append(point.arm)
    return reached, own, other


def _overlap(one: str, other: str) -> bool:
    """Whether one of two dotted paths leads to the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
