"""Study files that must be refused, drawn at random from those that ship.

    kind, content = bad_study(random.Random(0))

`content` is to be written to a file with `NAME` as its name. Each kind is one way in which files
come to be wrong, or in which a stranger's file could do harm.
"""

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import studies
from studies.engine.definition.yaml_source import plain, read_yaml

SHIPPED = sorted(Path(studies.__file__).parent.glob("*.yaml"))
NAME = "bad"
MARK = "code-was-run"
"""A file of this name in the working directory would be made by a tag that runs code."""

TEXTS = [
    path.read_text(encoding="utf-8").replace(f"name: {path.stem}", f"name: {NAME}", 1)
    for path in SHIPPED
]
_DATA = [plain(read_yaml(path)) | {"name": NAME} for path in SHIPPED]
_TAGS = (
    f"!!python/object/apply:os.system ['touch {MARK}']",
    f"!!python/object/apply:pathlib.Path.touch [!!python/object/new:pathlib.Path [{MARK}]]",
    "!!python/name:os.system",
    "!!binary aGVsbG8=",
    "!!set {a, b}",
    "!include /etc/passwd",
    "!!python/object/apply:subprocess.check_output [[id]]",
)
_STRANGE: tuple[Any, ...] = (
    None, [], {}, "", "x" * 5000, -1, 0.5, 2**40, 10**25, [[]], {"a": {"b": []}}, True, "1e-3",
    "\u202e", "nan", [None], "../../etc", {"": ""},
)  # fmt: skip

Draw = random.Random


class _Dumper(yaml.SafeDumper):
    """Quotes text: PyYAML takes 1e-3 for text that needs no quotes, YAML 1.2 does not."""


_Dumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def bad_study(draw: Draw) -> tuple[str, bytes]:
    """A kind of fault, and a file that has it."""
    kind = draw.choice(sorted(KINDS))
    return kind, KINDS[kind](draw)


def _appended(line: Callable[[Draw], str]) -> Callable[[Draw], bytes]:
    return lambda draw: f"{draw.choice(TEXTS).rstrip()}\n{line(draw)}\n".encode()


def _inserted(what: tuple[bytes, ...]) -> Callable[[Draw], bytes]:
    def make(draw: Draw) -> bytes:
        text = draw.choice(TEXTS).encode()
        at = draw.randrange(len(text))
        return text[:at] + draw.choice(what) + text[at:]

    return make


def _tag(draw: Draw) -> bytes:
    """A value somewhere becomes an object that a careless loader would build."""
    lines = draw.choice(TEXTS).splitlines()
    keyed = [
        i for i, line in enumerate(lines) if ": " in line and not line.lstrip().startswith("#")
    ]
    i = draw.choice(keyed)
    lines[i] = f"{lines[i].split(': ')[0]}: {draw.choice(_TAGS)}"
    return "\n".join(lines).encode()


def _bomb(draw: Draw) -> str:
    """Aliases that would grow to 10^n values."""
    lines = ["x0: &x0 [lol, lol]"]
    for i in range(1, draw.randint(2, 12)):
        lines.append(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]")
    return "\n".join(lines)


def _deep(draw: Draw) -> str:
    depth = draw.choice((60, 400, 5_000, 50_000))
    opened, closed = draw.choice(("[]", ("{a: ", "}"), ("- ", "")))
    return f"claims: {opened * depth}{closed * depth}"


def _duplicate(draw: Draw) -> bytes:
    i = draw.randrange(len(TEXTS))
    key = draw.choice(sorted(_DATA[i]))
    return f"{TEXTS[i].rstrip()}\n{key}: 1\n".encode()


def _no_mapping(draw: Draw) -> bytes:
    return draw.choice((b"", b"# only a comment\n", b"- a\n- b\n", b"8\n", b"'text'\n", b"---\n...",
                        b"a: 1\n---\nb: 2\n", b"? [a]\n: b\n", b"%YAML 9.9\n---\na: 1",
                        b"\xef\xbb\xbf[]", "name: bad".encode("utf-16")))  # fmt: skip


def _huge(draw: Draw) -> bytes:
    return b"question: " + b"x" * draw.choice((100_001, 3_000_000))


def _dumped(change: Callable[[Draw, dict[str, Any]], None]) -> Callable[[Draw], bytes]:
    def make(draw: Draw) -> bytes:
        data = copy.deepcopy(draw.choice(_DATA))
        change(draw, data)
        return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True).encode()

    return make


def _sections(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The mappings of a study whose keys are all known."""
    named = ("backbone", "task", "adapter", "train", "budget", "objective", "published", "sweep")
    found = [data, *(data[name] for name in named if isinstance(data.get(name), dict))]
    found += [each for name in ("arms", "claims") for each in data.get(name) or []]
    return found


def _unknown_key(draw: Draw, data: dict[str, Any]) -> None:
    section = draw.choice(_sections(data))
    known = draw.choice(sorted(section))
    word = list(known + "q")
    draw.shuffle(word)
    section["".join(word).replace(" ", "")] = draw.choice(_STRANGE)


def _wrong_value(draw: Draw, data: dict[str, Any]) -> None:
    """A known key gets a value that is never right there."""
    path, values = draw.choice(WRONG)
    for key in path[:-1]:
        if not isinstance(data.get(key), dict):
            data[key] = {}
        data = data[key]
    data[path[-1]] = draw.choice(values)


def _missing_key(draw: Draw, data: dict[str, Any]) -> None:
    del data[draw.choice(("question", "baseline", "objective"))]


def _bad_arm(draw: Draw, data: dict[str, Any]) -> None:
    arm = draw.choice(
        (
            {"name": "z", "adapter": {"method": "lorra"}},
            {"name": "z", "set": {"adapter.zzz": draw.choice(_STRANGE)}},
            {"name": "z", "set": {"train.epochs": draw.choice((-1, "three", None, 1e400, []))}},
            {"name": "z", "set": {"../../x": 1}},
            {"name": draw.choice(("", " ", "\n", "a\nb", "x" * 99, "\x1b[2J", "\u202e", None))},
            {"name": "z", "adapter": draw.choice((7, "lora", [], {"": 1}))},
            draw.choice((None, 7, "lora", [])),
            {"name": "z", "adapter": {"method": "basis", "basis": "sinc", "num_basis": -7}},
            {"name": "z", "adapter": {"method": "basis", "interval": [3.0, -3.0]}},
        )
    )
    data["arms"] = [*(data.get("arms") or []), arm]


WRONG: list[tuple[tuple[str, ...], tuple[Any, ...]]] = [
    (("name",), ("other", "../bad", "a b", 7, None, [], "", "bad\n", "-bad")),
    (("question",), ("", " ", None, 7, [], {})),
    (("seeds",), ("x", [], [-1], [1.5], [2**40], [True], [1, 1], 7, {}, [None], ["0"], [[0]])),
    (("split_seed",), (-1, 1.5, "0", None, [], 2**33, True)),
    (("sweep",), ([], "x", 7, {"adapter": [1]}, {"": [1]}, {"train.epochs": []},
                  {"train.epochs": [[]]}, {"train.epochs": list(range(1, 20_000))})),
    (("arms",), (7, "lora", {"a": 1}, [1], [None], [[]])),
    (("exclude",), ([{"train.epochs": 7}], {}, [1], "x")),
    (("baseline",), ("no such arm", "", None, 7, [])),
    (("objective",), ("test/accuracy", None, [], {}, {"metric": "test/zzz"})),
    (("objective", "direction"), ("up", None, 1, "maximise")),
    (("objective", "metric"), ("", None, "accuracy", "../x", [])),
    (("train", "learning_rate"), ("1e-3", 0, -1.0, None, [], {}, True, "fast")),
    (("train", "batch_size"), (0, -1, 1.5, "16", None, True)),
    (("train", "epochs"), (0, -3, "3", None, [])),
    (("train", "schedule"), ("triangle", 1, None, [])),
    (("train", "warmup_ratio"), (1, 7.5, -0.1, "0.1")),
    (("budget", "per_trial_minutes"), (0, -1, "60", None, [])),
    (("budget", "retries"), (-1, 11, 1.5, "0", True)),
    (("budget",), (7, [], "x", None)),
    (("task",), (7, [], "no_such_task", {"name": "../../etc/passwd"}, {"name": ""}, "a\x00b")),
    (("task", "train_rows"), (0, -5, 1.5, "many", True)),
    (("backbone",), (7, [], "no_such_model", {"name": ""}, {"name": "../.."}, "a\x07b")),
    (("backbone", "dtype"), (7, [])),
    (("adapter",), (7, [], "lora", None, {"method": "zzz"}, {"method": None})),
    (("adapter", "method"), ("zzz", 7, None, [], {}, "")),
    (("tune",), ({"train.learning_rate": [1e-3]}, {"seeds": [0]}, [], "x")),
    (("match",), ("flops", 1, [])),
    (("published",), ({"table": "none", "x": "adapter.r"}, 7, [])),
    (("claims",), ("x", [7], [{"claim": "x"}], [{"claim": "x", "arm": "a", "than": "b"}], {})),
    (("profiles",), (7, [], {"zzz": {}}, {"gpu": 7}, {"gpu": {"name": "x"}}, "x")),
]  # fmt: skip

KINDS: dict[str, Callable[[Draw], bytes]] = {
    "alias bomb": _appended(_bomb),
    "bad arm": _dumped(_bad_arm),
    "byte that is no UTF-8": _inserted((b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\x80")),
    "character that is no text": _inserted((b"\x00", b"\x1b", b"\x07", b"\x7f")),
    "duplicate key": _duplicate,
    "huge file": _huge,
    "many values": _appended(lambda draw: f"zzz: {[7] * draw.choice((1, 1_900, 30_000))}"),
    "long number": _appended(lambda draw: f"split_seed: {draw.choice('+-')}{'9' * 5000}"),
    "missing key": _dumped(_missing_key),
    "nested deeply": _appended(_deep),
    "no mapping": _no_mapping,
    "not finite": _appended(
        lambda draw: f"budget: {{max_hours: {draw.choice(('.inf', '-.inf', '.nan', '1e999'))}}}"
    ),
    "tag": _tag,
    "unclosed": _appended(lambda draw: draw.choice(("x: [1, 2", "x: {a: 1", "x: 'a", 'x: "a\\q"',
                                                    "\tx: 1", "x: 1\n y: 2", "@", "a: b: c"))),
    "unknown key": _dumped(_unknown_key),
    "wrong value": _dumped(_wrong_value),
}  # fmt: skip
