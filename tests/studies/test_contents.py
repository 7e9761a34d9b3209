"""The content of the user's own files is part of a trial: which count, when they are read."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from studies import backbones, tasks
from studies.archives import contents
from studies.engine.definition import schema
from studies.engine.definition.contents import check_contents
from studies.engine.errors import StudyError
from studies.engine.planning.plan import plan
from studies.engine.trials.trial import run_trial

FILES = {
    "table": ({"name": "./rows.csv"}, ["rows.csv"]),
    "splits": ({"name": "./splits"}, ["splits/train.csv", "splits/test.csv"]),
    "folder": ({"name": "./images"}, ["images/a/1.png", "images/b/2.png", "images/README.md"]),
    "alpaca": ({"name": "alpaca", "data": "./alpaca.json"}, ["alpaca.json"]),
    "glue": ({"name": "glue_rte", "data": "./rte"}, ["rte/train.csv", "rte/validation.csv"]),
    "images": ({"name": "pets", "data": "./pets"}, ["pets/train/cat/1.png"]),
    "commonsense": (
        {"name": "commonsense_15k", "data": "./suite"},
        ["suite/commonsense_15k.json", "suite/dataset/boolq/test.json"],
    ),
    "backbone": ({"name": "./bert"}, ["bert/config.json", "bert/model.safetensors"]),
}
OTHERS = {
    "table": "other.csv",
    "splits": "splits/notes.txt",
    "folder": "images/.git/HEAD",
    "alpaca": "other.json",
    "glue": "rte/notes.txt",
    "images": "pets/.DS_Store",
    "commonsense": "suite/notes.txt",
    "backbone": "bert/README.md",
}


def write(name: str, text: str) -> None:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize("case", FILES)
def test_the_files_that_are_read_count_and_no_others(case: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec, names = FILES[case]
    room: Any = backbones if case == "backbone" else tasks
    for name in names:
        write(name, f"the first {name}")
    write(OTHERS[case], "nothing of it")
    before = room.content(spec)
    assert before is not None
    write(OTHERS[case], "something else")
    assert room.content(spec) == before
    for name in names:
        write(name, f"another {name}")
        now = room.content(spec)
        write(name, f"the first {name}")
        assert now != before == room.content(spec)


@pytest.mark.parametrize("name", ["movie_sentences", "glue_rte", "owner/name:subset", "pets"])
def test_what_ships_and_what_the_hub_has_is_not_read(name: str, monkeypatch) -> None:
    monkeypatch.setattr(contents, "_read", pytest.fail)
    assert tasks.content({"name": name}) is None
    assert backbones.content("minilm") is backbones.content("owner/name") is None


def test_a_name_in_a_folder_is_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    one = contents.content_of(contents.files_below(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    assert contents.content_of(contents.files_below(tmp_path)) != one


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[int]]:
    """A file that counts as large, and how often it was read."""
    monkeypatch.setenv("BASIS_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "LARGE", 4)
    real, reads = contents._read, []
    monkeypatch.setattr(contents, "_read", lambda files: reads.append(1) or real(files))
    (tmp_path / "large").write_text("before")
    return tmp_path / "large", reads


def test_large_files_are_read_again_once_they_changed(large, monkeypatch) -> None:
    file, reads = large
    monkeypatch.setattr(contents, "SETTLED", -60.0)
    before = contents.content_of({"": file})
    assert contents.content_of({"": file}) == before and len(reads) == 1
    times = file.stat()
    while file.stat().st_ctime_ns == times.st_ctime_ns:  # a clock may tick every 4 ms
        file.write_text("after!")  # as long, and of the same age
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert contents.content_of({"": file}) != before and len(reads) == 2


def test_what_changed_just_now_is_not_kept_and_a_damaged_note_is_none(large, monkeypatch) -> None:
    file, reads = large
    assert contents.content_of({"": file}) == contents.content_of({"": file})
    assert len(reads) == 2
    monkeypatch.setattr(contents, "SETTLED", -60.0)
    before = contents.content_of({"": file})
    for note in (file.parent / "cache" / "contents").iterdir():
        note.write_text("{")
    assert contents.content_of({"": file}) == before and len(reads) == 4


def test_a_trial_refuses_what_was_changed_after_it_was_planned(
    make: Any, tiny_csv: Path, tmp_path: Path, without_dropout: Path
) -> None:
    rows = Path(shutil.copy(tiny_csv, tmp_path / "rows.csv"))
    config = {"task": {"name": str(rows)}, "backbone": {"name": str(without_dropout)}}
    trial = make(**config)
    found = {s: room.content(config[s]) for s, room in (("task", tasks), ("backbone", backbones))}
    planned = trial.model_copy(update={"contents": found})
    assert len({trial.key, planned.key}) == 2
    check_contents(planned)
    check_contents(trial)  # of a version that did not look
    rows.write_text(rows.read_text().replace("good", "fine"))
    result = run_trial(planned, tmp_path / "run")
    assert result.failure is not None and result.failure.kind == "changed"
    assert "run the same command again; on another machine" in result.failure.message
    assert (
        f"{rows} does not hold what it held when this trial was planned" in result.failure.message
    )
    again = planned.model_copy(update={"contents": found | {"task": tasks.content(config["task"])}})
    assert run_trial(again, tmp_path / "again").status == "done"
    card = without_dropout / "config.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"hidden_act": "relu"}))
    with pytest.raises(StudyError, match=f"{without_dropout} does not hold what it held"):
        check_contents(again)


def test_a_command_looks_at_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(100))
    write("rows.csv", rows)
    write(
        "s.yaml",
        "name: s\nquestion: Which?\nadapter: {method: lora}\narms: [{name: lora}]\n"
        "baseline: lora\nobjective: {metric: test/accuracy}\nseeds: [0]\n"
        "task: {name: ./rows.csv}\n",
    )
    study = schema.load_study("s.yaml")
    (trial,) = plan(study)
    write("rows.csv", rows.replace("row 7,b", "row 7,a"))
    assert plan(study)[0].key == trial.key != plan(schema.load_study("s.yaml"))[0].key


def test_files_that_are_no_data_set_are_refused_with_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    for name in ("train", "notes"):
        write(f"set/{name}.csv", "text,label\nrow 1,a\nrow 2,b\n")
    write(
        "s.yaml",
        "name: s\nquestion: Which?\nadapter: {method: lora}\narms: [{name: lora}]\n"
        "baseline: lora\nobjective: {metric: test/accuracy}\nseeds: [0]\n"
        "task: {name: ./set}\n",
    )
    with pytest.raises(StudyError, match=r"s.yaml:8: task: set/notes.csv is named after no split"):
        plan(schema.load_study("s.yaml"))
