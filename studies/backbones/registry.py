"""The packaged backbones, and the check that a study's `backbone:` names something sensible."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from basis_zoo.registry import Registry, did_you_mean
from studies.archives import Archive, is_cached
from studies.archives import fetch as fetch_archive
from studies.backbones.conversion import Conversion, convert, converted_folder
from studies.backbones.terms import Terms

DType = Literal["float32", "bfloat16", "float16"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_KEYS = ("name", "dtype", "attention", "gradient_checkpointing", "quantization")
_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


@dataclass(frozen=True)
class Backbone:
    """Pretrained weights with their config and tokenizer, out of one package archive."""

    name: str
    archive: Archive
    licence: str
    summary: str
    parts: tuple[Archive, ...] = ()
    """Further archives, where one package does not hold all."""
    conversion: Conversion | None = None
    """Turns the archive's members into a folder that transformers loads, once."""
    terms: Terms | None = None
    """What must be accepted before the weights are fetched or used."""

    @property
    def archives(self) -> tuple[Archive, ...]:
        """Every archive that is needed."""
        return (self.archive, *self.parts)

    def is_cached(self) -> bool:
        """Whether `folder` needs neither the network nor a conversion."""
        if self.conversion is None:
            return is_cached(self.archive)
        return converted_folder(self.name, self.conversion, self.archives).is_dir()

    def folder(self) -> Path:
        """The folder to load from, made first where the cache lacks it.

        Raises:
            studies.archives.ArchiveError: an archive cannot be had, the conversion needs a package,
                or terms of use are not accepted.
        """
        if self.terms is not None:
            self.terms.require(self.name)
        if self.conversion is None:
            return fetch_archive(self.archive)
        return convert(self.name, self.conversion, self.archives)


@dataclass(frozen=True)
class BackboneSpec:
    """A checked `backbone:` entry."""

    name: str
    kind: Literal["packaged", "folder", "hub"]
    dtype: DType = "float32"
    attention: str | None = None
    """`attn_implementation` of transformers; None leaves the choice to it."""
    gradient_checkpointing: bool = False
    quantization: Literal["4bit"] | None = None
    """Hold the frozen weights in NF4; needs a GPU and the package bitsandbytes."""


_BACKBONES: Registry[Backbone] = Registry(
    "backbone", Backbone, origin=lambda backbone: backbone.archive.requirement
)
get_backbone = _BACKBONES.find
list_backbones = _BACKBONES.names


def register_backbone(backbone: Backbone) -> Backbone:
    """Make a packaged backbone known by its name.

    Raises:
        ValueError: the name is taken or not a lower-case word.
    """
    return _BACKBONES.add(backbone.name, backbone)


def check(spec: str | Mapping[str, Any]) -> BackboneSpec:
    """Check a `backbone:` entry without fetching or importing anything heavy.

    Raises:
        ValueError: unknown name or key, a folder that does not exist, a value out of range.
    """
    given = {"name": spec} if isinstance(spec, str) else spec
    entry = {key: value for key, value in given.items() if value is not None}
    for key in entry:
        if key not in _KEYS:
            raise ValueError(
                f"backbone: unknown key {key!r}.{did_you_mean(key, _KEYS)} Keys: {_KEYS}"
            )
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"backbone: `name` must be a non-empty string, got {name!r}")
    _check_choice("dtype", entry.get("dtype", "float32"), get_args(DType))
    if entry.get("attention") is not None:
        _check_choice("attention", entry["attention"], _ATTENTION)
    _check_choice(
        "gradient_checkpointing", entry.get("gradient_checkpointing", False), (True, False)
    )
    if "quantization" in entry:
        _check_choice("quantization", entry["quantization"], ("4bit",))
    return BackboneSpec(kind=_kind(name), **entry)


def fetch(spec: str | Mapping[str, Any]) -> Path | None:
    """Put a packaged backbone into the cache and give its folder; None for hub ids and folders.

    Raises:
        ValueError: as `check`.
        studies.archives.ArchiveError: it cannot be had.
    """
    checked = check(spec)
    if checked.kind != "packaged":
        return None
    return get_backbone(checked.name).folder()


def _kind(name: str) -> Literal["packaged", "folder", "hub"]:
    if name in _BACKBONES:
        return "packaged"
    if name.startswith((".", "/", "~")) or Path(name).is_absolute():
        folder = Path(name).expanduser()
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"backbone: {name} is no folder with a config.json "
                f"(looked in {folder.resolve()}); save one with `save_pretrained`"
            )
        return "folder"
    if _HUB_ID.fullmatch(name):
        return "hub"
    raise ValueError(
        f"{_BACKBONES.unknown(name)}. A hub id has the form owner/name; "
        f"a local folder starts with ./ or /"
    )


def _check_choice(key: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        allowed = ", ".join(map(str, choices))
        raise ValueError(f"backbone: `{key}` must be one of {allowed}, got {value!r}")
