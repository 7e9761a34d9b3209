"""The database that several hosts share: its address, its lock, and how its password stays hidden.

BASIS_ZOO_STORAGE=postgresql://user:password@host/database names it; without that variable every
runs folder has a sqlite file of its own. The password is read from the environment alone, and
`Server.masked` takes it out of every text that leaves this process.
"""

import contextlib
import os
import urllib.parse
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from studies.engine.errors import StudyError, one_line
from studies.engine.slots import STORAGE_VARIABLE

EXAMPLE = "postgresql://user:password@host/database"
CONNECT: dict[str, Any] = {
    "application_name": "basis-zoo",
    "connect_timeout": 10,
    # a host that vanished sends no goodbye, and TCP alone waits for it for a quarter of an hour
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds, the others are seconds
    "prepare_threshold": None,  # a pooler may give the next statement to another session
}
"""Options of libpq and psycopg."""
LOCK_SECONDS = 600
"""Queueing ten thousand trials takes a minute or two."""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL database; its text form has no password."""

    url: URL

    def __str__(self) -> str:
        url = self.url
        return str(
            URL.create(
                "postgresql", url.username, host=url.host, port=url.port, database=url.database
            )
        )

    @property
    def address(self) -> str:
        """The URL with its password, for a database driver alone."""
        return self.url.render_as_string(hide_password=False)

    @property
    def engine_options(self) -> dict[str, Any]:
        """How to connect: a connection that a restarted server has dropped is replaced."""
        return {"connect_args": CONNECT, "pool_pre_ping": True}

    def masked(self, text: object) -> str:
        """`text` on one line, with `***` for the password."""
        line = one_line(str(text))
        secret = str(self.url.password or "")
        for safe in ("", "/", " +"):  # as a person, urllib and SQLAlchemy write it
            for form in (secret, urllib.parse.quote(secret, safe), urllib.parse.quote_plus(secret)):
                line = line.replace(form, "***") if form else line
        return line

    def check(self) -> None:
        """Connect once.

        Raises:
            StudyError: there is no driver or no such database, or it does not let us in.
        """
        try:
            with self._connected():
                return
        except ImportError:
            raise StudyError(
                f"{STORAGE_VARIABLE}: PostgreSQL's driver is missing: "
                "pip install 'basis-zoo[cluster]'"
            ) from None
        except SQLAlchemyError as error:
            cause = self.masked(error.__cause__ or error).rstrip(".?")
            raise StudyError(
                f"{STORAGE_VARIABLE}: {self} cannot be used: {cause}. Start the server or correct "
                f"the address ({EXAMPLE})"
            ) from None

    @contextlib.contextmanager
    def locked(self, name: str, wait: bool = True) -> Iterator[bool]:
        """Hold the advisory lock `name`; False where another has it and `wait` is not.

        The server lets go of it when this process is gone. It is a lock of the transaction, not of
        the session, and so works behind a connection pooler too.
        """
        key = {"key": zlib.crc32(f"basis-zoo {name}".encode())}
        with self._connected() as connection, connection.begin():
            if wait:
                limit = sqlalchemy.text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
                connection.execute(limit)
                connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), key)
                yield True
            else:
                ask = sqlalchemy.text("SELECT pg_try_advisory_xact_lock(:key)")
                yield bool(connection.execute(ask, key).scalar())

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlalchemy.Connection]:
        engine = sqlalchemy.create_engine(
            self.url, connect_args=CONNECT, poolclass=sqlalchemy.NullPool
        )
        with engine.connect() as connection:
            yield connection


def configured() -> Server | None:
    """The server that BASIS_ZOO_STORAGE names; None where it is not set.

    Raises:
        StudyError: it is no address of a PostgreSQL database.
    """
    text = os.environ.get(STORAGE_VARIABLE, "").strip()
    if not text:
        return None
    try:
        url = make_url(text)
    except (SQLAlchemyError, ValueError):  # their messages may quote what was given
        raise StudyError(f"{STORAGE_VARIABLE}: not an address; expected {EXAMPLE}") from None
    if url.drivername.partition("+")[0] not in ("postgresql", "postgres"):
        raise StudyError(
            f"{STORAGE_VARIABLE}: expected {EXAMPLE}, got {one_line(url.drivername)}://...; unset "
            "it for the sqlite file in the runs folder, which one host works on"
        )
    if "@" in (url.host or ""):
        raise StudyError(f"{STORAGE_VARIABLE}: write an @ within the password as %40")
    if not url.database:
        raise StudyError(f"{STORAGE_VARIABLE}: the database's name is missing; expected {EXAMPLE}")
    url = url.set(drivername="postgresql+psycopg")
    if "password" in url.query:  # libpq takes it there too, where SQLAlchemy would show it
        url = url.set(password=str(url.query["password"])).difference_update_query(["password"])
    return Server(url)
