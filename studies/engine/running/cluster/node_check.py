"""Whether a node of a cluster has the code that this machine has.

`probe` travels by content, since a node without our packages cannot import it: it uses nothing
outside itself.
"""

from typing import Any


def probe() -> dict[str, Any]:
    """`version` of basis-zoo, and the sha256 of its `source`; both empty where there is none."""
    import hashlib
    import importlib.metadata
    import importlib.util
    from pathlib import Path

    digest = hashlib.sha256()
    for package in ("basis_zoo", "adapters", "studies"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            return {"version": "", "source": ""}
        folder = Path(spec.origin).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder.parent).as_posix().encode())
            digest.update(path.read_bytes())
    try:
        version = importlib.metadata.version("basis-zoo")
    except importlib.metadata.PackageNotFoundError:
        version = "a checkout"
    return {"version": version, "source": digest.hexdigest()}


def difference(node: str, there: dict[str, Any], here: dict[str, Any]) -> str:
    """What is wrong with a node where `probe` gave `there` while it gives `here` on this machine;
    "" where nothing is."""
    if not there["source"]:
        return f"node {node} of the Ray cluster has no basis-zoo: install it there, as it is here"
    if there["source"] == here["source"]:
        return ""
    versions = f"{there['version']}, here {here['version']}"
    same = ", with other source files" if there["version"] == here["version"] else ""
    return (
        f"node {node} of the Ray cluster has another basis-zoo ({versions}{same}): install the "
        "same there"
    )
