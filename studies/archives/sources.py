"""Where this machine gets its packages: pip's configuration, asked of pip itself.

Only pip's public command line is used (`pip config list`, `pip download --help`), never
`pip download`: for a source distribution that runs the package's `setup.py`.
"""

import ast
import os
import re
import subprocess
import sys
from dataclasses import dataclass

SECTIONS = (":env:", "download", "install", "global")
"""Sections of pip's configuration, the strongest first."""


@dataclass(frozen=True)
class Sources:
    """The places to look in, and how to reach them."""

    indexes: tuple[str, ...]
    """Addresses of simple indexes (PEP 503/691): https, http or file."""
    find_links: tuple[str, ...]
    """Folders (path or file: address) or pages that list archives directly."""
    certificate: str | None = None
    """File of certificates to trust instead of the system's."""
    proxy: str | None = None
    trusted_hosts: tuple[str, ...] = ()
    timeout: float = 60.0


def pip_sources() -> Sources:
    """The sources that `pip` on this machine would use."""
    settings = _settings(_pip("config", "list"))
    indexes: list[str] = []
    if settings.get("no-index", "").lower() not in ("1", "true", "yes", "on"):
        # its help names the index that pip falls back on, and distributions change it
        said = re.compile(r"--index-url.*?\(default\s+(\S+?)\)", re.S)
        first = settings.get("index-url") or "".join(said.findall(_pip("download", "--help"))[:1])
        indexes = [*([first] if first else []), *settings.get("extra-index-url", "").split()]
    return Sources(
        indexes=tuple(dict.fromkeys(indexes)),
        find_links=tuple(settings.get("find-links", "").split()),
        certificate=settings.get("cert") or None,
        proxy=settings.get("proxy") or None,
        trusted_hosts=tuple(settings.get("trusted-host", "").split()),
        timeout=float(settings.get("timeout") or settings.get("default-timeout") or 60.0),
    )


def _settings(listing: str) -> dict[str, str]:
    """pip's options, from the lines `section.name='value'` of `pip config list`."""
    sections: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listing.splitlines():
        key, equals, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if equals and section in sections:
            sections[section][name] = ast.literal_eval(value)
    for name, value in os.environ.items():  # also where there is no pip to ask
        if name.startswith("PIP_"):
            sections[":env:"].setdefault(name[4:].lower().replace("_", "-"), value)
    return {name: v for s in reversed(SECTIONS) for name, v in sections[s].items()}


def _pip(*arguments: str) -> str:
    """What `python -m pip ...` prints; empty where this Python has no pip."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "500", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        check=False,
    )
    return done.stdout if done.returncode == 0 else ""
