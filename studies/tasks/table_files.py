"""Records out of a CSV, TSV, JSON, JSON Lines or Parquet file, the text formats also compressed.

The standard library reads the text formats: readers that guess types turn the text "NA" into
nothing and the label "01" into 1. What cannot be read without a doubt is refused with its line.
"""

import bz2
import codecs
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from studies.tasks.separated import records_of, refuse_twice

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_OPENERS: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_PACKED = (*_OPENERS, ".zip", ".zst", ".7z")
_MARKS = (  # UTF-32 before UTF-16, whose mark is the beginning of its own
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def is_table(name: str) -> bool:
    """Whether a task's name is the path of such a file."""
    return suffix_of(name) in SUFFIXES


def suffix_of(name: str) -> str:
    """The ending that tells a file's format, in lower case and without that of a compression."""
    return _suffixes(name)[0]


def read_records(path: Path) -> Iterator[dict[str, object]]:
    """The records of a file, one after the other; what a row lacks is None.

    Raises:
        ValueError: the file is not what its name says; the message has the line.
    """
    suffix, packed = _suffixes(path.name)
    if packed and (packed not in _OPENERS or suffix == ".parquet"):
        raise ValueError(
            f"task: {path} must be unpacked first: of compressed files, those of text that end in "
            f"{', '.join(_OPENERS)} are read"
        )
    if suffix == ".parquet":
        yield from _parquet(path)
        return
    try:
        with (
            _opened(path, packed) as raw,
            io.TextIOWrapper(raw, encoding=_encoding(path, packed), newline="") as file,
        ):
            if suffix == ".json":
                yield from _array(path, file.read())
            elif suffix == ".jsonl":
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield _object(path, number, line)
            else:
                yield from records_of(path, file, "\t" if suffix == ".tsv" else ",")
    except UnicodeDecodeError as error:
        raise ValueError(_undecodable(path, packed)) from error
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"task: {path} is no whole {packed} file: {error}") from error
    except OSError as error:  # bz2's and gzip's own faults have no number, the disk's have
        if error.errno is not None or not packed:
            raise
        raise ValueError(f"task: {path} is no whole {packed} file: {error}") from error


def _suffixes(name: str) -> tuple[str, str]:
    """The ending that tells the format, and that of the compression around it or ""."""
    path = Path(name.lower())
    if path.suffix in _PACKED:
        return Path(path.stem).suffix, path.suffix
    return path.suffix, ""


def _opened(path: Path, packed: str) -> IO[bytes]:
    opened: IO[bytes] = _OPENERS[packed](path, "rb") if packed else path.open("rb")
    return opened


def _encoding(path: Path, packed: str) -> str:
    """What the byte order mark says, UTF-8 without one.

    Raises:
        ValueError: there are zero bytes and no mark.
    """
    with _opened(path, packed) as file:
        start = file.read(4)
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    if b"\0" in start:
        raise ValueError(
            f"task: {path} is no UTF-8: it looks like UTF-16 without a byte order mark; save it "
            "as UTF-8"
        )
    return "utf-8"


def _undecodable(path: Path, packed: str) -> str:
    """The first line that is no UTF-8, and what to do about it."""
    encoding = _encoding(path, packed)
    if not encoding.startswith("utf-8"):
        return f"task: {path} is not whole, or no {encoding}, which its first bytes announce"
    with _opened(path, packed) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return (
                    f"task: {path}, line {number} is no UTF-8 (byte 0x{line[error.start]:02x}): "
                    "the file may be Latin-1 or Windows-1252; save it as UTF-8, e.g. `iconv -f "
                    f"WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}`"
                )
    return f"task: {path} ends within a character; it is not whole"


def _object(path: Path, number: int, line: str) -> dict[str, object]:
    record = _parsed(f"{path}, line {number}", line)
    if not isinstance(record, dict):
        raise ValueError(f"task: {path}, line {number} must be a JSON object, got {line[:60]!r}")
    return record


def _array(path: Path, text: str) -> list[dict[str, object]]:
    records = _parsed(str(path), text)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"task: {path} must be a JSON array of objects")
    return records


def _parsed(place: str, text: str) -> Any:
    """What the JSON in `text` says; no object in it may name a key twice."""

    def once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
        refuse_twice(f"{place}: an object", [name for name, _ in pairs])
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        several = "Extra" in error.msg and "\n" in text.strip()
        hint = "; a file with one object a line ends in .jsonl" if several else ""
        raise ValueError(f"task: {place} is no JSON: {error}{hint}") from error
    except (RecursionError, ValueError) as error:  # nested too deep, a number too long
        if str(error).startswith("task: "):
            raise
        raise ValueError(f"task: {place}: this JSON cannot be read ({error})") from error


def _parquet(path: Path) -> Iterator[dict[str, object]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        refuse_twice(str(path), file.schema_arrow.names)
        for batch in file.iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, OverflowError, UnicodeDecodeError) as error:
        raise ValueError(
            f"task: {path} cannot be read as parquet: {error}. Where a column that the task does "
            "not name is at fault, save the file without it"
        ) from error
