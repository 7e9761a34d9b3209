"""A PostgreSQL server of its own for a test: Debian's binaries, a temporary folder, loopback."""

import contextlib
import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = "s3cret/with:odd@signs"
QUOTED = "s3cret%2Fwith%3Aodd%40signs"


def binaries() -> Path | None:
    """The folder with initdb and postgres, of the newest version there is."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr/pgsql").glob("*/bin")]
    found += [Path(path).parent for path in [shutil.which("initdb")] if path]
    found = [path for path in found if (path / "initdb").exists() and (path / "postgres").exists()]
    return max(found, key=lambda path: path.parent.name, default=None)


class PostgresServer:
    """Starts and stops; `url` names a database on it."""

    def __init__(self, folder: Path, user: str | None) -> None:
        """`user` runs the server: it refuses to be run by root."""
        self._bin = binaries()
        self._data, self._user = folder / "data", user
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._process: subprocess.Popen | None = None
        (folder / "password").write_text(PASSWORD)
        self._run("initdb", "-D", self._data, "-U", "owner", "-A", "scram-sha-256",
                  f"--pwfile={folder / 'password'}", "--no-sync", "-E", "UTF8",
                  "--locale=C").wait(60)  # fmt: skip

    def url(self, database: str) -> str:
        """Address with the password."""
        return f"postgresql://owner:{QUOTED}@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._process = self._run(
            "postgres", "-D", self._data, "-p", str(self._port), "-h", "127.0.0.1",
            "-k", "", "-c", "fsync=off"
        )  # fmt: skip
        end = time.monotonic() + 240
        while True:
            with contextlib.suppress(OSError), self._connect():
                return
            assert self._process.poll() is None and time.monotonic() < end, "no PostgreSQL"
            time.sleep(0.1)

    def stop(self, now: bool = False) -> None:
        """Stop; open connections are cut, and with `now` nothing is written any more."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if now else signal.SIGINT)
            self._process.wait(60)
            self._process = None

    def create(self, database: str, template: str = "template1") -> str:
        """A new database; its address."""
        with self._connect() as connection:
            connection.execute(f"CREATE DATABASE {database} TEMPLATE {template}")
        return self.url(database)

    def _connect(self):
        import psycopg

        try:
            return psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=5)
        except psycopg.OperationalError as error:
            raise ConnectionError(str(error)) from error

    def _run(self, name: str, *arguments: str | Path) -> subprocess.Popen:
        return subprocess.Popen(
            [self._bin / name, *arguments],
            user=self._user,
            group=pwd.getpwnam(self._user).pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
            cwd=self._data.parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def running() -> Iterator[PostgresServer]:
    """A server for as long as a fixture lives; skips the test where that cannot be."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'basis-zoo[cluster]'")
    if binaries() is None:
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
    user = None
    if getpass.getuser() == "root":
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    server = PostgresServer(folder, user)
    try:
        server.start()
        yield server
    finally:
        server.stop(now=True)
        shutil.rmtree(folder, ignore_errors=True)
