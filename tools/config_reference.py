"""The page of every option of `BasisConfig`, made from the class.

python -m tools.config_reference docs/config.md
"""

import dataclasses
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import griffe
from peft import PeftConfig

import basis_zoo
from adapters import BasisConfig
from adapters.forms import get_form, list_forms
from basis_zoo import InputScale
from tools.pages import prose, table_row, write_page
from tools.study_reference import in_yaml

SECTIONS: Mapping[str, Mapping[str, Any]] = {
    "Rank and scale": {
        "r": 16,
        "alpha": 32.0,
        "use_rslora": True,
        "dropout": 0.1,
        "rank_pattern": {"mlp": 4},
        "alpha_pattern": {"mlp": 8.0},
    },
    "Which modules": {
        "target_modules": ["qkv", "mlp"],
        "target_parameters": ["mlp.experts.gate_up_proj"],
        "layers": "first_last_2",
        "exclude_modules": ["key"],
        "layers_to_transform": [0, 1],
        "layers_pattern": "layer",
        "layer_replication": [[0, 4], [2, 5]],
        "modules_to_save": ["classifier"],
        "bias": "basis_only",
        "trainable_token_indices": [0, 1, 2],
        "ensure_weight_tying": True,
    },
    "φ: the functions": {
        "basis": "gaussian_rbf",
        "num_basis": 32,
        "interval": [-2.0, 2.0],
        "basis_options": {"nu": 1.5},
        "grid": "chebyshev",
        "grid_options": {"overhang": 2},
        "bandwidth": "spacing",
        "extrapolation": "linear",
        "linear": True,
    },
    "φ: before training, and what is trained": {
        "start": "identity",
        "start_options": {"scale": 0.05},
        "b_std": 0.01,
        "init_weights": False,
        "train_amplitude": False,
        "train_bandwidth": False,
    },
    "φ: where it acts": {
        "form": "hadamard",
        "form_options": {"families": ["fourier", "hat"]},
    },
    "φ: what it is given": {
        "input_scale": "rms",
        "input_scale_options": {"value": 1.0, "momentum": 0.9},
    },
    "φ: one for each module, or shared": {
        "sharing": "all",
        "sharing_scope": "head",
        "phi_pattern": {"attention": {"basis": "hat", "num_basis": 16}},
        "depth_start": {"bandwidth": [1.0, 3.0]},
    },
    "How it is computed": {
        "path": "split",
        "merge_once": True,
        "rounding": "stochastic",
        "gradient_dtype": "float8",
        "tolerance": 1e-5,
    },
}
"""Every option with a value to show, by section."""

NEEDS: Mapping[str, Mapping[str, Any]] = {
    "layers_pattern": {"layers_to_transform": [0, 1]},
    "sharing_scope": {"sharing": "all"},
    "basis_options": {"basis": "matern"},
    "start_options": {"start": "random"},
    "train_amplitude": {"start": "random"},
    "input_scale_options": {"input_scale": "rms"},
    "form_options": {"form": "sum"},
}
"""What an example needs beside it."""

_HEAD = """\
# Every option of `BasisConfig`

Made by `python -m tools.config_reference`; a test compares this page with the class, and builds
every example.

In Python they are arguments of `adapters.BasisConfig`, in a study keys of `adapter` beside
`method: basis`. What the options do together is told in [The adapter](adapter.md),
[Forms and finer sharing](forms.md) and [The zoo](zoo.md); names that look like LoRA's mean what
they mean there.
"""

_REST = """\
`task_type` is PEFT's, and yours to set. PEFT fills in the others that every method has: {others}.
`schema_version` is written into a saved adapter and says which version of these options it has."""

_PARTS = """\
## Options of the parts

`basis_options`, `grid_options`, `start_options`, `form_options` and `input_scale_options` are the
fields of the part that `basis`, `grid`, `start`, `form` and `input_scale` name. Parts that are not
listed have none. An option that a part does not have is refused, with those that it has.

| part | option | type | default | meaning |
|---|---|---|---|---|
"""


def page() -> str:
    """The whole page, Markdown.

    Raises:
        ValueError: An option of the class is in no section.
    """
    fields = {each.name: each for each in dataclasses.fields(BasisConfig)}
    inherited = [each.name for each in dataclasses.fields(PeftConfig)]
    shown = [name for options in SECTIONS.values() for name in options]
    if left_out := set(fields) - set(inherited) - set(shown) - {"schema_version"}:
        raise ValueError(f"give {', '.join(sorted(left_out))} a section and an example")
    parts = [_HEAD]
    for section, options in SECTIONS.items():
        parts.append(f"\n## {section}\n\n| option | type | default | meaning | example |\n")
        parts.append("|---|---|---|---|---|\n")
        parts += (_row(fields[name], value) for name, value in options.items())
    others = ", ".join(f"`{name}`" for name in inherited if name != "task_type")
    parts += ["\n", prose(_REST.format(others=others)), "\n\n", _PARTS]
    return "".join([*parts, *_options_of_parts()])


def examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and arguments of each example."""
    for options in SECTIONS.values():
        for name, value in options.items():
            yield name, {**NEEDS.get(name, {}), name: value}


def _row(field: dataclasses.Field[Any], value: Any) -> str:
    made = field.default_factory
    default = field.default if made is dataclasses.MISSING else made()
    needed = {**NEEDS.get(field.name, {}), field.name: value}
    yaml_form = ", ".join(f"{name}: {in_yaml(each)}" for name, each in needed.items())
    python_form = ", ".join(f"{name}={each!r}" for name, each in needed.items())
    meaning = field.metadata["help"].replace("<", "&lt;")
    example = f"`{yaml_form}`<br>`{python_form}`"
    return _cells(f"`{field.name}`", _kind(field.type), f"`{default!r}`", meaning, example)


def _kind(kind: Any) -> str:
    plain = isinstance(kind, type) and not isinstance(kind, types.GenericAlias)
    return f"`{kind.__name__ if plain else str(kind).replace('typing.', '')}`"


def _options_of_parts() -> Iterator[str]:
    kinds = {
        "basis": (basis_zoo.list_bases(), basis_zoo.get_basis),
        "grid": (basis_zoo.list_grids(), basis_zoo.get_grid),
        "start": (basis_zoo.list_starts(), basis_zoo.get_start),
        "form": (list_forms(), get_form),
    }
    for kind, (names, get) in kinds.items():
        for name in names:
            part = type(get(name))
            if part.__module__.partition(".")[0] not in ("basis_zoo", "adapters"):
                continue  # a plug-in's, which an installed package may bring along
            said = _documented(part).all_members  # a start may inherit its fields
            for field in dataclasses.fields(part):  # type: ignore[arg-type]  # each kind's is one
                if field.name not in ("num_basis", "interval"):
                    meaning = said[field.name].docstring
                    yield _option(f"`{kind}: {name}`", field, meaning.value if meaning else "")
    scale = _documented(InputScale)
    (told,) = (each for each in scale.docstring.parse("google") if each.kind == "parameters")
    for each in told.value[1:]:
        default = scale["__init__"].parameters[each.name].default
        text = " ".join(each.description.split())
        yield _cells(
            "`input_scale`", f"`{each.name}`", f"`{each.annotation}`", f"`{default}`", text
        )


_package = functools.cache(griffe.load)
"""Reads the sources of a whole package."""


def _documented(part: type) -> Any:
    """What the source of a class says of it."""
    package, _, module = part.__module__.partition(".")
    return _package(package)[f"{module}.{part.__name__}"]


def _option(part: str, field: dataclasses.Field[Any], meaning: str) -> str:
    text = " ".join(meaning.split())
    return _cells(part, f"`{field.name}`", _kind(field.type), f"`{field.default!r}`", text)


def _cells(*cells: str) -> str:
    return f"{table_row(cells)}\n"


if __name__ == "__main__":
    write_page("config_reference", page, "docs/config.md")
