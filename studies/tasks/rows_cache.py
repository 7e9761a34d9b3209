"""The parsed rows of packaged tasks, kept as one small file a task.

`<cache>/rows/<task>-<tag>.jsonl.gz` is all that a packaged task needs: the archive that it came
from (358 MB for BIG-bench) is fetched once and need not be carried along. The first line tells how
many rows follow and their sha256.
"""

import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from studies.archives import Archive, cache_folder, tag_of
from studies.archives.files import say_damaged
from studies.files import replacing
from studies.tasks.rows import AnyRow, Exchange, Item, Picture, Row


def rows_file(task: str, version: int, archives: Sequence[Archive]) -> Path:
    """Where the rows are, or will be; another version of the reader is another file."""
    return cache_folder() / "rows" / f"{task}-{tag_of(version, archives)}.jsonl.gz"


def cached_rows(file: Path, make: Callable[[], Sequence[AnyRow]]) -> list[AnyRow]:
    """The rows in `file`, made and written there first where it is absent or damaged."""
    rows = _read(file)
    if rows is None:
        _write(file, make())
        rows = _read(file)
        assert rows is not None
    return rows


def _write(file: Path, rows: Sequence[AnyRow]) -> None:
    body = "".join(f"{json.dumps(_plain(row), ensure_ascii=False)}\n" for row in rows).encode()
    head = {"rows": len(rows), "type": type(rows[0]).__name__, "sha256": _sha256(body)}
    with replacing(file) as scratch, scratch.open("wb") as raw:
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as out:
            out.write(json.dumps(head).encode() + b"\n" + body)


def _read(file: Path) -> list[AnyRow] | None:
    """The rows, or None where the file is absent or not what its first line says."""
    try:
        with gzip.open(file, "rb") as stream:
            head, body = json.loads(stream.readline()), stream.read()
        if head["sha256"] == _sha256(body):
            make = _MAKERS[head["type"]]
            return [make(*json.loads(line)) for line in body.decode().split("\n")[:-1]]
    except FileNotFoundError:
        return None
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, KeyError, TypeError):
        pass
    say_damaged(file, "its rows are read again")
    return None


def _plain(row: AnyRow) -> list[Any]:
    return [base64.b64encode(v).decode() if isinstance(v, bytes) else v for v in row]


def _item(options: Any, gold: int, group: str | None, train: Any, part: str, words: Any) -> Item:
    pairs = tuple((context, choice) for context, choice in options)
    return Item(pairs, gold, group, tuple(train) if train else None, part, tuple(words))


def _picture(image: str, label: str, group: str | None) -> Picture:
    return Picture(base64.b64decode(image), label, group)


_MAKERS: dict[str, Callable[..., AnyRow]] = {
    "Row": Row,
    "Item": _item,
    "Exchange": Exchange,
    "Picture": _picture,
}


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
