"""Layers of configuration: profile < study < the study's own profile section < `--set`.

Mappings are merged key by key, everything else is replaced; each value keeps the place that it
came from.
"""

from typing import Any

from studies.engine.definition import checks
from studies.engine.definition.yaml_source import Entries, Items

NAMED = ("backbone", "task")
"""Sections that may be written as just a name, which then replaces the whole section."""


def overlay(base: Entries, over: Entries) -> Entries:
    """`over` laid on `base`."""
    bare = {section for section in NAMED if isinstance(over.get(section), str)}
    base = Entries({key: base[key] for key in base if key not in bare}, base.places)
    named = {section: Entries({"name": over[section]}) for section in bare}
    over = Entries(over | named, over.places)
    old, new = base.get("adapter"), over.get("adapter")
    if isinstance(old, Entries) and isinstance(new, Entries):
        base["adapter"] = Entries(inherited(old, new), old.places)
    return _merged(base, over)


def inherited(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """What an adapter section takes over from `base`: all, or for another method what all share."""
    if "method" not in over or over["method"] == base.get("method"):
        return dict(base)
    common = checks.words()["common"]
    return {key: value for key, value in base.items() if key in common}


def takes(method: Any, key: str) -> bool:
    """Whether the dotted setting `key` means something in an arm of `method`."""
    section, _, rest = key.partition(".")
    option = rest.partition(".")[0]
    return section != "adapter" or option == "method" or option in checks.options_of(method)


def without_claims(tree: Entries, exclude: Any) -> tuple[Entries, tuple[str, ...]]:
    """`tree` without the claims that name an arm of the list `exclude`, and these in words."""
    claims, listed = tree.get("claims"), exclude if isinstance(exclude, list) else ()
    arms = {each for each in listed if isinstance(each, str)}
    if not arms or not isinstance(claims, Items):
        return tree, ()
    asked = [i for i, claim in enumerate(claims) if arms.isdisjoint(_arms_of(claim))]
    kept = Items((claims[i] for i in asked), (claims.places[i] for i in asked))
    left = (str(claim.get("claim")) for i, claim in enumerate(claims) if i not in asked)
    return Entries({**tree, "claims": kept}, tree.places), tuple(left)


def _arms_of(claim: Any) -> set[str]:
    """The arms that a claim names by name, as it stands in the file."""
    if not isinstance(claim, Entries):
        return set()
    gain, contrast = claim.get("beyond"), claim.get("contrast")
    named = [each.get(key) for each in (claim, gain) if isinstance(each, Entries)
             for key in ("arm", "than")]  # fmt: skip
    weighed = contrast if isinstance(contrast, Entries) else ()
    return {each for each in (*named, *weighed) if isinstance(each, str)}


def _merged(base: Entries, over: Entries) -> Entries:
    both = {
        key: _merged(base[key], value)
        for key, value in over.items()
        if isinstance(base.get(key), Entries) and isinstance(value, Entries)
    }
    return Entries(base | over | both, base.places | over.places)
