"""From a study file to a `Study`, or to every problem of the file, each with its line.

studies/grid_size.yaml:12: adapter.num_bases: unknown option. Did you mean 'num_basis'?
"""

import functools
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from basis_zoo.registry import did_you_mean
from studies.engine.definition import layers, verify
from studies.engine.definition.plugins import load_plugins
from studies.engine.definition.study import Study, StudyBody
from studies.engine.definition.yaml_source import Location, Source, read_yaml
from studies.engine.errors import StudyError
from studies.sections import dotted, reason

PROFILES = Path(__file__).resolve().parents[2] / "profiles"

IN_PROFILES = frozenset(StudyBody.model_fields) - {"name", "question", "claims"}
"""What a study may say differently for a profile."""


def list_profiles() -> list[str]:
    """Names of the profiles that ship, sorted."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_study(
    path: str | Path, profile: str = "embedded", plugins: Sequence[str | Path] = ()
) -> Study:
    """The study in the file `path` under `profile`, validated whole: every arm can be built.

    `plugins` are Python files to import first, so that the names they register are known.
    Raises `StudyError` that lists every problem of the file, one `file:line: key: message` each.
    """
    if profile not in list_profiles():
        hint = did_you_mean(profile, list_profiles())
        raise StudyError(f"unknown profile '{profile}'.{hint} Known: {', '.join(list_profiles())}")
    load_plugins(plugins)
    path = Path(path)
    source = read_yaml(path)
    problems = _profile_section_problems(source)
    name = source.data.get("name")
    if isinstance(name, str) and name != path.stem:
        place = source.places[("name",)]
        problems.append(f"{place}: name: '{name}' must be the file's name, '{path.stem}'")
    studies = {each: _resolve(source, each, problems) for each in _profiles_of(source, profile)}
    study = studies[profile]
    if study is not None:  # with its broken parts left out, so that the rest is checked too
        problems += verify.points_of(study, refused=bool(problems))[1]
    if study is None or problems:
        raise StudyError(*sorted(set(problems), key=_by_line))
    return study


def _profiles_of(source: Source, profile: str) -> list[str]:
    """`profile` and those that the file speaks of: all of them must validate."""
    spoken = layers.section(source, "profiles").data
    return [profile, *(name for name in list_profiles() if name in spoken and name != profile)]


def _resolve(source: Source, profile: str, problems: list[str]) -> Study | None:
    """The study under `profile`; its problems are added to `problems`.

    Keys in error are left out where that makes a study whose other parts can still be checked;
    else None.
    """
    body = Source(
        source.name, {k: v for k, v in source.data.items() if k != "profiles"}, source.places
    )
    own = layers.section(source, "profiles", profile)
    allowed = Source(own.name, {k: v for k, v in own.data.items() if k in IN_PROFILES}, own.places)
    merged = layers.overlay(layers.overlay(_profile(profile), body), allowed)
    data = deepcopy(merged.data)
    try:
        valid = StudyBody.model_validate(data)
    except ValidationError as error:
        found = _without_echoes(error.errors(include_url=False))
        problems += [_problem(each, merged) for each in found]
        if not all([_leave_out(data, each["loc"]) for each in found]):
            return None
        try:
            valid = StudyBody.model_validate(data)
        except ValidationError:  # what was left out was needed
            return None
    study = Study(**dict(valid), profile=profile, path=Path(source.name))
    study._places.update(merged.places)
    return study


@functools.cache
def _profile(name: str) -> Source:
    return read_yaml(PROFILES / f"{name}.yaml")


def _profile_section_problems(source: Source) -> list[str]:
    """What is wrong with `profiles:` itself."""
    if "profiles" not in source.data:
        return []
    profiles = source.data["profiles"]
    place = source.places[("profiles",)]
    if not isinstance(profiles, dict):
        return [f"{place}: profiles: expected a mapping of profile names, got {profiles!r}"]
    problems = []
    for name, content in profiles.items():
        place = source.places[("profiles", name)]
        if name not in list_profiles():
            hint = did_you_mean(name, list_profiles())
            known = ", ".join(list_profiles())
            problems.append(f"{place}: profiles.{name}: unknown profile.{hint} Known: {known}")
        elif content is not None and not isinstance(content, dict):
            problems.append(f"{place}: profiles.{name}: expected a mapping, got {content!r}")
        else:
            for key in set(content or {}) - IN_PROFILES:
                place = source.places[("profiles", name, key)]
                hint = did_you_mean(key, IN_PROFILES) or (
                    f" Allowed here: {', '.join(sorted(IN_PROFILES))}"
                )
                problems.append(f"{place}: profiles.{name}.{key}: not allowed in a profile.{hint}")
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


def _problem(error: Any, merged: Source) -> str:
    """One line for one of pydantic's errors: place, key, what was given and what is expected."""
    location = tuple(key for key in error["loc"] if key != "[key]")
    place = next(
        (
            merged.places[location[:end]]
            for end in range(len(location), 0, -1)
            if location[:end] in merged.places
        ),
        f"{merged.name}:1",
    )
    key, message = dotted(location), reason(error, StudyBody)
    return f"{place}: {key}: {message}" if key else f"{place}: {message}"


def _without_echoes(errors: list[Any]) -> list[Any]:
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
