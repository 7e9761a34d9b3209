"""`studies.Study`: what is built in Python is written as YAML that is read the same."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import studies
from studies.engine.definition.yaml_source import as_yaml, plain, read_yaml
from studies.engine.errors import StudyError

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])) | st.sampled_from(
    ["1e-3", "no", "null", "0x1f", "010", "12:30", "~", "", "<<", "a: b", "- c", "#d", "1_000"]
)
VALUE = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXT
VALUE |= st.floats(allow_nan=False, allow_infinity=False)
TREE = st.recursive(
    VALUE, lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXT, each, max_size=3)
)


@settings(max_examples=40)
@given(st.dictionaries(TEXT, TREE, min_size=1, max_size=4))
def test_what_is_written_as_yaml_is_read_the_same(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]
) -> None:
    file = tmp_path_factory.getbasetemp() / f"{os.getpid()}.yaml"
    file.write_text(as_yaml(tree), encoding="utf-8")
    assert plain(read_yaml(file)) == tree


def test_values_that_are_used_twice_are_written_out(tmp_path: Path) -> None:
    shared = {"method": "basis"}
    study = studies.Study("s", arms=[{"adapter": shared}, {"adapter": shared}], x=np.float32(0.5))
    file = study.to_yaml(tmp_path / "s.yaml")
    read = plain(read_yaml(file))
    assert read == {"name": "s", "arms": [{"adapter": shared}] * 2, "x": 0.5}


def test_plugins_are_written_by_their_paths_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = studies.Study("s", plugins=["own.py", "/else/more.py"])
    file = study.to_yaml("a/b/s.yaml")
    paths = [(file.parent / name).resolve() for name in read_yaml(file)["plugins"]]
    assert paths == [(tmp_path / "own.py").resolve(), Path("/else/more.py")]
    assert read_yaml(file)["plugins"][0] == "../../own.py"
    one = studies.Study("s", plugins="own.py").to_yaml("s.yaml")
    assert read_yaml(one)["plugins"] == "own.py"  # which is refused as it is in a file
    assert read_yaml(studies.Study("s", plugins=[1]).to_yaml("s.yaml"))["plugins"] == [1]
    with pytest.raises(StudyError, match="name: 's' must be the file's name, 't'"):
        study.to_yaml("t.yaml")
