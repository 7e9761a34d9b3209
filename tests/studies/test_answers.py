"""What is kept of answers about adapters, and what makes them void."""

from pathlib import Path

import pytest

from studies.engine.definition import answers, checks


def test_answers_are_void_once_what_asks_for_them_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = Path(checks.__file__)
    others = [file for file in answers._files(answers.SOURCES) if file != asking]
    changed = tmp_path / "checks.py"
    changed.write_bytes(asking.read_bytes())
    monkeypatch.setattr(answers, "_files", lambda packages: iter([*others, changed]))
    before = answers._file()
    changed.write_text("# another question\n")
    assert before is not None and answers._file() != before
    monkeypatch.undo()
    assert asking in answers._files(answers.SOURCES)
