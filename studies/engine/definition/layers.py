"""Layers of configuration: profile < study < the study's own profile section < `--set`.

Mappings are merged key by key, everything else is replaced; each value keeps the place that it
came from.
"""

from typing import Any

from studies.engine.definition import checks
from studies.engine.definition.yaml_source import Entries

NAMED = ("backbone", "task")
"""Sections that may be written as just a name, which then replaces the whole section."""


def overlay(base: Entries, over: Entries) -> Entries:
    """`over` laid on `base`."""
    bare = {section for section in NAMED if isinstance(over.get(section), str)}
    base = part(base, {key: value for key, value in base.items() if key not in bare})
    over = part(over, over | {section: Entries(name=over[section]) for section in bare})
    old, new = base.get("adapter"), over.get("adapter")
    if isinstance(old, Entries) and isinstance(new, Entries):
        base["adapter"] = part(old, inherited(old, new))
    return _merged(base, over)


def inherited(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """What an adapter section takes over from `base`: all, or for another method what all share."""
    if "method" not in over or over["method"] == base.get("method"):
        return dict(base)
    common = checks.common_options()
    return {key: value for key, value in base.items() if key in common}


def takes(method: Any, key: str) -> bool:
    """Whether the dotted setting `key` means something in an arm of `method`."""
    section, _, rest = key.partition(".")
    option = rest.partition(".")[0]
    return section != "adapter" or option == "method" or option in checks.options_of(method)


def part(tree: Entries, entries: dict[str, Any]) -> Entries:
    """`entries` with the places that they have in `tree`."""
    part = Entries(entries)
    part.places = {key: place for key, place in tree.places.items() if key in entries}
    return part


def _merged(base: Entries, over: Entries) -> Entries:
    both = {
        key: _merged(base[key], value)
        for key, value in over.items()
        if isinstance(base.get(key), Entries) and isinstance(value, Entries)
    }
    merged = Entries(base | over | both)
    merged.places = {**base.places, **over.places}
    return merged
