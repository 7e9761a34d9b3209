"""The points of a study: every arm with its configuration resolved."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from studies.backbones import BackboneSpec
from studies.engine import labels
from studies.engine.definition.layers import NAMED, inherited, takes
from studies.engine.definition.shipped import PROFILES
from studies.engine.definition.study import Study
from studies.engine.definition.train import Train
from studies.sections import NamedSection, Section, dotted, reason, unlike
from studies.tasks import TaskSpec

MAX_ARMS = 10_000
TIMES = "times"
"""`{times: 0.5}` instead of a value: half of what the study has there."""

SECTIONS: Mapping[str, type[Section] | None] = {
    "backbone": BackboneSpec,
    "task": TaskSpec,
    "adapter": None,
    "train": Train,
}
"""What a dotted path may start with, and the model of what follows; `split_seed` stands alone."""


OPEN = ("train.penalties.",)
"""What the dotted paths of settings with names of the reader's own begin with."""


class Problems(list[str]):
    """Lines `place: key: message` about `study`, each once."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def add(self, place: str, key: str, message: str) -> None:
        """Add a line unless it is there already."""
        line = f"{place}: {key}: {' '.join(message.split())}"
        # by its last parts: a file that was read before is shown as from the folder of that time
        if Path(place.rpartition(":")[0]).parts[-3:-1] == PROFILES.parts[-2:]:
            line += f" (the profile's: the study may set `{key}` itself)"
        if line not in self:
            self.append(line)

    def at(self, message: str, *where: str | int) -> None:
        """Add a line about the part of the file that `where` leads to."""
        self.add(self._study.place(*where), dotted(where), message)


@dataclass(frozen=True)
class Point:
    """One arm: what it is called, what it changes, and what results."""

    arm: str
    swept: dict[str, Any]
    config: dict[str, Any]
    place: str
    """Where the arm stands in the file."""
    places: dict[str, str] = field(default_factory=dict)
    """Dotted setting to where this arm sets it."""
    refused: frozenset[str] = frozenset()
    """Sections that do not validate, which is reported already."""
    factors: dict[str, float] = field(default_factory=dict)
    """Dotted setting to what it is multiplied by, also where a stage chooses it."""
    task: str = ""
    """Which of the study's `tasks` it is trained on; empty where there is one alone."""

    @property
    def cell(self) -> tuple[str, str]:
        """Arm and task."""
        return self.arm, self.task


@dataclass(frozen=True)
class _Written:
    """An arm as the file has it."""

    name: str
    where: tuple[str | int, ...]
    """Keys that lead to it."""
    adapter: dict[str, Any]
    settings: dict[str, Any]
    places: dict[str, str]
    """Dotted setting to where the arm sets it."""

    def is_meant_by(self, entry: Mapping[str, Any] | str) -> bool:
        """Whether `entry` of `exclude` names it, or describes it as a point of the sweep."""
        if isinstance(entry, str):
            return entry == self.name
        return self.where == ("sweep",) and entry.items() <= self.settings.items()


def expand(study: Study) -> tuple[list[Point], Problems]:
    """The arms of `study` on every task, sweep first, and every problem found in resolving them."""
    problems = Problems(study)
    points: list[Point] = []
    arms = _not_excluded(study, [*_swept(study, problems), *_made_by_hand(study)], problems)
    for i in range(max(1, len(study.tasks))):
        on = _Task(study, i, problems)
        on.refuse(study.sweep, problems, "sweep")
        own = [_point(study, on, arm, problems) for arm in arms]
        reference = next((point for point in own if point.arm == study.baseline), None)
        if study.match is not None and reference is not None:
            for point in own:
                if point is not reference:
                    point.config["match"] = dict(reference.config["adapter"])
        points += own
    return points, problems


def _swept(study: Study, problems: Problems) -> Iterator[_Written]:
    for path in study.sweep:
        _check_path(path, problems, "sweep", path)
    arms = math.prod(len(values) for values in study.sweep.values())
    if arms > MAX_ARMS:
        message = f"{arms:,} arms are too many, the limit is {MAX_ARMS:,}: shorten the lists"
        problems.at(message, "sweep")
        return
    choices = itertools.product(*(enumerate(values) for values in study.sweep.values()))
    for choice in choices if study.sweep else ():
        taken = dict(zip(study.sweep, choice, strict=True))
        settings = {path: value for path, (_, value) in taken.items()}
        places = {path: study.place("sweep", path, i) for path, (i, _) in taken.items()}
        yield _Written(labels.short_settings(settings), ("sweep",), {}, settings, places)


def _made_by_hand(study: Study) -> Iterator[_Written]:
    for i, arm in enumerate(study.arms):
        places = {f"adapter.{key}": study.place("arms", i, "adapter", key) for key in arm.adapter}
        places |= {path: study.place("arms", i, "set", path) for path in arm.set}
        yield _Written(arm.name, ("arms", i), arm.adapter, arm.set, places)


def _not_excluded(study: Study, arms: list[_Written], problems: Problems) -> list[_Written]:
    """Those of `arms` that `exclude` leaves; reports its entries that leave nothing out."""
    hits = [[i for i, each in enumerate(study.exclude) if arm.is_meant_by(each)] for arm in arms]
    for i in set(range(len(study.exclude))).difference(*hits):
        if isinstance(entry := study.exclude[i], str):
            message = no_arm(entry, [arm.name for arm in arms])
        else:
            message = f"{entry} leaves out no point of the sweep; give values that it has"
        problems.at(message, "exclude", i)
    return [arm for arm, hit in zip(arms, hits, strict=True) if not hit]


class _Task:
    """What the study's task number `i` sets; nothing where the study has one alone."""

    def __init__(self, study: Study, i: int, problems: Problems) -> None:
        self.name, self.settings, self.places = "", dict[str, Any](), dict[str, str]()
        if study.tasks:
            task, where = study.tasks[i], ("tasks", i)
            self.name, self.settings = task.name, {"task.name": task.name} | task.set
            self.places = {"task.name": study.place(*where)}
            self.places |= {path: study.place(*where, "set", path) for path in task.set}
            for path in task.set:
                _check_path(path, problems, *where, "set", path)

    def refuse(self, settings: Mapping[str, Any], problems: Problems, *where: str | int) -> None:
        """Report those of an arm's `settings`, found at `where`, that the task sets too."""
        for path in settings:
            for own in self.settings:
                if overlap(own, path):
                    message = f"the task '{self.name}' sets {own} itself: remove it there or here"
                    problems.at(message, *where, path)


def no_arm(name: str, arms: Iterable[str]) -> str:
    """That none of `arms` is called `name`."""
    return unlike(f"no arm is called '{name}'", name, arms, "Arms")


def _check_path(path: str, problems: Problems, *where: str | int) -> None:
    """Report a dotted path that leads to no setting; adapter options are left to the method."""
    first, _, rest = path.partition(".")
    if path == "split_seed" or path in NAMED:
        return
    if first not in SECTIONS:
        known = [*SECTIONS, "split_seed"]
        problems.at(unlike(f"'{first}' is no section", first, known, "Sections"), *where)
    elif not rest:
        examples = {"adapter": "r", "train": "learning_rate", "task": "train_rows"}
        problems.at(f"name one setting, e.g. {first}.{examples.get(first, 'name')}", *where)
    elif (model := SECTIONS[first]) is not None and rest not in model.model_fields:
        if not (path.startswith(OPEN) and path not in OPEN):
            problems.at(unlike("unknown setting", rest, model.model_fields), *where)


def is_choosable(path: str, problems: Problems, *where: str | int) -> bool:
    """Whether a stage may choose the setting `path`; reports why not."""
    section, _, setting = path.partition(".")
    if section not in ("train", "adapter") or not setting or path == "adapter.method":
        message = "expected a setting of `train`, or of `adapter` but its method"
        problems.at(message, *where)
        return False
    known = len(problems)
    _check_path(path, problems, *where)
    return len(problems) == known


def _point(study: Study, on: _Task, arm: _Written, problems: Problems) -> Point:
    """`arm` on a task: the study's configuration with its adapter merged in and the settings of the
    task, and its own, set."""
    adapter, own = arm.adapter, arm.settings
    if arm.where != ("sweep",):
        for path in own:
            _check_path(path, problems, *arm.where, "set", path)
        on.refuse({f"adapter.{key}": value for key, value in adapter.items()}, problems, *arm.where)
        on.refuse(own, problems, *arm.where, "set")
    config: dict[str, Any] = {
        "backbone": study.backbone.given(),
        "task": study.task.given(),
        "adapter": deepcopy(study.adapter),
        "train": study.train.model_dump(),
        "split_seed": study.split_seed,
    }
    # the method first: another method forgets the options of the old one, then the rest is set
    over, places = dict(adapter), on.places | arm.places
    if "adapter.method" in (given := on.settings | own):
        over["method"] = given["adapter.method"]
    config["adapter"] = inherited(config["adapter"], over)
    method = over.get("method", config["adapter"].get("method"))
    for path, value in study.set.items():  # the other sections have theirs already
        if path.startswith("adapter.") and path != "adapter.method" and takes(method, path):
            set_path(config, path.split("."), value)
    config["adapter"] |= over
    _set_all(config, on.settings)
    factors = {path: value[TIMES] for path, value in own.items() if is_multiple(value)}
    for path, factor in factors.items():
        try:
            own = own | {path: multiplied(value_at(config, path), factor)}
        except ValueError as error:
            problems.add(places[path], path, str(error))
    _set_all(config, own)
    refused = set()
    for section, model in SECTIONS.items():
        try:
            config[section] = _validated(section, config[section])
        except ValidationError as error:
            assert model is not None
            refused.add(section)
            for each in error.errors(include_url=False):
                key = dotted((section, *each["loc"]))
                if each["type"] == "extra_forbidden" and key in on.settings | own:
                    continue  # told of the path already, see `_check_path`
                problems.add(place_of(study, key, places), key, reason(each, model))
    changes = {f"adapter.{key}": value for key, value in adapter.items()} | own
    place = study.place(*arm.where)
    return Point(arm.name, changes, config, place, places, frozenset(refused), factors, on.name)


def _set_all(config: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Set dotted `settings` in `config`, those that lead to none left out."""
    for path, value in settings.items():
        first, _, rest = path.partition(".")
        if path in NAMED and isinstance(value, str):
            config[path] = {"name": value}
        elif path in (*NAMED, "split_seed") or (first in SECTIONS and rest):
            set_path(config, path.split("."), value)


def overlap(one: str, other: str) -> bool:
    """Whether one of two dotted paths leads to the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def is_multiple(value: Any) -> bool:
    """Whether `value` is written as `{times: 0.5}`."""
    return isinstance(value, dict) and set(value) == {TIMES}


def multiplied(number: Any, factor: Any) -> Any:
    """`number` times `factor`, whole where `number` is, to twelve digits.

    Raises `ValueError` where one is no number, or the product of a whole number is not whole.
    """
    for given, what in ((factor, f"`{TIMES}`"), (number, "what the study has there")):
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise ValueError(f"{what} must be a number, got {given!r}")
    product = float(f"{number * factor:.12g}")
    if isinstance(number, float):
        return product
    if product != int(product):
        raise ValueError(f"{number} times {factor:g} is {product:g}, and must be a whole number")
    return int(product)


def _validated(section: str, given: Any) -> Any:
    """`given` as its section has it; adapter options are left to the method."""
    if (model := SECTIONS[section]) is None:
        return given
    valid = model.model_validate(given)
    return valid.given() if isinstance(valid, NamedSection) else valid.model_dump()


def apply(point: Point, settings: Mapping[str, Any]) -> Point:
    """`point` with `settings`, times its factors; what else it sweeps stays as it is.

    Raises `pydantic.ValidationError` where a value is not one that its section takes.
    """
    config, swept = deepcopy(point.config), dict(point.swept)
    for path, value in settings.items():
        section = path.partition(".")[0]
        if path in point.factors:
            value = swept[path] = multiplied(value, point.factors[path])
        set_path(config, path.split("."), value)
        config[section] = _validated(section, config[section])
    return replace(point, config=config, swept=swept)


def refusal(
    point: Point, path: str, value: Any, check: Callable[[dict[str, Any]], None], said: str = ""
) -> str | None:
    """Why `point` cannot have `value` at `path`, by its section or by `check`; None where it can.

    `check` is asked of the adapter; before what it says stand `said` and the value.
    """
    try:
        check(apply(point, {path: value}).config["adapter"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        own = first.get("ctx", {}).get("error")  # a rule of the section, in words of its own
        return f"{said}{value!r}: {own}" if own else f"{first['msg']}, got {value!r}"
    except (ValueError, TypeError) as error:
        return f"{said}{value!r}: {error}"
    return None


def set_path(mapping: Any, keys: list[str], value: Any) -> None:
    """Set the entry of nested mappings that `keys` lead to; mappings on the way are copied."""
    for key in keys[:-1]:
        inner = mapping.get(key)
        mapping[key] = dict(inner) if isinstance(inner, dict) else {}
        mapping = mapping[key]
    mapping[keys[-1]] = value


def value_at(config: Mapping[str, Any], path: str, otherwise: Any = None) -> Any:
    """The setting at the dotted `path` of a configuration; `otherwise` where it is not set."""
    value: Any = config
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return otherwise
        value = value[part]
    return value


def place_of(study: Study, key: str, places: dict[str, str]) -> str:
    """Where `key` gets its value: in the arm, in the study, or in the profile."""
    for path in (key, key.partition(".")[0]):
        if path in places:
            return places[path]
    return study.place(*key.split("."))
