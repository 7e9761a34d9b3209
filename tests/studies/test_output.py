"""Commands in odd surroundings end with a message, not with a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from example_result import TRIAL
from python_path import environment

from studies.engine.command import plan_queue, work
from studies.engine.planning.plan_file import Plan
from studies.engine.records import write_record


@pytest.mark.parametrize("module", ["studies", "studies.engine.work"])
@pytest.mark.parametrize(
    "variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0",
                                                  "PYTHONCOERCECLOCALE": "0"}]
)  # fmt: skip
def test_letters_that_cannot_be_shown_end_no_command(tmp_path: Path, module, variables) -> None:
    """A message names a file whose name ASCII has not."""
    arguments = ["--runs", "far"] if module == "studies.engine.work" else []
    command = [sys.executable, "-m", module, os.fsencode(tmp_path / "plän-漢.yaml"), *arguments]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment(**variables), capture_output=True, check=False
    )
    printed = ended.stdout + ended.stderr
    assert ended.returncode == work.BAD_INPUT and b"Traceback" not in printed
    assert b".yaml" in printed and printed.isascii()


@pytest.mark.parametrize("what", ["runs", "trials"])
def test_a_file_where_a_folder_should_be_is_one_message(
    tmp_path: Path, what, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(plan_queue, "fetch_for", lambda trials: None)
    write_record(
        tmp_path / "plan.json",
        Plan(study="s", profile="embedded", metric="m", budget={}, trials=(TRIAL,)),
    )
    file = tmp_path / "far" if what == "runs" else tmp_path / "far" / "s" / "embedded" / "trials"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    arguments = [str(tmp_path / "plan.json"), "--runs", str(tmp_path / "far"), "--slots", "1"]
    assert work.main(arguments) == work.INCOMPLETE
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(str(tmp_path / "far")) and "Finished trials are kept" in last
