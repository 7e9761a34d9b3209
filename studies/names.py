"""Look a name up in a registry, and say what was meant when it is not there."""

import difflib
from collections.abc import Iterable


def hint(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the closest of `known`, or nothing."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """`unknown <kind> '<name>'.` with a hint and the registered names."""
    names = sorted(known)
    return f"unknown {kind} {name!r}.{hint(name, names)} Registered: {', '.join(names) or 'none'}"
