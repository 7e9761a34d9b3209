"""SQLite databases that can be made again: made whole or not at all, set aside once broken."""

import contextlib
import itertools
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

from studies.files import replacing

BESIDE = ("-wal", "-shm", "-journal")
"""Ends of the names of the files that SQLite keeps beside a database."""


def make(file: Path, create: Callable[[Path], None]) -> None:
    """Make the database `file`, which `create` makes elsewhere first: it appears complete.

    It has a write-ahead log: one wait for the disk a commit instead of four, and readers meanwhile
    (https://www.sqlite.org/wal.html).

    Raises:
        OSError, sqlite3.Error: it cannot be written; there is no file then.
    """
    # `create` may leave connections open, which must not outlive a renaming: hence the copy
    with tempfile.TemporaryDirectory(prefix="basis-zoo-") as folder, replacing(file) as whole:
        draft = Path(folder) / file.name
        create(draft)
        with contextlib.closing(sqlite3.connect(draft)) as connection:
            connection.execute("VACUUM INTO ?", (str(whole),))
        with contextlib.closing(sqlite3.connect(whole)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        for end in BESIDE:  # of a file that was removed; SQLite would play it into this one
            Path(f"{file}{end}").unlink(missing_ok=True)


def set_aside_broken(file: Path, table: str) -> str:
    """Rename `file` to `<name>.broken-<n>` where it is no whole database: what was done, or "".

    A whole one has a row in `table`.

    Raises:
        OSError, sqlite3.OperationalError: nothing can be said of it, e.g. it may not be read.
    """
    if not file.exists() or not (why := _damage(file, table)):
        return ""
    names = (file.with_name(f"{file.name}.broken-{n}") for n in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    for end in (*BESIDE, ""):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{file}{end}").rename(f"{aside}{end}")
    return f"{file} is no whole database ({why}) and is now called {aside.name}"


def _damage(file: Path, table: str) -> str:
    """Why `file` is no whole database; "" where it is one."""
    if not file.is_file():
        return "it is no file"
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=60)) as connection:
            (report,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if report != "ok":
                return " ".join(report.split())
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if (
                table not in tables
                or not connection.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone()
            ):
                return "its tables are not complete"
    except sqlite3.OperationalError:  # locked, unreadable, a full disk: no fault of its own
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
    return ""
