"""What comes from another machine: taken with our permissions, refused where no trial found it."""

import json
import os
import tarfile
from pathlib import Path

import pytest
from example_result import RESULT, STUDY, TRIAL

from studies.engine.command import importing
from studies.engine.command.importing import import_results, opened
from studies.engine.errors import StudyError
from studies.engine.planning import runs
from studies.engine.records import Result, write_record

COST = {"trainable_parameters": 1, "adapter_parameters": 1, "phi_parameters": 1,
        "total_parameters": 1, "train_seconds": 1, "step_seconds": 1,
        "peak_memory_bytes": 1}  # fmt: skip
LINE = {"step": 1, "seconds": 0.1, "train/loss": 1.0}


def bring(tmp_path: Path, result: dict | None = None, line: dict | str | None = None):
    """Import one result with these changes."""
    folder = tmp_path / "far" / "x"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(RESULT | (result or {})))
    text = line if isinstance(line, str) else json.dumps(LINE | (line or {}))
    (folder / "metrics.jsonl").write_text(text + "\n" + json.dumps(LINE))
    return import_results(STUDY, [TRIAL], tmp_path / "far", tmp_path / "runs")


@pytest.mark.parametrize(
    ("result", "line", "reason"),
    [
        ({"started": "9999-12-31T23:59:59+00:00"}, None, "started in the year 9999"),
        ({"started": "0001-01-01T00:00:00"}, None, "started in the year 1"),
        ({"seconds": 1e300}, None, "took 1e+300 seconds"),
        ({"attempt": 10**18}, None, "attempt 1000000000000000000"),
        ({"metrics": {"test/accuracy": 1e308}}, None, "test/accuracy is beyond 1e+100"),
        ({"metrics": {"test/accuracy": 0.5, "x": -1e300}}, None, "x is beyond 1e+100"),
        ({"metrics": {"test/accuracy": float("nan")}}, None, "done without a finite test/accuracy"),
        ({"cost": COST | {"train_seconds": 1e200}}, None, "train_seconds is beyond 1e+100"),
        ({"cost": COST | {"total_parameters": 10**400}}, None, "total_parameters is beyond"),
        ({}, {"step": 1e18}, "step 1e+18"),
        ({}, {"step": -1}, "step -1"),
        ({}, {"seconds": 1e300}, "after 1e+300 seconds"),
        ({}, {"train/loss": 1e308}, "train/loss is 1e+308"),
        ({}, {"train/loss": 10**400}, "train/loss is 1000"),
        ({}, {"train/loss": float("nan")}, "train/loss is nan"),
        ({}, {"train/loss": "low"}, "train/loss is 'low'"),
        ({}, "{nonsense", "expected"),
    ],
)
def test_what_no_trial_finds_is_refused_with_the_reason(tmp_path, result, line, reason) -> None:
    found = bring(tmp_path, result, line)
    assert [reason in why for _, why in found.refused] == [True], found.refused
    assert max(len(why) for _, why in found.refused) < 300
    assert not runs.trial_dir(TRIAL, tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"started": ""},
        {"started": "1970-01-01T00:00:05+00:00"},
        {"metrics": {"test/accuracy": 0.5, "train/loss": float("inf"), "x": float("nan")}},
        {"cost": COST},
    ],
)
def test_what_a_trial_can_find_is_taken(tmp_path: Path, result: dict) -> None:
    found = bring(tmp_path, result)
    assert found.taken == [TRIAL] and found.refused == []


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        ({"contents": {"task": "1"}}, ": a seed 0: trained with another content of ./rows.csv"),
        ({"config": {"adapter": {"r": 4}}}, ": a seed 0: other settings or seeds"),
        ({"plugins": ("/there/p.py",), "plugin_hashes": ("1",)}, "a seed 0: trained with p.py"),
        ({"config": {"adapter": 1, "task": 2}}, ": a seed 0: other settings or seeds"),
        ({"arm": "b", "config": {}}, "has no point {key}"),
    ],
)
def test_what_makes_a_result_another_trials_is_said(tmp_path: Path, theirs, reason: str) -> None:
    config = {"adapter": {"r": 8}, "task": {"name": "./rows.csv"}}
    ours = TRIAL.model_copy(update={"config": config, "contents": {"task": "0"}})
    other = ours.model_copy(update=theirs)
    for name, record in (("trial", other), ("result", Result(**RESULT | {"key": other.key}))):
        write_record(tmp_path / "far" / "x" / f"{name}.json", record)
    found = import_results(STUDY, [ours], tmp_path / "far", tmp_path / "runs")
    [(_, why)] = found.strangers
    assert why.endswith(reason.format(key=other.key)) and not found.taken


def test_an_archive_of_another_study_is_refused_in_a_few_lines(tmp_path: Path) -> None:
    found = importing.Imported(strangers=[(tmp_path / str(n), f"no {n}") for n in range(200)])
    lines = list(found.refusals(later=""))
    assert lines[0] == f"refused: {tmp_path / '0'}: no 0" and len(lines) == 6
    assert lines[-1] == "refused: 195 more of which the plan has no point"
    assert list(found.refusals(later="the next stage")) == []


def test_files_are_taken_with_our_permissions(tmp_path: Path) -> None:
    folder = tmp_path / "far" / "x"
    (folder / "more" / "checkpoint-3").mkdir(parents=True)
    for name in ("log.txt", "more/spectra.npz", "more/checkpoint-3/w", ".hidden", "pid"):
        (folder / name).write_text("x")
        (folder / name).chmod(0o400)
    before = os.umask(0o022)
    try:
        assert bring(tmp_path).taken == [TRIAL]
    finally:
        os.umask(before)
    target = runs.trial_dir(TRIAL, tmp_path / "runs")
    assert {p.relative_to(target).as_posix(): p.stat().st_mode & 0o777 for p in target.rglob("*")
            if p.is_file()} == dict.fromkeys(
        ("log.txt", "more/spectra.npz", "metrics.jsonl", "result.json", "trial.json"), 0o644
    )  # fmt: skip
    assert [path.name for path in target.parent.iterdir()] == [TRIAL.key]


def test_files_that_may_not_be_read_leave_what_is_here(tmp_path: Path, monkeypatch) -> None:
    failed = {"status": "failed", "failure": {"kind": "timeout", "message": "late"}}
    assert bring(tmp_path, failed).taken == [TRIAL]

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr(importing.shutil, "copyfile", refuse)
    found = bring(tmp_path)
    assert ["Permission denied" in why for _, why in found.refused] == [True]
    here = runs.result_of(TRIAL, tmp_path / "runs")
    assert here is not None and here.status == "failed"


def test_an_archive_is_taken_as_a_folder(tmp_path: Path) -> None:
    bring(tmp_path)
    with tarfile.open(tmp_path / "far.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "far", "far")
    with opened(tmp_path / "far.tar.xz") as folder:
        found = import_results(STUDY, [TRIAL], folder, tmp_path / "anew")
    assert found.taken == [TRIAL] and not folder.exists()


@pytest.mark.parametrize("kind", ["absent", "text", "cut off", "outside"])
def test_what_is_no_whole_archive_is_refused(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "far.tar.xz"
    with tarfile.open(source, "w:xz") as archive:
        archive.add(__file__, "../../outside" if kind == "outside" else "inside")
    if kind == "absent":
        source.unlink()
    elif kind == "text":
        source.write_text("no archive")
    elif kind == "cut off":
        source.write_bytes(source.read_bytes()[:-200])
    words = "no such folder or archive" if kind == "absent" else "no whole tar archive"
    with pytest.raises(StudyError, match=words), opened(source):
        pass
    assert not list(tmp_path.parent.rglob("outside"))


def test_an_archive_that_holds_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "far.tar.xz", "w:xz") as archive:
        archive.add(__file__, "a")
    monkeypatch.setattr(importing, "LARGEST_ARCHIVE", 100)
    with pytest.raises(StudyError, match="more than 100 bytes"), opened(tmp_path / "far.tar.xz"):
        pass
