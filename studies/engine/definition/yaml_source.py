"""YAML with places: every value of a file together with the line that it stands on.

Numbers and booleans follow YAML 1.2 (`1e-3` is a float, `no` and `12:30` are text, `010` is ten),
keys are always text, and what only makes a study hard to read is refused: duplicate keys, anchors,
aliases, tags, numbers that are not finite.
"""

import contextlib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from basis_zoo.registry import did_you_mean
from studies.engine.errors import StudyError

Location = tuple[str | int, ...]
"""Keys and list positions that lead to a value, e.g. ("arms", 0, "name")."""

MAX_BYTES = 100_000
MAX_DEPTH = 32
"""Of lists and mappings within each other."""
MAX_VALUES = 2_000
"""Keys included; reading takes time in proportion to them."""

_PREFIX = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """A SafeLoader that resolves plain scalars by YAML 1.2's core schema."""


# https://yaml.org/spec/1.2.2/#103-core-schema
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(_PREFIX + _tag, re.compile(_pattern), _first)


class _Fast(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads what is right as `_Loader` does, by libyaml in a tenth of the time."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


_UNLIKE = re.compile(r"[\t\ufeff]|\?(?!$)", re.MULTILINE)
"""What `_Loader` refuses in places, and `_Fast` takes."""


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would not read as text, and writes shared values out."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True


class Entries(dict[str, Any]):
    """A mapping read from a file; `places` has the `file:line` of each key."""

    def __init__(
        self, entries: Mapping[str, Any] | None = None, places: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(entries or {})
        self.places = {key: place for key, place in (places or {}).items() if key in self}


class Items(list[Any]):
    """A list read from a file; `places` has the `file:line` of each item."""

    def __init__(self, items: Iterable[Any], places: Iterable[str]) -> None:
        super().__init__(items)
        self.places = dict(enumerate(places))


def place_in(tree: Any, location: Location, otherwise: str) -> str:
    """`file:line` of the longest part of `location` that stands in `tree`, else `otherwise`."""
    for key in location:
        if key not in getattr(tree, "places", {}):
            break
        otherwise, tree = tree.places[key], tree[key]
    return otherwise


def plain(tree: Any) -> Any:
    """A copy of `tree` in dicts and lists without places."""
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return [plain(value) for value in tree] if isinstance(tree, list) else tree


def read_yaml(path: Path) -> Entries:
    """The mapping in the YAML file `path`.

    Raises `StudyError` with one problem a line where the file is missing, empty, not text, not
    YAML, or not a mapping.
    """
    name = display_path(path)
    root = _compose(_text(path, name), name)
    if root is None:
        raise StudyError(f"{name}:1: the file is empty; a study starts with `name:`")
    if not isinstance(root, yaml.MappingNode):
        raise StudyError(f"{_place(root, name)}: expected `key: value` lines, got {_kind(root)}")
    problems: list[str] = []
    tree = _mapping(root, name, problems)
    if problems:
        raise StudyError(*problems)
    return tree


def parse_scalar(text: str) -> Any:
    """The value that `text` has as a YAML value, e.g. 8 for "8"; text where it is not YAML."""
    try:
        return plain(parse_value(text, "value"))
    except StudyError:
        return text


def parse_value(text: str, name: str) -> Any:
    """The YAML value `text`, with places in `name`; raises `StudyError` where it is none."""
    problems: list[str] = []
    node = _compose(text, name)
    value = None if node is None else _value(node, name, problems)
    if problems:
        raise StudyError(*problems)
    return value


def as_yaml(tree: Mapping[str, Any]) -> str:
    """`tree`, of plain values, as the text of a file that `read_yaml` reads the same from."""
    text: str = yaml.dump(
        dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True,
        default_flow_style=None, width=100,
    )  # fmt: skip
    return text


def display_path(path: Path) -> str:
    """`path` relative to the working directory where it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError, RuntimeError):
        return str(path)


def _nearest(path: Path) -> str:
    """What `path` may mean of what lies beside it."""
    try:
        names = [each.name for each in path.parent.iterdir() if each.suffix == path.suffix]
    except OSError:
        return ""
    hint = did_you_mean(path.name, names)
    return f".{hint}" if hint else ""


def _text(path: Path, name: str) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise StudyError(f"{name}: there is no such file{_nearest(path)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StudyError(f"{name}: cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise StudyError(
            f"{name}:1: {len(content):,} bytes are no study file, the limit is {MAX_BYTES:,}"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise StudyError(f"{name}:{line}: not UTF-8 text; is this a binary file?") from None


def _compose(text: str, name: str) -> yaml.Node | None:
    if not _UNLIKE.search(text):
        with contextlib.suppress(yaml.YAMLError, UnicodeError):  # `_Loader` says why
            return _checked(text, _Fast)
    try:
        return _checked(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        context = f" ({error.context})" if error.context else ""
        raise StudyError(f"{name}:{line}: not valid YAML: {error.problem}{context}") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise StudyError(f"{name}:{line}: not text: character #x{error.character:04x}") from None


def _checked(text: str, loader: Any) -> yaml.Node | None:
    """What `text` holds; raises an error of `yaml` also where it is more than YAML has to be."""
    depth = values = 0
    event: Any
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.DocumentEndEvent):
            break  # that another one follows is said below
        refused = None
        if getattr(event, "anchor", None) is not None:
            refused = "anchors and aliases are not allowed: write the value out"
        elif getattr(event, "tag", None) is not None:
            refused = f"tags such as {event.tag!r} are not allowed"
        elif depth > MAX_DEPTH:
            refused = f"nested more than {MAX_DEPTH} levels deep"
        elif values > MAX_VALUES:
            refused = f"more than {MAX_VALUES:,} values; `sweep` lists need fewer than `arms`"
        if refused:
            raise yaml.composer.ComposerError(None, None, refused, event.start_mark)
        values += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
    return yaml.compose(text, Loader=loader)


def _place(node: yaml.Node, name: str) -> str:
    return f"{name}:{node.start_mark.line + 1}"


def _value(node: yaml.Node, name: str, problems: list[str]) -> Any:
    """The value of `node` with its places; what is wrong with it is added to `problems`."""
    if isinstance(node, yaml.SequenceNode):
        values = (_value(item, name, problems) for item in node.value)
        return Items(values, (_place(item, name) for item in node.value))
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, name, problems)
    try:
        return _scalar(node)
    except ValueError as error:
        problems.append(f"{_place(node, name)}: {error}")
        return None


def _mapping(node: yaml.MappingNode, name: str, problems: list[str]) -> Entries:
    entries, places = dict[str, Any](), dict[str, str]()
    for key_node, value_node in node.value:
        key, place = key_node.value, _place(key_node, name)
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(f"{place}: a key must be text, got a {_kind(key_node)}")
        elif key in places:
            first = places[key].rpartition(":")[2]
            problems.append(f"{place}: duplicate key '{key}' (first on line {first})")
        else:
            places[key] = place
            entries[key] = _value(value_node, name, problems)
    return Entries(entries, places)


def _kind(node: yaml.Node) -> str:
    """Which of scalar, sequence and mapping it is."""
    kinds = (yaml.ScalarNode, yaml.SequenceNode, yaml.MappingNode)
    return next(kind.id for kind in kinds if isinstance(node, kind))


def _scalar(node: yaml.Node) -> Any:
    text: str = node.value
    match node.tag.removeprefix(_PREFIX):
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            if len(text) > 30:
                raise ValueError(f"a number with {len(text)} digits is too long")
            return int(text, 0 if text[:2] in ("0o", "0x") else 10)
        case "float":
            number = float(text.replace(".inf", "inf").replace(".nan", "nan").lower())
            if not math.isfinite(number):
                raise ValueError(f"a number must be finite, got {text}")
            return number
    text.encode("utf-8")  # a lone surrogate can be neither stored nor printed
    return text
