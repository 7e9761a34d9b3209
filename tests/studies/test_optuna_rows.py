"""The record of a study's trials in Optuna: its rows, its database, other storages."""

import contextlib
import re
import sqlite3
from pathlib import Path

import fake_trials
import optuna
import pytest
from lab import Lab

from studies.engine.errors import StudyError
from studies.engine.records import Trial
from studies.engine.running.events import Stopped

pytestmark = pytest.mark.slow

make_study, make_trials = fake_trials.make_study, fake_trials.make_trials


def swept(*settings: dict) -> list[Trial]:
    """One trial for each of `settings`, the first one an arm that sweeps nothing."""
    arms = make_trials(*[{}] * len(settings))
    return [
        trial.model_copy(update={"swept": own if i else {}, "config": trial.config | own})
        for i, (trial, own) in enumerate(zip(arms, settings, strict=True))
    ]


def params(lab: Lab) -> list[dict]:
    return sorted((row.params for row in lab.rows()), key=str)


def test_a_row_has_the_settings_that_the_study_sweeps_anywhere(lab: Lab) -> None:
    trials = swept(
        {"x": 3, "basis": "sinc", "layers": None},
        {"x": 1, "basis": "sinc", "layers": [1, 2]},
        {"x": 2, "basis": "hat", "layers": [3]},
    )
    lab.run(trials[:2])
    url = f"sqlite:///{lab.runs_dir / 'optuna.db'}"
    assert optuna.load_study(study_name="fake/embedded", storage=url).metric_names == [
        "test/accuracy"
    ]
    assert params(lab) == [{"x": 1, "basis": "sinc", "layers": "1+2"}, {"x": 3, "basis": "sinc"}]
    began = {row.user_attrs["point"]: row.datetime_start for row in lab.rows()}
    lab.run(trials)  # other words than the rows know
    assert params(lab)[1] == {"x": 2, "basis": "hat", "layers": "3"}
    [words] = {row.distributions["basis"] for row in lab.rows() if row.params["basis"] == "hat"}
    assert set(words.choices) == {"sinc", "hat"}
    now = {row.user_attrs["point"]: row.datetime_start for row in lab.rows()}
    assert began.items() <= now.items() and len(now) == 3
    lab.run(trials[:1])  # a part of the study, which knows fewer words
    assert lab.states() == {"COMPLETE": 3}


def test_rows_of_an_earlier_version_get_params(lab: Lab) -> None:
    trials = swept({"x": 3}, {"x": 1.5})
    lab.run(trials)
    url = f"sqlite:///{lab.runs_dir / 'optuna.db'}"
    rows = lab.rows()
    optuna.delete_study(study_name="fake/embedded", storage=url)
    old = optuna.create_study(study_name="fake/embedded", storage=url, direction="maximize")
    for row in rows:
        row.params = row.distributions = {}
        old.add_trial(row)
    assert lab.run(trials) == ["found", "found"]
    assert params(lab) == [{"x": 1.5}, {"x": 3}] and lab.states() == {"COMPLETE": 2}


def test_a_lost_database_is_made_again_from_the_results(lab: Lab) -> None:
    trials = make_trials({}, {})
    lab.run(trials)
    (lab.runs_dir / "optuna.db").unlink()
    assert lab.run(trials) == ["found", "found"]
    assert lab.states() == {"COMPLETE": 2}


@pytest.mark.parametrize("found", [b"no database" * 1000, b"", "folder", "half"])
def test_a_database_that_is_none_is_set_aside_and_made_again(lab: Lab, found) -> None:
    trials, file, said = make_trials({}), lab.runs_dir / "optuna.db", []
    lab.run(trials)
    file.unlink()
    if found == "folder":
        file.mkdir()
    elif found == "half":  # killed while its tables were made
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE studies (study_id INTEGER)")
    else:
        file.write_bytes(found)
    assert lab.run(trials, say=said.append) == ["found"]
    assert lab.states() == {"COMPLETE": 1}
    assert (lab.runs_dir / "optuna.db.broken-1").exists()
    (line,) = said
    assert re.search(r"optuna\.db is no whole database \(.+\) and is now called optuna\.db\.", line)
    assert line.endswith("it is made again from the trials' folders")
    assert lab.run(trials, say=pytest.fail) == ["found"]


def test_a_full_disk_is_no_broken_database(lab: Lab, monkeypatch) -> None:
    def full(*arguments, **options):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite3, "connect", full)
    with pytest.raises(Stopped, match=r"optuna\.db cannot be used: .*disk is full.*make room"):
        lab.run(make_trials({}), say=pytest.fail)
    assert [path.name for path in lab.runs_dir.glob("optuna.db*")] == ["optuna.db"]


def test_any_storage_of_optuna_may_keep_the_record(lab: Lab, tmp_path: Path, monkeypatch) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    monkeypatch.setenv("BASIS_ZOO_STORAGE", url)
    trials = make_trials({}, {})
    lab.run(trials)
    rows = optuna.load_study(study_name="fake/embedded", storage=url).trials
    assert {row.user_attrs["point"] for row in rows} == {trial.key for trial in trials}
    assert lab.run(trials) == ["found", "found"]


def test_a_storage_that_is_none_is_refused_without_its_password(lab: Lab, monkeypatch) -> None:
    for url in ("nonsense://user:secret@host/db", "postgresql+nodriver://user:secret@host/db"):
        monkeypatch.setenv("BASIS_ZOO_STORAGE", url)
        with pytest.raises(
            (StudyError, Stopped), match=r"BASIS_ZOO_STORAGE|cannot be used"
        ) as told:
            lab.run(make_trials({}))
        assert "secret" not in str(told.value)
    assert not lab.noted("start")


def test_rows_that_an_earlier_version_left_waiting_or_running_end_no_command(lab: Lab) -> None:
    url = f"sqlite:///{lab.runs_dir / 'optuna.db'}"
    old = optuna.create_study(study_name="fake/embedded", storage=url, direction="maximize")
    trials = make_trials({}, {})
    for trial in trials:
        old.enqueue_trial({}, user_attrs={"point": trial.key})
    old.ask()
    assert lab.run(trials).count("done") == 2
    assert lab.states() == {"COMPLETE": 2, "FAIL": 2}
