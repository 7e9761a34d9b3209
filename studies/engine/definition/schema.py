"""From a study file to a `Study`, or to every problem of the file, each with its line.

studies/grid_size.yaml:12: adapter.num_bases: unknown option. Did you mean 'num_basis'?
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from basis_zoo.registry import did_you_mean
from studies.engine.definition import layers, overrides, verify
from studies.engine.definition.plugins import load_plugins
from studies.engine.definition.shipped import PROFILES, list_profiles
from studies.engine.definition.study import Study, StudyBody
from studies.engine.definition.yaml_source import (
    Entries,
    Location,
    display_path,
    place_in,
    plain,
    read_yaml,
)
from studies.engine.errors import StudyError
from studies.sections import dotted, reason, unlike

IN_PROFILES = frozenset(StudyBody.model_fields) - {"name", "question", "claims", "plugins"}
"""What a study may say differently for a profile."""


def load_study(
    path: str | Path,
    profile: str = "embedded",
    plugins: Sequence[str | Path] = (),
    settings: Sequence[str] = (),
) -> Study:
    """The study in the file `path` under `profile`, validated whole: every arm can be built.

    `plugins` are Python files to import first, with those that the study names itself, so that the
    names they register are known. `settings`, each `KEY=VALUE`, are laid on the study and its
    profile.
    Raises `StudyError` that lists every problem of the file, one `file:line: key: message` each.
    """
    if profile not in list_profiles():
        raise StudyError(unlike(f"unknown profile '{profile}'", profile, list_profiles()))
    path, given, beside = Path(path), overrides.parsed(settings), tuple(map(Path, plugins))
    source = read_yaml(path)
    _load_own_plugins(source, path)
    load_plugins(beside)
    problems = _profile_section_problems(source)
    name = source.setdefault("name", path.stem)
    if isinstance(name, str) and name != path.stem:
        place = source.places["name"]
        problems.append(f"{place}: name: '{name}' must be the file's name, '{path.stem}'")
    study = _resolve(source, display_path(path), profile, problems, given)
    for other in list_profiles():  # all that the study speaks of must validate
        if other in _section(source, "profiles") and other != profile:
            _resolve(source, display_path(path), other, problems, {})
    if study is not None:  # with its broken parts left out, so that the rest is checked too
        study._beside = beside
        problems += verify.problems_of(study, refused=bool(problems))
    if study is None or problems:
        raise StudyError(*sorted(set(problems), key=_by_line))
    return study


def _load_own_plugins(source: Entries, path: Path) -> None:
    """Import the files that the study names; what is no name is refused with the rest."""
    names = source.get("plugins")
    for i, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str):
            try:
                load_plugins([path.parent / Path(name).expanduser()])
            except StudyError as error:
                place = place_in(source, ("plugins", i), display_path(path))
                raise StudyError(f"{place}: plugins: {error}") from error


def _section(tree: Entries, name: str) -> Entries:
    """The mapping called `name` in `tree`; an empty one where there is none."""
    section = tree.get(name)
    return section if isinstance(section, Entries) else Entries()


def _resolve(
    source: Entries, file: str, profile: str, problems: list[str], given: Mapping[str, Any]
) -> Study | None:
    """The study under `profile`, `given` laid on it; its problems are added to `problems`.

    Keys in error are left out where that makes a study whose other parts can still be checked;
    else None.
    """
    spoken = _section(source, "profiles")
    other = spoken.get(profile)  # the name of another that says it
    own = _section(spoken, other if isinstance(other, str) else profile)
    allowed = Entries({k: v for k, v in own.items() if k in IN_PROFILES}, own.places)
    body = Entries({k: v for k, v in source.items() if k != "profiles"}, source.places)
    merged = layers.overlay(layers.overlay(_profile(profile), body), allowed)
    merged = overrides.laid_on(merged, given)
    merged, unasked = layers.without_claims(merged, allowed.get("exclude"))
    if merged.get("tasks"):
        problems += _named_twice(body) + _named_twice(allowed)
    data = plain(merged)
    try:
        valid = StudyBody.model_validate(data)
    except ValidationError as error:
        errors = _without_echoes(error.errors(include_url=False))
        problems += [_problem(each, merged, file) for each in errors]
        if not all([_leave_out(data, each["loc"]) for each in errors]):
            return None
        try:
            valid = StudyBody.model_validate(data)
        except ValidationError:  # what was left out was needed
            return None
    label = overrides.labelled(profile, given)
    about = {"profile": label, "path": Path(file), "set": plain(dict(given)), "unasked": unasked}
    study = Study(**dict(valid), **about)
    study._tree = merged
    return study


def _named_twice(tree: Entries) -> list[str]:
    """That a study of several tasks names another one beside them."""
    task = tree.get("task")
    name = task.get("name") if isinstance(task, Entries) else task
    if name is None:
        return []
    place = place_in(tree, ("task", "name"), "")
    return [f"{place}: task: '{name}' is beside `tasks`, which have the names: leave out one of "
            "them; `task` without a name holds what all of `tasks` share"]  # fmt: skip


@functools.cache
def _profile(name: str) -> Entries:
    return read_yaml(PROFILES / f"{name}.yaml")


def _profile_section_problems(source: Entries) -> list[str]:
    """What is wrong with `profiles:` itself."""
    profiles = source.get("profiles", Entries())
    if not isinstance(profiles, Entries):
        place = source.places["profiles"]
        return [f"{place}: profiles: expected a mapping of profile names, got {profiles!r}"]
    problems = []
    for name, content in profiles.items():
        place = f"{profiles.places[name]}: profiles.{name}"
        if name not in list_profiles():
            problems.append(f"{place}: {unlike('unknown profile', name, list_profiles())}")
        elif content is None:
            continue
        elif isinstance(content, str):
            others = sorted(name for name, each in profiles.items() if not isinstance(each, str))
            if content not in others:
                wrong = f"no profile that this study spells out is called '{content}'"
                problems.append(f"{place}: {unlike(wrong, content, others) if others else wrong}")
        elif not isinstance(content, Entries):
            problems.append(f"{place}: expected a mapping, got {content!r}")
        else:
            for key in set(content) - IN_PROFILES:
                hint = did_you_mean(key, IN_PROFILES) or (
                    f" Allowed here: {', '.join(sorted(IN_PROFILES))}"
                )
                place = f"{content.places[key]}: profiles.{name}.{key}"
                problems.append(f"{place}: not allowed in a profile.{hint}")
    return problems


def _leave_out(data: Any, location: Location) -> bool:
    """Deletes what `location` points at from `data`; False where that says nothing of the rest.

    Without some of its arms a study has other faults than those that its author made.
    """
    if not location or location[0] in ("sweep", "arms"):
        return False
    if location[0] == "seeds":  # any will do
        data["seeds"] = [0]
        return True
    for key in location[:-1]:
        try:
            inner = data[key]
        except (KeyError, IndexError, TypeError):
            break  # pydantic names union members and "[key]" too
        if not isinstance(inner, dict | list):
            location = (key,)
            break
        data = inner
    try:
        del data[location[-1]]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def _problem(error: ErrorDetails, merged: Entries, file: str) -> str:
    """One line for one of pydantic's errors: place, key, what was given and what is expected."""
    location = tuple(key for key in error["loc"] if key != "[key]")
    place = place_in(merged, location, f"{file}:1")
    key, message = dotted(location), reason(error, StudyBody)
    return f"{place}: {key}: {message}" if key else f"{place}: {message}"


def _without_echoes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """`errors` less those that say of a list that it is short once its bad items are taken out."""
    places = [each["loc"] for each in errors]
    return [
        each
        for each in errors
        if each["type"] != "too_short"
        or not any(place[:-1] == each["loc"] and place != each["loc"] for place in places)
    ]


def _by_line(problem: str) -> tuple[str, int, str]:
    file, _, rest = problem.partition(":")
    line, _, text = rest.partition(":")
    return file, int(line) if line.isdigit() else 0, text
