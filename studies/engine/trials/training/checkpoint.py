"""Checkpoints on disk: taken as whole or not at all, and read without running anything.

    checkpoint-<step>/
        manifest.json        key, versions, step and the sha256 of every file, with its own sha256
        state.json           what the training is made of, nested, with names for tensors
        tensors.safetensors  all tensors by these names
        metrics.jsonl        the metrics that were written so far

A folder gets its name when all of it is on the disk; the one before it is kept until then, and one
more after.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from studies.files import replacing_folder

SCHEMA = 3
"""Version of these folders. 1 was of a training by transformers' Trainer, 2 not nested."""
KEPT = 2
NOT_WHOLE = (
    SafetensorError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading something else than a checkpoint raises."""
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
NAMED = "<tensor>"
"""The only key of what stands for a tensor in `STATE`; its value is the tensor's name."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why."""


@dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to."""

    key: str
    """The trial's."""
    versions: Mapping[str, Any]
    """Of the packages and the commit: other code would go on differently."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it is read."""

    step: int
    folder: Path
    state: Mapping[str, Any]


def save(
    run_dir: Path,
    identity: Identity,
    step: int,
    state: Mapping[str, Any],
    texts: Mapping[str, str],
) -> Path:
    """Write `run_dir`/checkpoint-<step> and remove all but the last `KEPT`.

    Args:
        state: Nested mappings of tensors, of which no two share memory, and what JSON can hold.
        texts: Further files by name.

    Raises:
        OSError: it cannot be written, e.g. for want of space; what was there before stays.
    """
    target, tensors = run_dir / f"checkpoint-{step}", dict[str, Tensor]()
    plain = {name: _named(name, each, tensors) for name, each in state.items()}
    with replacing_folder(target) as scratch:  # one of this step was refused when it was read
        try:
            save_file(tensors, scratch / TENSORS)
        except SafetensorError as error:  # its I/O errors carry text alone
            number = errno.ENOSPC if "No space left" in str(error) else errno.EIO
            raise OSError(number, os.strerror(number), str(scratch)) from error
        for name, text in {**texts, STATE: json.dumps(plain)}.items():
            (scratch / name).write_text(text, encoding="utf-8")
        files = {path.name: _sha256(path) for path in sorted(scratch.iterdir())}
        content = {
            "schema": SCHEMA,
            "key": identity.key,
            "versions": dict(identity.versions),
            "step": step,
            "files": files,
        }
        manifest = json.dumps({**content, "sha256": _digest(content)}, indent=2)
        (scratch / MANIFEST).write_text(manifest, encoding="utf-8")
    for old in _folders(run_dir)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def last(run_dir: Path, identity: Identity, say: Callable[[str], None]) -> Checkpoint | None:
    """The latest usable checkpoint in `run_dir`; `say` gets why another is not used."""
    for folder in _folders(run_dir):
        try:
            return read(folder, identity)
        except CheckpointError as error:
            say(f"{folder.name} is not used: {error}")
    return None


def read(folder: Path, identity: Identity) -> Checkpoint:
    """The checkpoint in `folder`.

    Raises:
        CheckpointError: a file is missing or altered, or it is another trial's or of other code.
    """
    try:
        return _read(folder, identity)
    except OSError as error:
        raise CheckpointError(f"{error.filename}: {error.strerror}") from error
    except CheckpointError:
        raise
    except NOT_WHOLE as error:
        raise CheckpointError(f"it cannot be read ({type(error).__name__}: {error})") from error


def _read(folder: Path, identity: Identity) -> Checkpoint:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest.pop("sha256") != _digest(manifest):
        raise CheckpointError(f"{MANIFEST} is not what was written")
    if manifest["schema"] != SCHEMA:
        raise CheckpointError(f"it is of version {manifest['schema']}, this code's are {SCHEMA}")
    if manifest["key"] != identity.key:
        raise CheckpointError(f"it is of trial {manifest['key']}, this is {identity.key}")
    there, here = manifest["versions"], json.loads(json.dumps(dict(identity.versions)))
    differ = [
        f"{name} {there.get(name)} there, {here.get(name)} here"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
    if differ:
        raise CheckpointError(f"it was made by other code ({'; '.join(differ)})")
    for name, digest in manifest["files"].items():
        if name != Path(name).name or _sha256(folder / name) != digest:
            raise CheckpointError(f"{name} is not what was written")
    tensors, text = load_file(folder / TENSORS), (folder / STATE).read_text(encoding="utf-8")
    state = json.loads(text, object_hook=lambda d: tensors[d[NAMED]] if NAMED in d else d)
    return Checkpoint(int(manifest["step"]), folder, state)


def remove(run_dir: Path) -> None:
    """Remove all checkpoints of a trial, whole ones and half ones."""
    for path in run_dir.glob("*checkpoint-*"):
        if re.fullmatch(r"\.?checkpoint-\d+", path.name):
            shutil.rmtree(path, ignore_errors=True)


def _folders(run_dir: Path) -> list[Path]:
    """Complete checkpoints, latest first."""
    by_step = {
        int(path.name.rpartition("-")[2]): path
        for path in run_dir.glob("checkpoint-*")
        if re.fullmatch(r"checkpoint-\d+", path.name)
    }
    return [by_step[step] for step in sorted(by_step, reverse=True)]


def _named(name: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` for JSON, with names for its tensors, which are put into `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {NAMED: name}
    if isinstance(value, Mapping):
        return {key: _named(f"{name}.{key}", each, tensors) for key, each in value.items()}
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
