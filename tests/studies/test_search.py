"""The search: its points once each whatever is killed, its choice, its report, its refusals."""

import contextlib
import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import fake_points
import optuna
import pytest
from python_path import environment
from waiting import wait_until

from studies.engine.planning import runs
from studies.engine.reporting.search_outcome import gather
from studies.engine.running import loop
from studies.engine.searching import optuna_storage, search
from studies.engine.searching import points as search_ledger
from studies.engine.trials import devices

pytestmark = pytest.mark.slow

DRIVER = Path(fake_points.__file__)
STUDY = fake_points.STUDY


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A search whose points are fakes."""
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    return fake_points.Lab(tmp_path)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that has ended, to be copied."""
    lab = fake_points.Lab(tmp_path_factory.mktemp("searched"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "gpus", lambda: 0)
        lab.run(slot_count=2)
    return lab.folder


@pytest.fixture
def finished(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A search that has ended."""
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    return fake_points.Lab(shutil.copytree(searched, tmp_path / "lab"))


def rows(lab) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{lab.runs_dir / 'optuna.db'}"
    name = f"s/embedded/search-{search.identity(lab.study, lab.make)}"
    return optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)


def history(lab):
    return search.history(lab.study, lab.make, lab.runs_dir)


def test_each_point_is_new_and_told(finished) -> None:
    lab = finished
    found = history(lab)
    assert len({trial.key for trial, _ in found}) == len(found) == 8
    assert [trial.label for trial, _ in found] == [f"phi #{i}" for i in range(1, 9)]
    assert {trial.seed for trial, _ in found} == {100}
    told = {tuple(row.values) for row in rows(lab) if row.state.name == "COMPLETE"}
    assert told == {(r.metrics["valid/accuracy"], r.cost.trainable_parameters) for _, r in found}
    assert sorted(lab.noted("start")) == sorted(trial.key for trial, _ in found)


def test_the_same_command_runs_nothing_again_and_more_trials_go_on(finished) -> None:
    lab = finished
    before = [trial.key for trial, _ in history(lab)]
    assert {event.kind for event in lab.run()} == {"found"}
    lab.write(STUDY.replace("trials: 8", "trials: 10"))
    assert [event.kind for event in lab.run()].count("done") == 2
    assert [trial.key for trial, _ in history(lab)][:8] == before
    assert len(lab.noted("start")) == 10


@pytest.mark.parametrize("objectives", [pytest.param(1, marks=pytest.mark.thorough), 2])
def test_tpe_learns_where_good_points_are(lab, objectives: int) -> None:
    second = "    - {metric: cost/trainable_parameters, direction: minimize}\n"
    text = STUDY if objectives == 2 else STUDY.replace(second, "")
    errors = {}
    for name in ("tpe", "random"):
        lab.write(text.replace("  startup: 3", f"  startup: 8\n  sampler: {name}"))
        storage = optuna_storage.Storage(lab.runs_dir / name)
        sampler = optuna_storage.Sampler(lab.study, lab.make, storage)
        found = []
        for ordinal in range(1, 41):
            row = sampler.ask(ordinal)
            sampler.keep(row)
            error = abs(math.log10(row.settings["train.learning_rate"]) + 1.5)
            found.append(error)
            if ordinal % 10 == 0:
                sampler.tell(row.number, None, pruned=ordinal == 10)
            else:
                values = [-error, row.settings["adapter.num_basis"]]
                sampler.tell(row.number, values[:objectives])
        assert [row.point for row in sampler.rows()] == list(range(1, 41))
        assert not any(row.running for row in sampler.rows())
        errors[name] = sum(found[-15:]) / 15
    assert errors["tpe"] < 0.6 * errors["random"], errors


@pytest.mark.parametrize("slot_count", [2])
def test_killed_at_any_time_every_point_runs_once_and_counts_once(tmp_path, slot_count) -> None:
    lab = fake_points.Lab.unchecked(tmp_path)
    command = [sys.executable, str(DRIVER), str(tmp_path), str(slot_count)]
    env = environment()
    for done in (2, 5):
        process = subprocess.Popen(command, env=env)
        wait_until(lambda n=done, p=process: len(lab.noted("done")) >= n or p.poll() is not None)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, check=False, env=env).returncode == 0
    found = history(lab)
    assert len(found) == 8
    assert sorted(trial.label for trial, _ in found) == sorted(f"phi #{i}" for i in range(1, 9))
    finished = lab.noted("done")
    assert len(set(finished)) == 8
    states = [row.state.name for row in rows(lab)]
    assert states.count("COMPLETE") == 8 and "RUNNING" not in states
    assert len(lab.noted("start")) <= 8 + 2 * slot_count


@pytest.mark.parametrize("files_gone", [False, True])
def test_killed_between_asking_for_a_known_point_and_dropping_it(finished, files_gone) -> None:
    lab = finished
    trial, _ = history(lab)[0]
    storage = optuna_storage.Storage(lab.runs_dir)
    sampler = optuna_storage.Sampler(lab.study, lab.make, storage)
    settings = trial.candidate
    if files_gone:  # the point itself runs too
        shutil.rmtree(runs.trial_dir(trial, lab.runs_dir))
        sampler.keep(sampler.ask(1, settings))
    sampler.ask(9, settings)
    lab.run(slot_count=2)
    states = [row.state.name for row in rows(lab)]
    assert states.count("COMPLETE") == 8 + files_gone and "RUNNING" not in states
    assert lab.noted("start").count(trial.key) == 1 + files_gone
    assert len(history(lab)) == 8


def test_killed_while_asking_for_a_known_point_leaves_it_to_nobody_else(finished) -> None:
    lab = finished
    storage = optuna_storage.Storage(lab.runs_dir)
    (one, _), (other, _), *_ = history(lab)

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as killed:
        killed.setattr(optuna.Study, "ask", kill)
        with contextlib.suppress(KeyboardInterrupt):
            optuna_storage.Sampler(lab.study, lab.make, storage).ask(1, one.candidate)
    row = optuna_storage.Sampler(lab.study, lab.make, storage).ask(2, other.candidate)
    assert rows(lab)[row.number].params == row.settings == other.candidate


def test_the_database_is_made_again_from_the_files(finished) -> None:
    lab = finished
    (lab.runs_dir / "optuna.db").unlink()
    lab.write(STUDY.replace("trials: 8", "trials: 10"))
    assert [event.kind for event in lab.run()].count("done") == 2
    assert sum(row.state.name == "COMPLETE" for row in rows(lab)) == 10
    assert len(lab.noted("start")) == 10


def test_a_point_whose_files_are_gone_is_run_again(finished) -> None:
    lab = finished
    trial, _ = history(lab)[4]
    shutil.rmtree(runs.trial_dir(trial, lab.runs_dir))
    events = [event for event in lab.run() if event.kind != "found"]
    assert [(event.kind, event.trial.key) for event in events] == [
        ("started", trial.key),
        ("done", trial.key),
    ]
    assert len(history(lab)) == 8


def test_an_edited_study_starts_a_history_of_its_own(finished) -> None:
    lab = finished
    lab.write(STUDY.replace("eval_every: 10", "batch_size: 8").replace("trials: 8", "trials: 2"))
    assert history(lab) == []
    assert [event.kind for event in lab.run(slot_count=2)].count("done") == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [("[4, 64]", "[4, 128]"), ("[4, 64]", "[4, 32]"), ("[sinc, sine, hat]", "[sinc, sine]")],
)
def test_another_space_begins_a_new_history_and_the_old_one_comes_back(finished, old, new) -> None:
    lab = finished
    before = [trial.key for trial, _ in history(lab)]
    lab.write(STUDY.replace(old, new))
    assert history(lab) == []
    kinds = [event.kind for event in lab.run(slot_count=2)]
    assert kinds.count("done") + kinds.count("found") == 8 and kinds.count("done") > 0
    assert [trial.point for trial, _ in history(lab)] == list(range(1, 9))
    assert len(set(lab.noted("start"))) == len(lab.noted("start"))  # no point is trained twice
    assert sum(row.state.name == "COMPLETE" for row in rows(lab)) == 8
    lab.write(STUDY)
    assert [trial.key for trial, _ in history(lab)] == before
    assert {event.kind for event in lab.run()} == {"found"}


def test_a_point_that_two_spaces_have_counts_in_each(lab) -> None:
    grid = STUDY.replace("{int: [4, 64], log: true}", "[4, 8]").replace(
        "{float: [1.0e-4, 1.0e-1], log: true}", "[1.0e-3, 1.0e-2]"
    )
    lab.write(grid.replace("[sinc, sine, hat]", "[sinc, hat]"))
    lab.run(slot_count=2)
    lab.write(grid.replace("trials: 8", "trials: 12"))
    lab.run(slot_count=2)
    assert sorted(trial.point for trial, _ in history(lab)) == list(range(1, 13))
    assert len(lab.noted("start")) == 12  # the larger space has the points of the smaller one
    lab.write(grid.replace("[sinc, sine, hat]", "[sinc, hat]"))
    assert sorted(trial.point for trial, _ in history(lab)) == list(range(1, 9))


def test_a_sampler_begins_anew_where_a_plug_in_of_any_point_was_changed(lab) -> None:
    def identity(content: str) -> str:
        def make(number, settings):
            used = (content,) if settings["adapter.basis"] == "hat" else ()  # not the first listed
            return lab.make(number, settings).model_copy(update={"plugin_hashes": used})

        return search.identity(lab.study, make)

    assert len({identity("a"), identity("b"), search.identity(lab.study, lab.make)}) == 3


def test_points_of_a_version_that_noted_no_space_count(finished) -> None:
    lab = finished
    for file in lab.runs_dir.rglob("trial.json"):
        noted = json.loads(file.read_text())
        assert noted.pop("asked")
        file.write_text(json.dumps(noted))
    assert len(history(lab)) == 8
    assert {event.kind for event in lab.run()} == {"found"}


def test_failed_points_are_told_and_tried_again_only_when_asked(lab) -> None:
    lab.broken = "sine"
    lab.run(slot_count=2)
    failed = [trial for trial, result in history(lab) if result.status == "failed"]
    assert 0 < len(failed) < 8 and len(history(lab)) == 8
    assert sum(row.state.name == "FAIL" for row in rows(lab)) == len(failed)
    outcome = gather(lab.study, history(lab))
    assert [p.state for p in outcome.points].count("failed") == len(failed)
    assert {p.message for p in outcome.points if p.state == "failed"} == {"it broke"}
    lab.run()
    assert len(lab.noted("start")) == 8
    lab.broken = "nothing"
    events = lab.run(retry_failed=True)
    assert [event.kind for event in events].count("done") == len(failed)
    assert len(history(lab)) == 8 and all(r.status == "done" for _, r in history(lab))
    lab.run()
    assert len(lab.noted("start")) == 8 + len(failed)


def test_a_lagging_point_is_ended_and_not_chosen(lab, monkeypatch) -> None:
    monkeypatch.setattr(loop, "LOOK_SECONDS", 0.0)
    lab.seconds = 0.4
    lab.write(STUDY + "  pruning: {points: 3, steps: 20}\n")
    lab.run(slot_count=3)
    results = [result for _, result in history(lab)]
    pruned = [result for result in results if result.failure is not None]
    assert len(results) == 8 and 0 < len(pruned) < 6
    assert {result.failure.kind for result in pruned} == {"pruned"}
    assert "is worse than the median" in pruned[0].failure.message
    assert "at step 20" in pruned[0].failure.message or "at step 30" in pruned[0].failure.message
    assert sum(row.state.name == "PRUNED" for row in rows(lab)) == len(pruned)
    best = search.best(lab.study.search, history(lab))
    assert best is not None
    lab.run(retry_failed=True)
    assert len(lab.noted("start")) == 8


def test_a_small_space_is_searched_without_repeats(lab) -> None:
    text = STUDY.replace("{int: [4, 64], log: true}", "[4, 8]").replace(
        "[sinc, sine, hat]", "[sinc, hat]"
    )
    text = text.replace("{float: [1.0e-4, 1.0e-1], log: true}", "[1.0e-3, 1.0e-2]")
    lab.write(text)
    lab.run(slot_count=2)
    assert len(set(lab.noted("start"))) == len(lab.noted("start")) == 8


def test_the_front_is_what_nothing_beats(lab) -> None:
    spec = lab.study.search
    values = [(0.9, 50), (0.8, 10), (0.8, 20), (0.7, 10), (0.95, 60), (0.9, 50)]
    assert search.front(spec, values) == [True, True, False, False, True, True]


def test_a_tie_is_broken_by_the_next_objective(finished) -> None:
    lab = finished
    same = [
        (t, r.model_copy(update={"metrics": r.metrics | {"valid/accuracy": 0.5}}))
        for t, r in history(lab)
    ]
    best = search.best(lab.study.search, same)
    smallest = min(same, key=lambda pair: pair[1].cost.trainable_parameters)[1]
    found = dict((t.key, r) for t, r in same)[best.key]
    assert found.cost.trainable_parameters == smallest.cost.trainable_parameters


def test_pruned_points_are_no_equal_failures(lab, monkeypatch) -> None:
    monkeypatch.setattr(loop, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(search_ledger.Lagging, "reason", lambda self, run_dir: "it lags")
    lab.seconds = 30.0  # unless it is pruned
    lab.write(STUDY + "  pruning: {points: 3}\n")
    lab.run(slot_count=2)
    assert len(history(lab)) == 8
    (lab.runs_dir / "optuna.db").unlink()  # and none where Optuna's rows are made again
    lab.run()
    assert {row.state.name for row in rows(lab)} == {"PRUNED"}
