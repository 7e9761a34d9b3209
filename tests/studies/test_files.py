"""Files of ours: whole or not at all, with the user's umask, and read with suspicion."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import fake_points
import psutil
import pytest
from example_result import RESULT, TRIAL

import studies
from studies import files
from studies.engine.command import progress
from studies.engine.planning import runs
from studies.engine.planning.plan_file import Plan
from studies.engine.records import read_result, write_record
from studies.engine.searching import search
from studies.engine.trials import metrics_file
from studies.tasks import rows_cache, token_cache
from studies.tasks.rows import Row

ROOT = Path(studies.__file__).parent


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def mode(request: pytest.FixtureRequest) -> Iterator[int]:
    """What a new file's permissions have to be."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def test_every_kind_of_file_obeys_the_umask(tmp_path: Path, mode: int) -> None:
    files.write_text(tmp_path / "text", "ä")
    rows_cache.cached_rows(tmp_path / "rows", lambda: [Row(("a",), 1)])
    token_cache._write(tmp_path / "tokens", {"input_ids": [[1], [2, 3]]})
    write_record(tmp_path / "plan", Plan(study="s", profile="p", metric="m", budget={}, trials=()))
    found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert found == dict.fromkeys(("text", "rows", "tokens", "plan"), mode)
    assert (tmp_path / "text").read_text(encoding="utf-8") == "ä"


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    files.write_text(file, "old")
    with pytest.raises(ZeroDivisionError), files.replacing(file) as scratch:
        scratch.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(UnicodeEncodeError):
        files.write_text(file, "half \ud800")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_there_is_one_way_to_replace_a_file() -> None:
    pattern = re.compile(r"mkstemp|NamedTemporaryFile|os\.replace\(")
    found = [
        str(path.relative_to(ROOT))
        for path in sorted(ROOT.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if pattern.search(line)
    ]
    assert set(found) == {"files.py"}


NOW = psutil.Process()


@pytest.mark.parametrize(
    ("holder", "state"),
    [
        (None, "waiting"),
        ("", "waiting"),
        ("nonsense", "waiting"),
        ("[]", "waiting"),
        ('{"pid": "x", "started": 1}', "waiting"),
        ('{"pid": -1, "started": 1}', "waiting"),
        ('{"pid": 1e400, "started": 1}', "waiting"),
        (f'{{"pid": {10**30}, "started": 1}}', "waiting"),
        (f'{{"pid": {NOW.pid}}}', "waiting"),
        (str(NOW.pid), "waiting"),  # of an earlier version: whose it is now nobody knows
        (json.dumps({"pid": NOW.pid, "started": NOW.create_time() - 3600}), "waiting"),
        (json.dumps({"pid": NOW.pid, "started": NOW.create_time()}), "running"),
    ],
    ids=map(str, range(12)),  # a number of a process in a name differs between xdist's workers
)
def test_a_trial_runs_while_the_process_that_holds_it_lives(tmp_path: Path, holder, state) -> None:
    folder = runs.trial_dir(TRIAL, tmp_path)
    folder.mkdir(parents=True)
    if holder is not None:
        (folder / "pid").write_text(holder)
    assert runs.state_of(TRIAL, tmp_path) == state


def test_who_holds_a_trial_lets_go_or_dies(tmp_path: Path) -> None:
    folder = runs.trial_dir(TRIAL, tmp_path)
    folder.mkdir(parents=True)
    runs.hold(folder)
    assert runs.state_of(TRIAL, tmp_path) == "running"
    runs.release(folder)
    runs.release(folder)
    assert runs.state_of(TRIAL, tmp_path) == "waiting"
    child = os.fork()
    if child == 0:
        runs.hold(folder)
        os._exit(0)
    os.waitpid(child, 0)
    assert json.loads((folder / "pid").read_text())["pid"] == child
    assert runs.state_of(TRIAL, tmp_path) == "waiting"


@pytest.mark.parametrize("what", ["folder", "unreadable", "nonsense", "bytes"])
def test_a_result_that_cannot_be_read_is_none(tmp_path: Path, what: str, monkeypatch) -> None:
    folder = runs.trial_dir(TRIAL, tmp_path)
    folder.mkdir(parents=True)
    file = folder / "result.json"
    contents = {"nonsense": b"{", "bytes": b"\xff\xfe", "unreadable": json.dumps(RESULT).encode()}
    file.mkdir() if what == "folder" else file.write_bytes(contents[what])
    if what == "unreadable":
        assert read_result(folder) is not None
        monkeypatch.setattr(Path, "read_text", _refuse)
    assert read_result(folder) is None
    assert runs.state_of(TRIAL, tmp_path) == "waiting"
    assert runs.value_of(runs.result_of(TRIAL, tmp_path), "test/accuracy") is None


def test_trials_that_are_a_file_hold_no_trial(tmp_path: Path) -> None:
    (tmp_path / "s" / "embedded").mkdir(parents=True)
    (tmp_path / "s" / "embedded" / "trials").write_text("")
    assert runs.state_of(TRIAL, tmp_path) == "waiting"


@pytest.mark.parametrize("content", [b"nonsense", b"\xff", b"[]", None])
def test_a_record_that_is_none_is_no_point_of_a_search(tmp_path: Path, content) -> None:
    lab = fake_points.Lab.unchecked(tmp_path)
    assert search.history(lab.study, lab.make, lab.runs_dir) == []
    file = runs.study_dir(lab.study, lab.runs_dir) / "trials" / "x" / "trial.json"
    file.parent.mkdir(parents=True)
    file.mkdir() if content is None else file.write_bytes(content)
    assert search.history(lab.study, lab.make, lab.runs_dir) == []


@pytest.mark.parametrize("line", ["1", "[]", "{", "null", '{"step": 1e400}', '"x"'])
def test_a_metrics_file_of_any_content_is_shown(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(line)
    step, latest = progress._latest(tmp_path / "metrics.jsonl")
    assert step in (None, 1) and isinstance(latest, str)
    assert isinstance(metrics_file.read_metrics(tmp_path / "metrics.jsonl"), list)


def test_a_whole_number_beyond_every_float_is_no_number() -> None:
    assert not metrics_file.is_number(10**400)


def _refuse(*arguments: object, **options: object) -> str:
    raise PermissionError(13, "Permission denied")
