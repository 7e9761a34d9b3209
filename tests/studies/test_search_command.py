"""A search by the command line: its seeds, its report and page, its refusals."""

import json
from pathlib import Path

import fake_points
import optuna
import pytest

from studies.archives import ArchiveError
from studies.engine.command import cli
from studies.engine.command.stages import SearchStage
from studies.engine.planning import runs
from studies.engine.planning.plan import plan
from studies.engine.running import local
from studies.engine.searching import search
from studies.engine.tracking import background
from studies.engine.trials import devices, fetching

pytestmark = pytest.mark.slow

STUDY = fake_points.STUDY


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A search whose points are fakes."""
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    return fake_points.Lab(tmp_path)


def history(lab):
    return search.history(lab.study, lab.make, lab.runs_dir)


@pytest.fixture
def command_line(lab, monkeypatch, without_figures):
    """The study `s.yaml` in the current folder, its trials fakes and its page not made."""
    monkeypatch.chdir(lab.folder)
    monkeypatch.setattr(local, "LocalRunner", lambda slots, *rest: lab.runner(slots))
    monkeypatch.setattr(fetching.backbones, "fetch", lambda spec: None)
    monkeypatch.setattr(fetching.tasks, "fetch", lambda spec: None)
    monkeypatch.setattr(background, "Tracking", _NoPage)
    link = background.pages.MlflowLink("mlflow ui", "http://127.0.0.1:5000/#/x")
    monkeypatch.setattr(background, "deliver", lambda *a: link)
    return lab


class _NoPage:
    def __init__(self, *arguments) -> None: ...

    def __enter__(self) -> "_NoPage":
        return self

    def __exit__(self, *arguments) -> None: ...

    def end_trial(self, *arguments) -> None: ...


def test_the_best_point_is_trained_with_the_seeds_and_reported(
    command_line, without_figures, capsys
) -> None:
    lab = command_line
    without_figures.undo()
    assert cli.main(["s.yaml", "--plan"]) == cli.DONE
    assert "search of phi: 8 points: 8 to be asked for" in capsys.readouterr().out
    assert cli.main(["s.yaml", "--export-plan", "plan.json"]) == cli.BAD_INPUT
    assert "until its search is complete" in " ".join(capsys.readouterr().err.split())
    assert cli.main(["s.yaml", "--slots", "2"]) == cli.DONE
    assert "edited" not in capsys.readouterr().err  # its points are no arms, and are no edit
    [choice] = SearchStage(lab.study, lab.runs_dir).choices
    best = max(history(lab), key=lambda pair: pair[1].metrics["valid/accuracy"])[0]
    phi = [t for t in plan(lab.study, [choice]) if t.arm == "phi"]
    assert all(t.config == best.config for t in phi)
    assert all(runs.result_of(t, lab.runs_dir) is not None for t in phi)
    assert {t.seed for t in phi} == {0, 1}
    text = (lab.runs_dir / "s/embedded/report/report.md").read_text()
    assert "8 of 8 points (8 done) of `phi`, chosen by TPE" in text
    assert f"| **{best.label}** |" in text and "### Pareto set" in text
    assert "### What decides" in text and "too few to say" in text
    assert "no other arm was searched, which favours `phi`" in text
    assert (lab.runs_dir / "s/embedded/report/search.png").is_file()
    storage = f"sqlite:///{lab.runs_dir / 'optuna.db'}"
    seeds = optuna.load_study(study_name="s/embedded", storage=storage).get_trials()
    assert choice.settings in [
        {path: row.params.get(path) for path in choice.settings} for row in seeds
    ]
    assert cli.main(["s.yaml", "--plan"]) == cli.DONE
    printed = capsys.readouterr().out
    assert "8 points: 8 done" in printed and "chosen: adapter.basis=" in printed
    started = len(lab.noted("start"))
    assert cli.main(["s.yaml"]) == cli.DONE
    assert len(lab.noted("start")) == started == 12
    assert cli.main(["s.yaml", "--export-plan", "plan.json"]) == cli.DONE


def test_a_search_under_way_is_reported_as_far_as_it_is(command_line, capsys) -> None:
    lab = command_line
    lab.write(STUDY.replace("trials: 8", "trials: 5"))
    lab.run(slot_count=2)
    lab.write(STUDY)
    assert cli.main(["s.yaml", "--report"]) == cli.INCOMPLETE
    text = (lab.runs_dir / "s/embedded/report/report.md").read_text()
    assert "5 of 8 points (5 done)" in text and "too few to say" in text
    assert len(lab.noted("start")) == 5


def test_every_point_reaches_the_page_with_the_seeds(command_line, monkeypatch) -> None:
    lab, offered = command_line, []
    monkeypatch.setattr(_NoPage, "end_trial", lambda self, trial, *rest: offered.append(trial))
    lab.write(STUDY.replace("trials: 8", "trials: 3"))
    lab.run()  # a command that ended before MLflow had any of them
    assert cli.main(["s.yaml", "--slots", "2"]) == cli.DONE
    assert [t.label for t in offered[:3]] == ["phi #1", "phi #2", "phi #3"]
    assert len({t.key for t in offered}) == 3 + 4


def test_a_search_where_everything_fails_stops_and_says_so(command_line, capsys) -> None:
    lab = command_line
    lab.write(STUDY.replace("[sinc, sine, hat]", "[sinc]"))
    lab.broken = "sinc"
    assert cli.main(["s.yaml", "--slots", "1"]) == cli.INCOMPLETE
    assert "the first 3 trials of s failed alike" in capsys.readouterr().err
    assert len(lab.noted("start")) == 3


def test_a_search_fetches_what_its_points_need(command_line, monkeypatch, capsys) -> None:
    def refuse(spec):
        raise ArchiveError("the model cannot be had")

    monkeypatch.setattr(fetching.backbones, "fetch", refuse)
    assert cli.main(["s.yaml"]) == cli.INCOMPLETE
    assert "the model cannot be had" in capsys.readouterr().err
    assert command_line.noted("start") == []


def test_seeds_stay_in_the_report_while_a_search_goes_on(command_line) -> None:
    lab = command_line
    assert cli.main(["s.yaml", "--slots", "2"]) == cli.DONE
    lab.write(STUDY.replace("trials: 8", "trials: 12"))
    assert cli.main(["s.yaml", "--report"]) == cli.INCOMPLETE
    report = json.loads((lab.runs_dir / "s/embedded/report/report.json").read_text())
    assert {arm["arm"]: len(arm["seeds"]) for arm in report["arms"]} == {"lora": 2, "phi": 2}
