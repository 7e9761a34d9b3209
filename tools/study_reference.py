"""The page of every key of a study file, made from the models that read it.

python -m tools.study_reference docs/reference.md
"""

import re
import types
import typing
from collections.abc import Iterator
from types import NoneType
from typing import Any, Literal

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from studies.engine.definition.study import StudyBody
from studies.sections import model_in
from tools.pages import prose, table_row, write_page

EXAMPLE = """\
name: example
question: Does the number of basis functions matter?

plugins: []  # e.g. [my_basis.py], a file beside this one

backbone: {name: minilm, dtype: float32}

task: {name: movie_sentences, train_rows: 480, max_length: 32}

tasks:
  - sarcasm
  - {name: vitaminc, set: {task.max_length: 96, train.epochs: 3}}

adapter: {method: basis, r: 8, alpha: 16, target_modules: [query, value], basis: sinc}

train: {epochs: 2, learning_rate: 4.0e-3, eval_every: 20, keep: best, patience: 3}

seeds: [0, 1, 2]  # or {at_least: 5, at_most: 40, until: decided}

split_seed: 0

sweep:
  adapter.num_basis: [8, 64, 512]
  train.weight_decay: [0.0, 0.01]

arms:
  - {name: lora, adapter: {method: lora}, note: "same rank, no nonlinearity"}
  - {name: slow, set: {train.learning_rate: 1.0e-3}}

exclude:
  - {adapter.num_basis: 8, train.weight_decay: 0.01}

baseline: lora

objective: {metric: test/accuracy, direction: maximize, select_on: valid/accuracy}

tune: {adapter.alpha: [8, 16, 32], seeds: [100, 101], extend: 1}

search:
  arm: slow
  trials: 12
  seed: 1000
  space:
    adapter.num_basis: {int: [4, 128], log: true}
    adapter.grid: [uniform, chebyshev]
  objectives:
    - {metric: valid/accuracy}
    - {metric: cost/trainable_parameters, direction: minimize}
  pruning: {points: 5}

after:
  para: {kept: [1.0, 0.5, 0.25]}
  affine: true
  landscape: {points: 11, radius: 0.5}
  spectra: {steps: [5, 15, 30]}
  loss_surface: {points: 9}
  generalization: true
  steps_to: [0.7]

keep: adapter

match: parameters

published: {table: table_15_grid_size, x: adapter.num_basis}

claims:
  - {claim: "slow training beats LoRA", arm: slow, than: lora, expect: higher, margin: 0.01}
  - claim: "and costs no more memory"
    arm: slow
    than: lora
    metric: cost/peak_memory_bytes
    expect: not_higher
  - claim: "the mean of two arms beats LoRA"
    contrast: {num_basis=64 weight_decay=0: 0.5, num_basis=512 weight_decay=0: 0.5, lora: -1}
    expect: higher
  - claim: "each doubling of the functions gains half a point"
    arm: num_basis=8 weight_decay=0
    trend: {over: adapter.num_basis, scale: log2}
    expect: higher
    margin: 0.005

budget: {per_trial_minutes: 10, retries: 1}

profiles:
  gpu: {seeds: [0, 1, 2, 3, 4]}
  smollm2: gpu
"""
"""Every section once, to read; `tune`, `search` and `match` are not for one study together, nor is
`task` with a name, or `search`, or `published` with an `x`, beside `tasks`."""

_NAMES = {
    int: ("whole number", "whole numbers"),
    float: ("number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("text", "texts"),
}

_HEAD = """\
# Every key of a study file

Made by `python -m tools.study_reference`; a test compares this file with the models
that read a study.

- A study is laid over its profile (`studies/profiles/`), mapping by mapping, and its own section
  `profiles` over both; what is required must stand in one of them.
- An unknown key is refused with the nearest known one.
- A *dotted setting*, such as `train.learning_rate`, is a key of `backbone`, `task`, `adapter` or
  `train` in `sweep`, `tune`, `search`, `exclude` and `set`; `split_seed` is one too.
- What the stages do: [Studies](studies.md).

"""

_ADAPTER = """
All other keys are the method's own: [BasisConfig](config.md) has those of `basis`,
[Methods](methods.md) every method with its defaults, and `adapters.get_method(NAME).options()`
lists them. An arm with another method inherits only the keys above.
"""

_PROFILES = """\
## `profiles`

What this study says differently under a profile, by the profile's name; every key but `name`,
`question`, `plugins` and `claims`. The name of another profile there stands for what the study
says for that one.
"""


def page() -> str:
    """The whole page, Markdown."""
    from adapters import AdapterSection  # peft is imported no earlier than here

    parts = [_HEAD, "## The file\n\n", _table(StudyBody), "\n"]
    for name, info in StudyBody.model_fields.items():
        model = AdapterSection if name == "adapter" else model_in(info.annotation)
        parts.append(f"## `{name}`\n\n")
        if model is None:
            parts.append(f"{prose(_meaning(info))}\n\n")
        else:
            parts.append(f"{_summary(model)}\n\n{_table(model)}")
            parts.append(_ADAPTER if name == "adapter" else "")
            parts += (_inner(path, each) for path, each in _nested(name, model))
            parts.append("\n")
        parts.append(_block(name))
    return "".join([*parts, _PROFILES, "\n", _block("profiles")]).rstrip() + "\n"


def examples() -> dict[str, str]:
    """The part of the example study that each key of the file begins."""
    chunks = re.split(r"^(?=\w)", EXAMPLE, flags=re.M)
    return {chunk.partition(":")[0]: chunk.rstrip() for chunk in chunks if chunk}


def example_of(info: FieldInfo) -> Any:
    """A value for the key: one that is given as such, else its default, else its first word."""
    if info.examples:
        return info.examples[0]
    words = _literals(info.annotation)
    default = None if info.is_required() else info.default
    return words[0] if default is None and words else default


def _block(name: str) -> str:
    return f"```yaml\n{examples()[name]}\n```\n\n"


def _inner(path: str, model: type[BaseModel]) -> str:
    return f"\n### `{path}`\n\n{_summary(model)}\n\n{_table(model)}"


def _nested(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Models below `model`, each with the path that leads to it."""
    for name, info in model.model_fields.items():
        inner = model_in(info.annotation)
        if inner is not None:
            yield f"{path}.{name}", inner
            yield from _nested(f"{path}.{name}", inner)


def _table(model: type[BaseModel]) -> str:
    rows = ["| key | type | default | example | meaning |\n|---|---|---|---|---|\n"]
    for name, info in model.model_fields.items():
        kind = _words(info.annotation, tuple(info.metadata))
        cells = (f"`{name}`", kind, _default(info), _example(name, info), _meaning(info))
        rows.append(f"{table_row(cells)}\n")
    return "".join(rows)


def _summary(model: type[BaseModel]) -> str:
    """The model's docstring, without what it raises."""
    return (model.__doc__ or "").strip().replace("\n    ", "\n")


def _meaning(info: FieldInfo) -> str:
    return " ".join((info.description or "").split())


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    return "see below" if isinstance(info.default, BaseModel) else f"`{in_yaml(info.default)}`"


def _example(name: str, info: FieldInfo) -> str:
    if model_in(info.annotation) is not None:
        return "see below"
    return f"`{name}: {in_yaml(example_of(info))}`" if example_of(info) is not None else "see below"


def _literals(kind: Any) -> list[Any]:
    """The words that a type lists, itself or as one of a union."""
    args = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return list(args)
    return [word for each in args for word in _literals(each)]


def in_yaml(value: Any) -> str:
    """`value` on one line, as YAML that reads back as the same."""
    plain = [*value] if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=float("inf"), sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _words(kind: Any, bounds: tuple[Any, ...] = (), many: bool = False) -> str:
    """A type as a study's author would say it, `many` of it where asked."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _words(inner[0], (*inner[1:], *bounds), many)
    if origin in (typing.Union, types.UnionType):
        words = dict.fromkeys(_words(each, bounds, many) for each in inner if each is not NoneType)
        return " or ".join([*words, *(["null"] if NoneType in inner else [])])
    if origin is Literal:
        return ", ".join(f"`{in_yaml(word)}`" for word in inner)
    if origin in (tuple, list):
        return f"{'lists' if many else 'list'} of {_words(inner[0], many=True)}"
    if origin is dict and typing.get_origin(_bare(inner[1])) is tuple:
        return f"mapping of settings to {_words(inner[1], many=True)}"
    if origin is dict or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return "mappings" if many else "mapping"
    name, names = _NAMES.get(kind, ("value", "values"))
    return (names if many else name) + _bounds(bounds)


def _bare(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def _bounds(bounds: tuple[Any, ...]) -> str:
    flat = [each for bound in bounds for each in getattr(bound, "metadata", None) or [bound]]
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    words = [
        f" {sign} {'2³²' if getattr(bound, key) == 2**32 else f'{getattr(bound, key):g}'}"
        for bound in flat
        for key, sign in signs.items()
        if hasattr(bound, key)
    ]
    return ",".join(words)


if __name__ == "__main__":
    write_page("study_reference", page, "docs/reference.md")
