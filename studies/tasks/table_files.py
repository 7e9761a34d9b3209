"""Records out of a CSV, TSV, JSON, JSON Lines or Parquet file, the text formats also compressed.

The standard library reads the text formats: readers that guess types turn the text "NA" into
nothing and the label "01" into 1. What cannot be read without a doubt is refused with its line.
"""

import bz2
import codecs
import csv
import gzip
import io
import itertools
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

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
_LONGEST = 2**31 - 1
_QUOTES = 'a quote inside a quoted field is written twice (""); or save the rows as .jsonl'


def is_table(name: str) -> bool:
    """Whether a task's name is the path of such a file."""
    return _suffixes(name)[0] in SUFFIXES


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
                yield from _fields(path, file, "\t" if suffix == ".tsv" else ",")
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


def _fields(path: Path, file: IO[str], usual: str) -> Iterator[dict[str, object]]:
    """Rows of separated fields; the separator is the one that the header has."""
    csv.field_size_limit(_LONGEST)  # the module has one limit for all readers, of 128 KiB
    first = file.readline()
    delimiter = _delimiter(first, usual)
    # strict: what follows a closing quote is otherwise added to the field
    reader = csv.reader(itertools.chain([first], file), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise ValueError(
                f"task: {path}, line {line}: the row that begins here is broken in line "
                f"{reader.line_num} ({error}); {_QUOTES}"
            ) from error
        if fields is None:
            return
        if not fields:
            continue
        if not header:
            header = fields
            _refuse_twice(path, line, header)
            continue
        if delimiter == "\t" and any("\t" in f and "\n" in f for f in fields):
            raise ValueError(
                f"task: {path}, line {line}: a quote opens a field that takes in the lines up to "
                f"{reader.line_num}; {_QUOTES}"
            )
        if any(fields[len(header) :]):
            raise ValueError(
                f"task: {path}, line {line} has {len(fields)} fields, but the header has "
                f"{len(header)}; put fields that hold a {_NAMES[delimiter]} into quotes"
            )
        yield dict(itertools.zip_longest(header, fields[: len(header)]))


_NAMES = {",": "comma", ";": "semicolon", "\t": "tab"}


def _delimiter(header: str, usual: str) -> str:
    """The usual separator, unless the header has another one and not that."""
    if usual in header:
        return usual
    return max((d for d in _NAMES if d in header), key=header.count, default=usual)


def _refuse_twice(path: Path, line: int, names: Sequence[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1 and name.strip()]
    if twice:
        raise ValueError(f"task: {path}, line {line} names {twice[0]!r} twice; rename one")


def _object(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        record = json.loads(line, object_pairs_hook=lambda pairs: _dict(path, number, pairs))
    except json.JSONDecodeError as error:
        raise ValueError(f"task: {path}, line {number} is no JSON: {error}") from error
    except (RecursionError, ValueError) as error:  # nested too deep, a number too long
        raise _odd_json(f"{path}, line {number}", error) from error
    if not isinstance(record, dict):
        raise ValueError(f"task: {path}, line {number} must be a JSON object, got {line[:60]!r}")
    return record


def _dict(path: Path, number: int, pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    _refuse_twice(path, number, [name for name, _ in pairs])
    return dict(pairs)


def _once(path: Path, pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"task: {path} has an object that names {sorted(twice)} twice: {names}")
    return dict(pairs)


def _odd_json(place: str, error: Exception) -> ValueError:
    if str(error).startswith("task: "):
        return ValueError(str(error))
    return ValueError(f"task: {place}: this JSON cannot be read ({error})")


def _array(path: Path, text: str) -> list[dict[str, object]]:
    try:
        records = json.loads(text, object_pairs_hook=lambda pairs: _once(path, pairs))
    except json.JSONDecodeError as error:
        hint = "; a file with one object a line ends in .jsonl" if "Extra" in error.msg else ""
        raise ValueError(f"task: {path} is no JSON: {error}{hint}") from error
    except (RecursionError, ValueError) as error:
        raise _odd_json(str(path), error) from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"task: {path} must be a JSON array of objects")
    return records


def _parquet(path: Path) -> Iterator[dict[str, object]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        _refuse_twice(path, 1, file.schema_arrow.names)
        for batch in file.iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, OverflowError, UnicodeDecodeError) as error:
        raise ValueError(
            f"task: {path} cannot be read as parquet: {error}. Where a column that the task does "
            "not name is at fault, save the file without it"
        ) from error
