"""Plans, results, plug-ins and archives at random: taken, or refused with a reason."""

import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from example_result import RESULT, STUDY, TRIAL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import studies
from studies.archives import Archive, ArchiveError, Member
from studies.archives.unpack import unpack
from studies.engine.command import work
from studies.engine.command.importing import import_results
from studies.engine.definition.plugins import load_plugins
from studies.engine.definition.study import Budget
from studies.engine.errors import StudyError
from studies.engine.planning import runs
from studies.engine.planning.plan_file import Plan, read_plan
from studies.engine.records import Result, Trial, read_result, write_record

ROOT = Path(studies.__file__).resolve().parents[1]
fuzz = settings(deadline=None, suppress_health_check=list(HealthCheck))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
    | st.sampled_from(["../../x", "/etc", "NaN", "a\x00b", "\u202e"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)  # fmt: skip
PLAN = Plan(study="s", profile="embedded", metric="test/accuracy", budget=Budget(),
            trials=(TRIAL,))  # fmt: skip


def damaged(text: str, draw: random.Random) -> bytes:
    """`text` with a few bytes changed, or cut short."""
    content = bytearray(text.encode())
    for _ in range(draw.randint(1, 4)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content[: draw.randint(0, len(content))] if draw.random() < 0.3 else content)


def replaced(value: dict, path: list, new: object) -> dict:
    """A deep copy of `value` with the entry at `path` replaced."""
    copy = json.loads(json.dumps(value))
    at = copy
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return copy


def paths(value: object, above: tuple = ()) -> list[list]:
    """Where the entries of nested mappings and lists are."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in pairs:
        found.append([*above, key])
        if isinstance(inner, dict | list):
            found += paths(inner, (*above, key))
    return found


@settings(fuzz, max_examples=150)
@given(data=st.data())
def test_a_mutated_plan_is_read_or_refused_and_stays_below_its_folder(tmp_path: Path, data) -> None:
    plan = PLAN.model_dump(mode="json")
    file = tmp_path / "plan.json"
    if data.draw(st.booleans()):
        file.write_bytes(damaged(json.dumps(plan), random.Random(data.draw(st.integers(0, 2**32)))))
    else:
        mutated = replaced(plan, data.draw(st.sampled_from(paths(plan))), data.draw(VALUES))
        file.write_text(json.dumps(mutated))
    try:
        read = read_plan(file)
    except StudyError as error:
        assert str(error).startswith(f"{file}: no plan: ")
    else:
        for trial in read.trials:
            folder = runs.trial_dir(trial, tmp_path).resolve()
            assert folder.is_relative_to(tmp_path.resolve())


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"", b"null", b"\x00"])
def test_what_is_no_plan_is_one_message(tmp_path: Path, capsys, content: bytes) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(content)
    assert work.main([str(file), "--runs", str(tmp_path / "far")]) == work.BAD_INPUT
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{file}: no plan: ") and printed.out.count("\n") == 1


@settings(fuzz, max_examples=150)
@given(data=st.data())
def test_a_mutated_result_is_imported_whole_or_refused(tmp_path_factory, data) -> None:
    root = tmp_path_factory.mktemp("import")
    folder = root / "far" / "s" / "embedded" / "trials" / "x"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 1, "seconds": 0.1, "train/loss": 1.0}\n' * 2)
    name = data.draw(st.sampled_from(["result.json", "metrics.jsonl", "trial.json"]))
    texts = {"result.json": json.dumps(RESULT), "trial.json": TRIAL.model_dump_json()}
    for each, text in texts.items():
        (folder / each).write_text(text)
    if name == "result.json" and data.draw(st.booleans()):
        mutated = replaced(RESULT, data.draw(st.sampled_from(paths(RESULT))), data.draw(VALUES))
        (folder / name).write_text(json.dumps(mutated))
    else:
        draw = random.Random(data.draw(st.integers(0, 2**32)))
        (folder / name).write_bytes(damaged((folder / name).read_text(), draw))
    found = import_results(STUDY, [TRIAL], root / "far", root / "runs")
    assert len(found.taken) + len(found.refused) + len(found.strangers) == 1
    here = runs.result_of(TRIAL, root / "runs")
    if found.taken:
        assert here is not None and here.key == TRIAL.key
        assert here.status == "failed" or runs.value_of(here, "test/accuracy") is not None
        assert Trial.model_validate_json(
            (runs.trial_dir(TRIAL, root / "runs") / "trial.json").read_bytes()
        ) == TRIAL  # fmt: skip
    else:
        assert here is None
        assert all(reason for _, reason in [*found.refused, *found.strangers])
    assert {path.name for path in root.iterdir()} <= {"far", "runs"}
    shutil.rmtree(root)


def test_links_are_not_followed_by_an_import(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    folder = tmp_path / "far" / "x"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(RESULT))
    (folder / "log.txt").symlink_to(secret)
    found = import_results(STUDY, [TRIAL], tmp_path / "far", tmp_path / "runs")
    assert [reason for _, reason in found.refused] == ["it holds a link, which may lead anywhere"]
    (folder / "log.txt").unlink()
    os.mkdir(folder / "y")
    os.mkdir(folder / "y" / "result.json")  # a folder of that name is no result
    found = import_results(STUDY, [TRIAL], tmp_path / "far", tmp_path / "runs")
    assert len(found.taken) == 1 and len(found.refused) == 1


def test_a_result_that_is_not_finite_can_be_read_again(tmp_path: Path) -> None:
    result = Result(key="k", status="failed", metrics={"test/accuracy": float("nan")})
    write_record(tmp_path / "result.json", result)
    again = read_result(tmp_path)
    assert again is not None and str(again.metrics["test/accuracy"]) == "nan"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x = (", r":1: SyntaxError: "),
        (b"\n\nraise RuntimeError('broken\\non two lines')", ":3: RuntimeError: broken on two"),
        (b"import sys\nsys.exit(0)", ":2: SystemExit: 0"),
        (b"raise BaseException('base')", ":1: BaseException: base"),
        (b"raise GeneratorExit", ":1: GeneratorExit"),
        (b"x = '\x00'", "null bytes"),
        (b"x = '\xff'", "SyntaxError|UnicodeDecodeError"),
        (b"def f(): f()\nf()", ":1: RecursionError"),
        (b"import no_such_module", ":1: ModuleNotFoundError"),
        (b"x = " + b"(" * 5000, "SyntaxError|MemoryError|RecursionError"),
        (b"from basis_zoo import register_basis\n@register_basis('sinc')\nclass S: pass",
         "already|must|sinc"),
    ],
)  # fmt: skip
def test_a_broken_plugin_is_one_message_with_its_line(tmp_path: Path, content, message) -> None:
    file = tmp_path / "mine.py"
    file.write_bytes(content)
    with pytest.raises(StudyError, match=message) as caught:
        load_plugins([file])
    assert len(caught.value.problems) == 1 and str(file) in str(caught.value)


def test_a_plugin_that_registers_nothing_is_imported(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    assert len(load_plugins([tmp_path / "empty.py"])) == 1


@settings(fuzz, max_examples=60)
@given(content=st.binary(max_size=60))
def test_bytes_are_a_plugin_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "mine.py"
    file.write_bytes(b"if False:\n    " + content)  # what happens to be Python is not run
    try:
        load_plugins([file])
    except StudyError as error:
        assert str(error).startswith(f"plug-in {file}")


ROWS = b"row\n" * 200


def make_archive(kind: str, entries: list[tuple[str, bytes, str]]) -> bytes:
    """An archive with entries (name, content, type)."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content, _ in entries:
                archive.writestr(name, content)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as archive:
        for name, content, what in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content) if what == "file" else 0
            entry.type = {"file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE,
                          "device": tarfile.CHRTYPE}[what]  # fmt: skip
            entry.linkname = "/etc/passwd" if what in ("link", "hard") else ""
            archive.addfile(entry, io.BytesIO(content) if what == "file" else None)
    return buffer.getvalue()


def unpacked(root: Path, content: bytes, source: tuple[str, ...], size: int = len(ROWS)) -> Path:
    """Unpack one member into `root/in/out`; its sha256 is pinned to ROWS."""
    file, folder = root / "archive", root / "in" / "out"
    file.write_bytes(content)
    folder.mkdir(parents=True, exist_ok=True)
    member = Member(source, "rows.txt", size, hashlib.sha256(ROWS).hexdigest())
    archive = Archive("p", "1", "p-1.zip", len(content), "0" * 64, (member,))
    unpack(archive, file, folder)
    return folder / "rows.txt"


@settings(fuzz, max_examples=150)
@given(kind=st.sampled_from(["zip", "gz", "xz", "bz2", ""]), seed=st.integers(0, 2**32),
       nested=st.booleans())  # fmt: skip
def test_a_damaged_archive_gives_the_pinned_bytes_or_an_archive_error(
    tmp_path: Path, kind: str, seed: int, nested: bool
) -> None:
    draw = random.Random(seed)
    content = make_archive(kind, [("a/rows.txt", ROWS, "file"), ("b", b"x" * 300, "file")])
    hurt = bytearray(content)
    for _ in range(draw.randint(0, 3)):
        hurt[draw.randrange(len(hurt))] = draw.randrange(256)
    if draw.random() < 0.3:
        del hurt[draw.randrange(len(hurt)) :]
    content = bytes(hurt)
    source = ("a/rows.txt",)
    if nested:
        content, source = make_archive("zip", [("inner", content, "file")]), ("inner", *source)
    try:
        assert unpacked(tmp_path, content, source).read_bytes() == ROWS
    except ArchiveError as error:
        assert "p-1.zip" in str(error)


@pytest.mark.parametrize("kind", ["zip", "gz"])
@pytest.mark.parametrize("name", ["../../escape", "/tmp/escape-of-basis-zoo", "a/../../../escape"])
def test_no_name_in_an_archive_leads_out_of_the_folder(tmp_path: Path, kind: str, name) -> None:
    content = make_archive(kind, [(name, ROWS, "file"), ("rows", ROWS, "file")])
    unpacked(tmp_path, content, (name,))
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert files == ["archive", "in/out/rows.txt"]
    assert not Path("/tmp/escape-of-basis-zoo").exists()


@pytest.mark.parametrize("what", ["link", "hard", "device"])
def test_only_regular_files_are_unpacked(tmp_path: Path, what: str) -> None:
    with pytest.raises(ArchiveError, match="not a regular file"):
        unpacked(tmp_path, make_archive("gz", [("rows", b"", what)]), ("rows",))


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_a_member_that_grows_is_cut_off(tmp_path: Path, kind: str) -> None:
    """A bomb: 20 MB of zeros in 20 kB, where 800 bytes were promised."""
    content = make_archive(kind, [("rows", bytes(20_000_000), "file")])
    with pytest.raises(ArchiveError, match="does not match its pinned sha256"):
        unpacked(tmp_path, content, ("rows",))
    assert (tmp_path / "in" / "out" / "rows.txt").stat().st_size == len(ROWS) + 1


def test_no_code_of_ours_unpickles_or_evaluates() -> None:
    """Every call that could run a file's content is one of the safe kind."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    listed = listed or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py")]
    sources = [ROOT / name for name in listed if not name.startswith("tests/")]
    assert len(sources) > 100
    forbidden = re.compile(
        r"torch\.load\((?![^)]*weights_only=True)|(?<![\w.])(?:eval|exec)\(|\bpickle\.|cPickle"
        r"|\byaml\.(?:load|full_load|unsafe_load|FullLoader|UnsafeLoader|Loader)\b|\bjoblib\b"
        r"|np\.load\((?![^)]*allow_pickle=False)|allow_pickle=True|trust_remote_code=True"
        r"|shell=True|os\.system|extractall\("
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []
