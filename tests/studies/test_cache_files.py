"""Files of the cache are hashed once as long as they stay, and take their place whole."""

import hashlib
import os
from pathlib import Path

import pytest

from studies.archives.files import is_whole, sha256_of
from studies.files import replacing


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_read_once_and_again_when_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"before")
    reads: list[str] = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda f, n: (reads.append(n), digest(f, n))[1])
    assert [sha256_of(file), sha256_of(file)] == [sha256(b"before")] * 2 and len(reads) == 1
    file.write_bytes(b"after!")  # as long
    os.utime(file, ns=(0, 1))
    assert sha256_of(file) == sha256(b"after!") and len(reads) == 2


def test_what_is_missing_cut_or_changed_is_not_whole(tmp_path: Path) -> None:
    file, known = tmp_path / "x", (6, sha256(b"before"))
    assert not is_whole(file, *known)
    for content, whole in ((b"before", True), (b"befor", False), (b"beFore", False)):
        file.write_bytes(content)
        os.utime(file, ns=(0, len(content) + whole))
        assert is_whole(file, *known) is whole
    assert not is_whole(tmp_path, tmp_path.stat().st_size, known[1])


def test_content_is_on_the_disk_before_it_takes_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (done.append("fsync"), fsync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b)))
    with replacing(tmp_path / "new" / "x") as scratch:
        scratch.write_bytes(b"content")
    assert (tmp_path / "new" / "x").read_bytes() == b"content"
    assert done == ["fsync", "replace", "fsync"]  # the file, its place, the folder
