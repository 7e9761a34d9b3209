"""Adapters as earlier versions saved them."""

import json
from pathlib import Path


def saved_by(folder: Path, version: int, setting: str) -> None:
    """Make the adapter in `folder` one of the schema `version`, which had no `setting`."""
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text()) | {"schema_version": version}
    del settings[setting]
    file.write_text(json.dumps(settings))
