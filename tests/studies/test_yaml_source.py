"""YAML with places: what it reads as what, and what it refuses where."""

from pathlib import Path
from typing import Any

import pytest

from studies.engine.definition import yaml_source
from studies.engine.definition.shipped import STUDIES
from studies.engine.definition.yaml_source import (
    parse_scalar,
    parse_value,
    place_in,
    plain,
    read_yaml,
)
from studies.engine.errors import StudyError


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.0e-3", 1e-3),
        (".5", 0.5),
        ("4E2", 400.0),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("12:30", "12:30"),
        ("010", 10),
        ("0x10", 16),
        ("0o10", 8),
        ("-7", -7),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("null", None),
        ("~", None),
        ("'8'", "8"),
        ("=", "="),
        ("[1, 2.5, a]", [1, 2.5, "a"]),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_plain_values_follow_yaml_1_2(text: str, value: object) -> None:
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


def test_places_are_those_of_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = read_yaml(written(tmp_path, "a: 1\nb:\n  c: [x,\n    y]\n10: z\n"))
    assert tree == {"a": 1, "b": {"c": ["x", "y"]}, "10": "z"}
    assert tree.places == {"a": "x.yaml:1", "b": "x.yaml:2", "10": "x.yaml:5"}
    assert tree["b"].places == {"c": "x.yaml:3"}
    assert tree["b"]["c"].places == {0: "x.yaml:3", 1: "x.yaml:4"}
    assert place_in(tree, ("b", "c", 1), "?") == "x.yaml:4"
    assert place_in(tree, ("b", "zzz", 1), "?") == "x.yaml:2"
    assert place_in(tree, ("zzz",), "?") == "?"
    assert type(plain(tree)["b"]) is dict and type(plain(tree)["b"]["c"]) is list


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "x.yaml:1: the file is empty"),
        ("# a comment\n", "x.yaml:1: the file is empty"),
        ("- a\n", "x.yaml:1: expected `key: value` lines, got sequence"),
        ("just text\n", "x.yaml:1: expected `key: value` lines, got scalar"),
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3: duplicate key 'a' (first on line 1)"),
        ("a: {b: 1,\n b: 2}\n", "x.yaml:2: duplicate key 'b' (first on line 1)"),
        ("a: [1\nb: 2\n", "x.yaml:2: not valid YAML"),
        ("a: 1\n\tb: 2\n", "x.yaml:2: not valid YAML"),
        ("a: &x [1]\nb: *x\n", "x.yaml:1: not valid YAML: anchors and aliases are not allowed"),
        ("a: 1\nb: !!python/name:os.system\n", "x.yaml:2: not valid YAML: tags such as"),
        ("a: !!int b\n", "x.yaml:1: not valid YAML: tags such as"),
        ("a: 1\nb: .nan\n", "x.yaml:2: a number must be finite, got .nan"),
        ("b: 1e999\n", "x.yaml:1: a number must be finite"),
        ("b: " + "9" * 5000 + "\n", "x.yaml:1: a number with 5000 digits is too long"),
        ("[1, 2]: a\n", "x.yaml:1: a key must be text"),
        ('a: "\\ud800"\n', "x.yaml:1: "),
        (b"\x7fELF\x02\x01\x00\xff\xfe", "x.yaml:1: not UTF-8 text; is this a binary file?"),
        (b"a: 1\nb: \x00\n", "x.yaml:2: not text: character #x0000"),
        ("a: " + "[" * 5000 + "\n", "x.yaml:1: not valid YAML: nested more than 32 levels deep"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: not valid YAML"),
        ("a: 1\n---\nb: *x\n", "x.yaml:2: not valid YAML: but found another document"),
        ("a: " + "x" * 100_001, "x.yaml:1: 100,004 bytes are no study file"),
    ],
)
def test_what_is_refused_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError) as caught:
        read_yaml(written(tmp_path, content))
    assert str(caught.value).startswith(message)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"absent\.yaml: there is no such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(StudyError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)


def test_all_problems_are_listed(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        read_yaml(written(tmp_path, "a: 1\na: 2\nb: .inf\n"))
    assert len(caught.value.problems) == 2


def with_places(value: Any) -> Any:
    """`value` with the places of what is in it."""
    if not isinstance(value, dict | list):
        return type(value), value
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return type(value), [(key, value.places[key], with_places(each)) for key, each in pairs]


@pytest.mark.parametrize(
    "text",
    [
        *(file.read_text(encoding="utf-8") for file in sorted(STUDIES.glob("*.yaml"))),
        "a: |\n  x\n\n   y\nb: >-\n  x\n  y\n? c\n: [1e-3, 'it''s', \"\\x41\\u2028\", http://x:1]\n",
        "a: x\n  y # no\r\nb: {c: , 'd':1, e f: [g,],}\u0085c: \U0001f600\n---x: 1\n...\n",
        "a: b\n\ufeffc: d",
    ],
    ids=lambda text: text.partition("\n")[0][:20],
)
def test_the_fast_reader_reads_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = with_places(parse_value(text, "x"))
    monkeypatch.setattr(yaml_source, "_Fast", yaml_source._Loader)
    assert with_places(parse_value(text, "x")) == fast


@pytest.mark.parametrize("text", ["{a: b?c}", "{a?: b}", "a:\tb", "\udc80"])
def test_what_the_fast_reader_takes_alone_is_refused(text: str) -> None:
    with pytest.raises(StudyError):
        parse_value(text, "x")
