"""Layers of configuration: profile < study < the study's own profile section.

Mappings are merged key by key, everything else is replaced; each value keeps the place that it
came from.
"""

from typing import Any

from studies.engine.definition import checks
from studies.engine.definition.yaml_source import Location, Source

NAMED = ("backbone", "task")
"""Sections that may be written as just a name."""


def overlay(base: Source, over: Source) -> Source:
    """`over` laid on `base`; the result carries `over`'s name."""
    data, places = dict(base.data), dict(base.places)
    new = dict(over.data)
    for section in NAMED:
        if isinstance(new.get(section), str):  # a bare name replaces the whole section
            new[section] = {"name": new[section]}
            data.pop(section, None)
            _forget(places, (section,))
    if isinstance(data.get("adapter"), dict) and isinstance(new.get("adapter"), dict):
        data["adapter"] = inherited(data["adapter"], new["adapter"])
    under: dict[str | int, dict[Location, str]] = {}
    for at, place in over.places.items():
        if at:
            under.setdefault(at[0], {})[at] = place
    merged = dict(data)
    for key, value in new.items():
        merged[key] = _merge(data.get(key), value, (key,), under.get(key, {}), places)
    return Source(over.name, merged, places)


def section(source: Source, *location: str) -> Source:
    """The part of `source` below `location`, with places that start there; {} where absent."""
    data: Any = source.data
    for key in location:
        data = data.get(key) if isinstance(data, dict) else None
    depth = len(location)
    places = {
        where[depth:]: place for where, place in source.places.items() if where[:depth] == location
    }
    return Source(source.name, data if isinstance(data, dict) else {}, places)


def inherited(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """What an adapter section takes over from `base`: all, or for another method what all share."""
    if "method" not in over or over["method"] == base.get("method"):
        return dict(base)
    common = checks.common_options()
    return {key: value for key, value in base.items() if key in common}


def _merge(
    base: Any, over: Any, where: Location, new: dict[Location, str], places: dict[Location, str]
) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        _forget(places, where)
        if where in new:
            places[where] = new[where]
        if isinstance(over, dict | list) and over:
            depth = len(where)
            places.update({at: place for at, place in new.items() if at[:depth] == where})
        return over
    if where in new:
        places[where] = new[where]
    merged = dict(base)
    for key, value in over.items():
        merged[key] = _merge(base.get(key), value, (*where, key), new, places)
    return merged


def _forget(places: dict[Location, str], where: Location) -> None:
    if where not in places:  # then nothing below it is
        return
    depth = len(where)
    for at in [at for at in places if at[:depth] == where]:
        del places[at]
