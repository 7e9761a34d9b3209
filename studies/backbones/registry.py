"""The packaged backbones, and the check that a study's `backbone:` names something sensible."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from basis_zoo.registry import Registry, did_you_mean
from studies.archives import Archive, is_cached, unpacked_folder
from studies.archives import fetch as fetch_archive
from studies.archives.contents import content_of
from studies.archives.files import sha256_of
from studies.backbones.conversion import Conversion, convert, converted_folder, converted_hashes
from studies.backbones.terms import Terms
from studies.sections import Bool, Line, NamedSection

Kind = Literal["packaged", "matrix", "folder", "hub"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
MATRICES: Mapping[str, tuple[str, float]] = {
    "random_matrix": ("one linear layer, W normal with variance 1 / in", 1.0),
    "zero_matrix": ("one linear layer, W = 0", 0.0),
}
"""Backbones for tasks that are a matrix: a frozen W (out, in), the same in every study; what it is,
and its gain: W is normal with the variance gain² / in."""


@dataclass(frozen=True)
class Backbone:
    """Pretrained weights with their config and tokenizer, out of one package archive."""

    name: str
    archive: Archive
    licence: str
    summary: str
    config: Mapping[str, Any]
    """What its config.json says, as far as it tells which tasks it fits."""
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
        return converted_hashes(self.place()) is not None

    def place(self) -> Path:
        """Where `folder` is, or will be."""
        if self.conversion is None:
            return unpacked_folder(self.archive)
        return converted_folder(self.name, self.conversion, self.archives)

    def hashes(self) -> dict[str, str]:
        """The sha256 of each file of `folder` that a model is loaded from.

        Raises:
            studies.archives.ArchiveError: as `folder`.
        """
        folder = self.folder()
        if self.conversion is None:
            return {member.target: member.sha256 for member in self.archive.members}
        hashes = converted_hashes(folder)
        assert hashes is not None, "checked by `folder`"
        return hashes

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


_BACKBONES: Registry[Backbone] = Registry(
    "backbone", Backbone, origin=lambda backbone: backbone.archive.requirement
)
get_backbone = _BACKBONES.find
list_backbones = _BACKBONES.names


def list_matrix_backbones() -> list[str]:
    """The names of backbones for tasks that are a matrix."""
    return list(MATRICES)


def register_backbone(backbone: Backbone) -> Backbone:
    """Make a packaged backbone known by its name.

    Raises:
        ValueError: the name is taken or not a lower-case word.
    """
    return _BACKBONES.add(backbone.name, backbone)


class BackboneSpec(NamedSection):
    """The pretrained model, and how its weights are held."""

    name: Annotated[Line, Field(examples=["minilm", "Qwen/Qwen2-0.5B", "./folder"])]
    """A shipped backbone's name, a hub id, or a local folder with a config.json; `zero_matrix` or
    `random_matrix` for a task that is a matrix."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the frozen weights, and of mixed precision where it is not float32."""
    attention: (
        Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None
    ) = None
    """`attn_implementation` of transformers; null leaves the choice to it."""
    gradient_checkpointing: Bool = False
    """Make activations again in the backward pass: less memory, more time."""
    quantization: Literal["4bit"] | None = None
    """Hold the frozen weights in NF4; needs a GPU and the package bitsandbytes; null: not."""

    @property
    def kind(self) -> Kind:
        """Where the weights are.

        Raises:
            ValueError: an unknown name, or a folder without a model.
        """
        if self.name in _BACKBONES:
            return "packaged"
        if self.name in MATRICES:
            return "matrix"
        folder = Path(self.name).expanduser()
        if (folder / "config.json").is_file():
            return "folder"  # also one that could be a hub id: transformers takes it too
        if self.name.startswith((".", "/", "~")):
            raise ValueError(
                f"backbone: {self.name} is no folder with a config.json "
                f"(looked in {folder.resolve()}); save one with `save_pretrained`"
            )
        if _HUB_ID.fullmatch(self.name):
            return "hub"
        raise ValueError(
            f"{_BACKBONES.unknown(self.name)}. Of a matrix: {', '.join(MATRICES)}."
            f"{did_you_mean(self.name, MATRICES)} "
            f"A hub id has the form owner/name; a local folder starts with ./ or /"
        )


def check(spec: str | Mapping[str, Any]) -> BackboneSpec:
    """Check a `backbone:` entry without fetching or importing anything heavy.

    Raises:
        ValueError: unknown name or key, a folder that does not exist, a value out of range.
    """
    checked = BackboneSpec.read("backbone", spec)
    if checked.kind == "matrix":
        odd = sorted(checked.model_fields_set - {"name", "dtype"})
        if any(getattr(checked, key) not in (None, False) for key in odd):
            raise ValueError(
                f"backbone: {checked.name} is one linear layer, which has no "
                f"{' and no '.join(odd)}: leave it out"
            )
    return checked


def config_file(spec: str | Mapping[str, Any]) -> Path | None:
    """The backbone's config.json where it lies on this machine; None where it is to be fetched.

    Raises:
        ValueError: as `check`.
    """
    checked = check(spec)
    if checked.kind == "matrix":
        return None
    if checked.kind == "hub":
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(checked.name, "config.json")
        return Path(cached) if isinstance(cached, str) else None
    packaged = checked.kind == "packaged"
    folder = get_backbone(checked.name).place() if packaged else Path(checked.name).expanduser()
    file = folder / "config.json"
    return file if file.is_file() else None


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


def content(spec: str | Mapping[str, Any]) -> str | None:
    """The sha256 of the files of a local folder; None for what ships, and for a hub id.

    Raises:
        ValueError: as `check`.
        OSError: a file cannot be read.
    """
    checked = check(spec)
    return content_of(_files(checked.name)) if checked.kind == "folder" else None


def identity(spec: str | Mapping[str, Any]) -> dict[str, Any]:
    """What a trial's numbers come from: the backbone's name, and the sha256 of each of its files.

    The hashes are those of the files that are there, checked or read by this process: every file of
    a packaged backbone, those directly in a local folder (not README.md), None for a hub id and
    for one linear layer.

    Raises:
        ValueError: as `check`.
        studies.archives.ArchiveError: a packaged backbone cannot be had.
    """
    checked = check(spec)
    hashes = None
    if checked.kind == "packaged":
        hashes = get_backbone(checked.name).hashes()
    elif checked.kind == "folder":
        hashes = {name: sha256_of(file) for name, file in _files(checked.name).items()}
    return {"name": checked.name, "sha256": hashes}


def _files(folder: str) -> dict[str, Path]:
    """What a model may be loaded from: files directly in `folder`, but hidden ones and .md."""
    return {
        file.name: file
        for file in sorted(Path(folder).expanduser().iterdir())
        if file.is_file() and not file.name.startswith(".") and file.suffix != ".md"
    }
