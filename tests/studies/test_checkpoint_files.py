"""Checkpoints on disk: what is not whole, or of something else, is noticed."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import flip

from studies.engine.trials.training import checkpoint
from studies.engine.trials.training.checkpoint import CheckpointError, Identity

IDENTITY = Identity("key", {"torch": "2"})


def save(run_dir: Path, step: int = 1) -> Path:
    state = {"a": {0: torch.arange(3)}, "b": [1.5]}
    return checkpoint.save(run_dir, IDENTITY, step, state, {"c": "d"})


def test_another_trials_and_other_codes_checkpoints_are_refused(tmp_path: Path) -> None:
    save(tmp_path)
    for identity, reason in (
        (Identity("other", IDENTITY.versions), "it is of trial key, this is other"),
        (Identity("key", {"torch": "3"}), r"other code \(torch 2 there, 3 here\)"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            checkpoint.read(tmp_path / "checkpoint-1", identity)


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "tensors.safetensors", "c"])
def test_any_file_altered_cut_short_or_missing_is_noticed(name: str, tmp_path: Path) -> None:
    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-1])

    for damage in (flip, cut, Path.unlink):
        folder = save(tmp_path)
        state = checkpoint.read(folder, IDENTITY).state
        assert state["b"] == [1.5] and state["a"]["0"].tolist() == [0, 1, 2]
        damage(folder / name)
        with pytest.raises(CheckpointError):
            checkpoint.read(folder, IDENTITY)


MANIFESTS = ["[]", "3", "{}", "[" * 100_000, '{"sha256": 1}', '{"step": Infinity}', "\x00"]


@pytest.mark.parametrize("text", MANIFESTS, ids=range(len(MANIFESTS)))
def test_a_manifest_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    folder = save(tmp_path)
    (folder / checkpoint.MANIFEST).write_text(text)
    with pytest.raises(CheckpointError):
        checkpoint.read(folder, IDENTITY)


@pytest.mark.parametrize("when", ["tensors", "sync", "rename"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = {
        "tensors": (checkpoint, "save_file"),
        "sync": (os, "fsync"),
        "rename": (Path, "rename"),
    }
    monkeypatch.setattr(*place[when], full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert checkpoint.last(tmp_path, IDENTITY, pytest.fail).step == 1


def test_files_of_safetensors_and_json_alone_are_read(tmp_path: Path) -> None:
    """A pickle in the place of the tensors is refused though its hash is right."""
    folder = save(tmp_path)
    torch.save({"a": torch.ones(3)}, folder / checkpoint.TENSORS)
    manifest = json.loads((folder / checkpoint.MANIFEST).read_text())
    manifest["files"][checkpoint.TENSORS] = checkpoint._sha256(folder / checkpoint.TENSORS)
    manifest.pop("sha256")
    manifest["sha256"] = checkpoint._digest(manifest)
    (folder / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.read(folder, IDENTITY)
