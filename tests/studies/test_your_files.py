"""A user's table file is read as it is meant, or refused with the line and the remedy."""

import bz2
import contextlib
import csv
import gzip
import json
import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies import tasks
from studies.tasks.table_files import read_records

HEADER = "text,label"
ROWS = [f"sentence {n} ist schön,{'neg' if n % 2 else 'pos'}" for n in range(40)]
TEXT = "\n".join([HEADER, *ROWS]) + "\n"
RECORDS = [dict(zip(("text", "label"), row.split(","), strict=True)) for row in ROWS]


def read(path: Path, content: str | bytes) -> list[dict[str, object]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_records(path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(encoding: str, tmp_path: Path) -> None:
    assert read(tmp_path / "rows.csv", TEXT.encode(encoding)) == RECORDS
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS)
    assert read(tmp_path / "rows.jsonl", lines.encode(encoding)) == RECORDS
    array = json.dumps(RECORDS, ensure_ascii=False)
    assert read(tmp_path / "rows.json", array.encode(encoding)) == RECORDS


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ";"), ("csv", "\t"), ("tsv", ",")])
def test_another_separator_is_recognised(suffix: str, delimiter: str, tmp_path: Path) -> None:
    text = TEXT.replace(",", delimiter).replace(
        "ist", "ist, wirklich," if delimiter != "," else "ist"
    )
    found = read(tmp_path / f"rows.{suffix}", text)
    assert list(found[0]) == ["text", "label"] and found[1]["label"] == "neg" and len(found) == 40


@pytest.mark.parametrize(
    ("ending", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_compressed_text_is_read(
    ending: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / f"rows.csv{ending}"
    assert read(path, pack(TEXT.encode("utf-16"))) == RECORDS
    assert tasks.load(str(path)).labels == ("neg", "pos")
    with pytest.raises(ValueError, match=f"is no whole {ending} file"):
        read(path, pack(TEXT.encode())[:-12])


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("sep=;\ntext;label", "a, b;c"),
        ('"SEP=|"\r\ntext|label', "a, b|c"),
        ("\n  \ntext;label", "a, b;c"),
        ("\ufeff\ntext;label", "a, b;c"),
        ("text, label", '"a, b", c'),
        ('text, "label"', '"a, b", "c"'),
        (" text ,label ", '"a, b",c'),
        ('"text";label;"of, whom"', '"a, b";c;d'),
        ('text\tlabel\t"of\nwhom, when"', "a, b\tc\td"),
    ],
)
def test_headers_are_read_as_programs_write_them(header: str, row: str, tmp_path: Path) -> None:
    found = read(tmp_path / "rows.csv", f"{header}\n{row}\n")
    assert [(record["text"], record["label"]) for record in found] == [("a, b", "c")]


def test_lines_above_the_header_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 5 has 3 fields, .* has 2; .*a semicolon"):
        read(tmp_path / "rows.csv", "sep=;\n\ntext;label\na;b\na;b;c\n")


def test_space_inside_a_field_stays(tmp_path: Path) -> None:
    assert read(tmp_path / "rows.csv", "text,label\n a, b\n")[0] == {"text": " a", "label": " b"}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_names_that_are_blank_are_no_names(name: str, tmp_path: Path) -> None:
    line = '{"": 1, "": 2, "text": 3}'
    assert read(tmp_path / name, f"[{line}]" if name == "a.json" else line)[0]["text"] == 3


def test_fields_may_be_long(tmp_path: Path) -> None:
    assert (
        len(str(read(tmp_path / "rows.csv", f"text,label\n{'a' * 300_000},b\n")[0]["text"]))
        == 300_000
    )


def test_lines_inside_quotes_are_one_field(tmp_path: Path) -> None:
    found = read(tmp_path / "rows.csv", 'text,label\n"Dear all,\nI say ""no""",b\nx,\ny\n\n')
    assert found == [
        {"text": 'Dear all,\nI say "no"', "label": "b"},
        {"text": "x", "label": ""},
        {"text": "y", "label": None},
    ]
    assert read(tmp_path / "rows.tsv", 'text\tlabel\n"two\nlines"\tb\n')[0]["text"] == "two\nlines"


SWALLOWED = 'text\tlabel\nfirst\tneg\n"one\tneg\ntwo\tpos\n{}three\tneg\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "text,label\na,b\nwell, no,b\n",
            "line 3 has 3 fields, but the header has 2.*comma",
        ),
        ("a.csv", "text,label,text\na,b,c\n", "line 1 names 'text' twice; rename one"),
        ("a.jsonl", '{"a": 1}\n{"a": 1, "a": 2}\n', "line 2: an object names 'a' twice"),
        (
            "a.tsv",
            SWALLOWED.format('"'),
            "line 3: the row that begins here is broken in line 5.*twice",
        ),
        ("a.tsv", SWALLOWED.format('x "\t'), "line 3: a quote opens a field .* up to 5;"),
        (
            "a.tsv",
            'text\tlabel\n"one\tneg\ntwo"\tpos\n',
            "line 2: a quote opens a field .* up to 3;",
        ),
        ("a.csv", 'text,label\n"one,neg\ntwo,pos\n', "line 2: .* is broken in line 3"),
        ("a.csv", 'text,label\n"say \\"no\\"",neg\n', "line 2: .* is broken in line 2"),
        ("a.csv", TEXT.encode("latin-1"), "line 2 is no UTF-8 .byte 0xf6.*Latin-1.*iconv"),
        ("a.jsonl", b'{"a": "\xe9"}', "line 1 is no UTF-8"),
        ("a.csv", TEXT.encode("utf-16-le"), "looks like UTF-16 without a byte order mark"),
        ("a.csv", TEXT.encode("utf-16")[:-1], "is not whole"),
        ("a.csv.zip", b"PK", "must be unpacked first.*.gz, .bz2, .xz"),
        ("a.parquet.gz", b"PK", "must be unpacked first"),
        ("a.parquet", b"PK", "cannot be read as parquet"),
        ("a.csv.bz2", bz2.compress(TEXT.encode())[:40] + b"x" * 60, "is no whole .bz2 file"),
        ("a.jsonl", "[" * 20_000, "line 1: this JSON cannot be read"),
        ("a.jsonl", '{"a": ' + "1" * 5000 + "}", "line 1: this JSON cannot be read"),
        ("a.json", '[{"a": 1, "a": 2}]', "an object names 'a' twice; rename one"),
        ("a.json", '{"a": 1}\n{"a": 2}\n', "is no JSON.*ends in .jsonl"),
    ],
)
def test_what_is_in_doubt_is_refused(
    name: str, content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name, content)


def test_a_date_that_python_cannot_hold_is_refused_in_words(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    dates = pa.array([2**62] * 2, pa.timestamp("us"))
    pa.parquet.write_table(pa.table({"text": ["a", "b"], "at": dates}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"cannot be read as parquet.*save the file without it"):
        list(read_records(tmp_path / "a.parquet"))


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"rows.xlsx is no table.*\.csv.*save it as"):
        tasks.check(str(tmp_path / "rows.xlsx"))


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(rows=st.lists(st.tuples(CELLS, CELLS), max_size=6), delimiter=st.sampled_from(",;"))
def test_what_csv_writes_is_read_as_it_was(rows: list[tuple[str, str]], delimiter: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=delimiter).writerows([("text", "label"), *rows])
        assert [(r["text"], r["label"]) for r in read_records(path)] == rows


@given(
    suffix=st.sampled_from(["csv", "tsv", "json", "jsonl", "parquet", "csv.gz", "json.xz"]),
    content=st.binary(max_size=60)
    | st.text(alphabet='a,;\t\n\r"{}[]:1', max_size=40).map(str.encode),
)
def test_any_bytes_are_read_or_refused(suffix: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{suffix}"
        path.write_bytes(content)
        with contextlib.suppress(ValueError):
            list(read_records(path))
