"""Records out of lines of separated fields, such as those of CSV and TSV files."""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

_LONGEST = 2**31 - 1
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab"}
_QUOTES = 'a quote inside a quoted field is written twice (""); or save the rows as .jsonl'
_QUOTED = re.compile(r'"[^"]*("|$)')
_SAYS_ITSELF = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""The line in which Excel is told the separator, before the header."""


def records_of(path: Path, file: IO[str], usual: str) -> Iterator[dict[str, object]]:
    """One record a row; the separator is the one that the header has, else the `usual` one.

    Blank lines are passed over. Names lose the space around them; where a space follows every
    separator of the header, it is part of the separator.

    Raises:
        ValueError: a row has more fields than the header, or a quote that is not closed.
    """
    csv.field_size_limit(_LONGEST)  # the module has one limit for all readers, of 128 KiB
    above, first, delimiter = _header(file, usual)
    # strict: what follows a closing quote is otherwise added to the field
    reader = csv.reader(
        itertools.chain(["\n"] * above, [first], file),  # so that lines are counted as in the file
        delimiter=delimiter,
        strict=True,
        skipinitialspace=_spaced(first, delimiter),
    )
    header: list[str] = []
    for line, fields in _numbered(path, reader):
        if not header:
            header = [name.strip() for name in fields]
            refuse_twice(f"{path}, line {line}", header)
            continue
        if delimiter == "\t" and any("\t" in f and "\n" in f for f in fields):
            raise ValueError(
                f"task: {path}, line {line}: a quote opens a field that takes in the lines up to "
                f"{reader.line_num}; {_QUOTES}"
            )
        if any(fields[len(header) :]):
            name = _NAMES.get(delimiter, repr(delimiter))
            raise ValueError(
                f"task: {path}, line {line} has {len(fields)} fields, but the header has "
                f"{len(header)}; put fields that hold a {name} into quotes"
            )
        yield dict(itertools.zip_longest(header, fields[: len(header)]))


def refuse_twice(place: str, names: Sequence[str]) -> None:
    """Refuse a name that columns or keys share; blank ones are no names.

    Raises:
        ValueError: says the name, and `place`, where it is.
    """
    twice = [name for name, times in Counter(names).items() if times > 1 and name.strip()]
    if twice:
        raise ValueError(f"task: {place} names {twice[0]!r} twice; rename one")


def _header(file: IO[str], usual: str) -> tuple[int, str, str]:
    """How many lines are above the header, its first line, and the separator."""
    said = None
    for above in itertools.count():
        line = file.readline()
        match = None if said else _SAYS_ITSELF.fullmatch(line)
        if match:
            said = match[1]
        elif line.strip(" \r\n") or not line:
            return above, line, said or _delimiter(line, usual)
    raise AssertionError("a file ends")


def _delimiter(header: str, usual: str) -> str:
    """The usual separator, unless the header has another one and not that, outside of quotes."""
    bare = _QUOTED.sub("", header)
    if usual in bare:
        return usual
    return max((d for d in _NAMES if d in bare), key=bare.count, default=usual)


def _spaced(header: str, delimiter: str) -> bool:
    """Whether a space follows every separator of the header."""
    bare = _QUOTED.sub("", header)
    return 0 < bare.count(delimiter) == bare.count(f"{delimiter} ")


def _numbered(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the line that it begins in."""
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
        if fields:
            yield line, fields
