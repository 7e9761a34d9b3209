"""Where the phi that `train.load_phi` names lies, and what it holds."""

import hashlib
from pathlib import Path

from basis_zoo.registry import did_you_mean
from studies.engine.records import ADAPTER

FILES = ("adapter_config.json", "adapter_model.safetensors")
SHIPPED = Path(__file__).parents[2] / "phis"
"""Folders with the phis that ship, see their README."""


def folder(given: str) -> Path:
    """The folder of the adapter that `given` names: a trial's, a saved one, or one that ships.

    Raises `ValueError` where there is none.
    """
    path = Path(given).expanduser()
    for place in (path / ADAPTER, path, SHIPPED / given):
        if all((place / name).is_file() for name in FILES):
            return place
    shipped = sorted(each.name for each in SHIPPED.iterdir() if each.is_dir())
    raise ValueError(
        f"no saved adapter is in '{given}': expected a folder with {' and '.join(FILES)}, such as "
        f"that of a trial with `keep: adapter`, or one that ships: {', '.join(shipped)}."
        f"{did_you_mean(given, shipped)}"
    )


def content(given: str) -> str | None:
    """The sha256 of what the adapter's files hold; None where there are none."""
    try:
        place = folder(given)
    except ValueError:  # said when the study is checked
        return None
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(hashlib.sha256((place / name).read_bytes()).digest())
    return digest.hexdigest()
