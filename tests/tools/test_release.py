"""What a release says of itself: one version, and ranges that were tried."""

import json
import re
import tomllib
from pathlib import Path

import yaml

from tools import supported_versions

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RECORDS = json.loads(supported_versions.RECORDS.read_text(encoding="utf-8"))


def test_changelog_and_citation_have_the_version() -> None:
    heads = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert next(head for head in heads if head != "Unreleased") == PROJECT["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]


def test_the_page_of_versions_is_that_of_the_records() -> None:
    page = supported_versions.PAGE.read_text(encoding="utf-8")
    assert page == supported_versions.page(), "run python -m tools.supported_versions"


def test_the_lowest_versions_and_each_python_were_tried() -> None:
    [tried] = [record for record in RECORDS if record["end"] == "lowest"]
    for name, version in supported_versions.lowest().items():
        assert (tried[name] + ".").startswith(version + "."), name
    low, below = map(int, re.findall(r"3\.(\d+)", PROJECT["requires-python"]))
    pythons = {int(record["python"].split(".")[1]) for record in RECORDS}
    assert pythons == set(range(low, below))
    assert not sum(record["failed"] for record in RECORDS)
