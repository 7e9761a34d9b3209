"""The dispatcher: each trial exactly once, whatever is killed, and nothing lost."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_trials
import pytest
from lab import Lab, lives
from python_path import environment
from waiting import wait_until

from studies import files
from studies.engine.definition.study import Budget
from studies.engine.errors import StudyError
from studies.engine.planning import runs
from studies.engine.running import attempts, loop
from studies.engine.running.events import Stopped
from studies.engine.running.protocols import Queue, Task
from studies.engine.searching.optuna_storage import OptunaLedger

pytestmark = pytest.mark.slow

DRIVER = Path(fake_trials.__file__)
make_study, make_trials = fake_trials.make_study, fake_trials.make_trials


def start_driver(lab: Lab, seconds: float = 0.5, slot_count: int = 2) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, DRIVER, lab.runs_dir, lab.journal, str(seconds), str(slot_count)],
        env=environment(),
    )


def test_every_trial_is_run_once_and_told_to_optuna(lab: Lab) -> None:
    trials = make_trials({}, {}, {}, seeds=(0, 1))
    assert sorted(lab.run(trials, slot_count=3)) == ["done"] * 6 + ["started"] * 6
    assert lab.noted("start") == lab.noted("done") == {trial.key: 1 for trial in trials}
    rows = lab.rows()
    assert {row.user_attrs["point"]: row.value for row in rows} == {t.key: 0.75 for t in trials}
    assert {row.state.name for row in rows} == {"COMPLETE"}


def test_two_arms_that_became_the_same_trial_are_run_once(lab: Lab) -> None:
    [trial] = make_trials({"seconds": 0.2})
    twin = trial.model_copy(update={"arm": "twin"})
    assert lab.run([trial, twin], slot_count=2) == ["started", "done"]
    assert lab.noted("start") == {trial.key: 1}
    assert lab.run([trial, twin], slot_count=2) == ["found", "found"]


def test_trials_with_other_plug_ins_keep_a_process_of_their_own(lab: Lab) -> None:
    plain, plugged = make_trials({}, {}, seeds=(0, 1)), []
    for trial in plain[1::2]:
        plugged.append(trial.model_copy(update={"plugin_hashes": ("a",)}))
    runner = fake_trials.make_runner(lab.runs_dir, 3, str(lab.journal))
    slots = []
    for trial in (plain[0], plugged[0], plain[2], plugged[1]):
        task = Task(trial, runs.trial_dir(trial, lab.runs_dir), "test/accuracy", Budget())
        attempts.prepare(task)
        slots.append(runner.start(task))
        wait_until(runner.poll)
    runner.close()
    assert slots == [0, 1, 0, 1] and len(set(lab.pids())) == 2


def test_no_more_trials_at_once_than_slots(lab: Lab) -> None:
    lab.run(make_trials(*[{"seconds": 0.15}] * 5), slot_count=2)
    moments = sorted(
        (float(line.split()[3]), 1 if line.startswith("start") else -1)
        for line in lab.journal.read_text().splitlines()
    )
    running, most = 0, 0
    for _, change in moments:
        running += change
        most = max(most, running)
    assert most == 2


def test_what_is_done_is_not_run_again(lab: Lab) -> None:
    trials = make_trials({}, {})
    lab.run(trials)
    assert lab.run(trials) == ["found", "found"]
    assert lab.run([*trials, *make_trials({}, {}, {})[2:]]) == ["found", "found", "started", "done"]
    assert set(lab.noted("start").values()) == {1}
    assert lab.states() == {"COMPLETE": 3}


def test_part_of_a_study_leaves_the_rest_for_later(lab: Lab) -> None:
    trials = make_trials({}, {}, {"failures": 9, "message": "no"})
    lab.run(trials[1:2])
    assert list(lab.noted("start")) == [trials[1].key]
    lab.run(trials)
    assert lab.states() == {"COMPLETE": 2, "FAIL": 1}
    assert set(lab.noted("start").values()) == {1}


def test_a_failed_trial_is_told_kept_and_retried_on_request_only(lab: Lab) -> None:
    trials = make_trials({}, {"failures": 1, "message": "loss is nan"}, {})
    lab.run(trials)
    assert [lab.result(trial).status for trial in trials] == ["done", "failed", "done"]
    failed = [row for row in lab.rows() if row.state.name == "FAIL"]
    assert [row.user_attrs["message"] for row in failed] == ["exception: loss is nan"]
    assert lab.run(trials) == ["found"] * 3
    assert lab.run(trials, retry_failed=True) == ["found", "found", "started", "done"]
    assert lab.result(trials[1]).attempt == 2
    folder = runs.trial_dir(trials[1], lab.runs_dir)
    assert (folder / "attempt-1" / "result.json").exists()
    assert lab.states() == {"COMPLETE": 3, "FAIL": 1}


def test_retries_of_the_budget_are_taken(lab: Lab) -> None:
    trials = make_trials({}, {"failures": 2, "message": "flaky"})
    kinds = lab.run(trials, make_study(retries=2))
    assert kinds.count("retry") == 2 and kinds[-1] == "done"
    trials = make_trials({}, {}, {"failures": 9, "message": "always"})
    kinds = lab.run(trials[2:], make_study(retries=1))
    assert kinds == ["started", "retry", "started", "failed"]


def test_a_trial_that_takes_too_long_is_ended_even_if_it_is_stubborn(lab: Lab, monkeypatch) -> None:
    monkeypatch.setattr(loop, "GRACE_SECONDS", 0.2)
    trials = make_trials({"seconds": 60}, {"seconds": 60, "stubborn": True})
    lab.run(trials, make_study(per_trial_minutes=0.005), slot_count=2)
    for trial in trials:
        failure = lab.result(trial).failure
        assert failure.kind == "timeout"
        assert "per_trial_minutes" in failure.message
    assert not any(lives(pid) for pid in lab.pids())


@pytest.mark.parametrize(
    ("fake", "kind", "message"),
    [
        ({"exit": 3}, "exception", "ended with exit code 3 and no result: the last words"),
        ({"exit": 0}, "exception", "ended with exit code 0 and no result"),
        ({"killed": True}, "signal", "killed by SIGKILL; perhaps the machine ran out of memory"),
        ({"metrics": {"test/loss": 1.0}}, "not_finite", "test/accuracy is missing"),
        ({"key": "another"}, "exception", "no result"),
    ],
)
def test_a_trial_without_a_usable_result_fails_by_name(lab: Lab, fake, kind, message) -> None:
    trials = make_trials(fake, {})
    lab.run(trials)
    failure = lab.result(trials[0]).failure
    assert (failure.kind, message in failure.message) == (kind, True), failure
    assert lab.result(trials[1]).status == "done"
    assert lab.states() == {"COMPLETE": 1, "FAIL": 1}


def test_a_trial_whose_files_were_changed_is_not_tried_again_now_and_waits_for_them(
    lab: Lab,
) -> None:
    changed = {"failures": 1, "kind": "changed", "message": "rows.csv was changed: run again"}
    trials, study = make_trials(changed, {}), make_study(retries=3)
    assert lab.run(trials, study) == ["started", "failed", "started", "done"]
    assert [runs.state_of(trial, lab.runs_dir) for trial in trials] == ["waiting", "done"]
    assert lab.run(trials, study) == ["found", "started", "done"]
    every = make_trials(*[changed | {"x": i} for i in range(4)])
    with pytest.raises(Stopped, match=r"failed alike.*changed: run again$"):
        lab.run(every, study)


def test_three_equal_failures_at_the_start_stop_the_study(lab: Lab) -> None:
    broken = [{"failures": 9, "message": f"nan at step {i}"} for i in range(5)]
    with pytest.raises(
        Stopped, match=r"first 3 trials of fake failed alike.*nan at step 2.*--retry-failed"
    ):
        lab.run(make_trials(*broken))
    assert len(lab.noted("start")) == 3


def test_failures_after_a_success_or_of_different_kinds_do_not_stop(lab: Lab) -> None:
    broken = {"failures": 9, "message": "nan"}
    lab.run(make_trials({}, broken, broken, broken, broken))
    assert len(lab.noted("start")) == 5
    lab.run(make_trials(*({"failures": 9, "message": word} for word in ("x", "y", "z", "u"))))
    assert len(lab.noted("start")) == 9


def test_a_full_disk_stops_before_a_trial_is_started(lab: Lab, monkeypatch) -> None:
    usage = shutil.disk_usage(lab.journal.parent)._replace(free=2**20)
    monkeypatch.setattr(loop.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(Stopped, match="only 1 MiB are free"):
        lab.run(make_trials({}))
    assert not lab.noted("start")
    monkeypatch.undo()
    assert lab.run(make_trials({})) == ["started", "done"]


def test_the_hours_of_the_budget_end_the_study(lab: Lab) -> None:
    trials = make_trials(*[{"seconds": 0.2}] * 5)
    with pytest.raises(Stopped, match="max_hours"):
        lab.run(trials, make_study(max_hours=0.3 / 3600))
    assert 0 < sum(lab.noted("done").values()) < 5
    lab.run(trials)
    assert lab.noted("done") == {trial.key: 1 for trial in trials}


def test_a_second_dispatcher_is_refused(lab: Lab) -> None:
    with files.locked(runs.study_dir(make_study(), lab.runs_dir) / ".lock"):
        with pytest.raises(StudyError, match=rf"in use.*process {os.getpid()}"):
            lab.run(make_trials({}))
    assert lab.run(make_trials({})) == ["started", "done"]


def test_kill_9_at_any_time_then_the_same_command_completes_each_trial_once(lab: Lab) -> None:
    for waited in (1, 3):
        driver = start_driver(lab)
        wait_until(lambda n=waited: sum(lab.noted("done").values()) >= n)
        driver.kill()
        driver.wait()
        wait_until(lambda: not any(lives(pid) for pid in lab.pids()))
    assert start_driver(lab, slot_count=4).wait(300) == 0
    lab.assert_each_done_once(make_trials(*[{"seconds": 0.5}] * 4, seeds=(0, 1)))
    assert lab.states() == {"COMPLETE": 8}


@pytest.mark.usefixtures("heard_signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_no_trial_outlives_its_dispatcher(lab: Lab, number: signal.Signals) -> None:
    driver = start_driver(lab, seconds=60)
    wait_until(lambda: sum(lab.noted("start").values()) == 2)
    driver.send_signal(number)
    assert driver.wait(240) == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    wait_until(lambda: not any(lives(pid) for pid in lab.pids()))
    if number != signal.SIGKILL:
        assert lab.states() == {"FAIL": 2}


def test_a_hangup_that_nohup_ignores_ends_no_study(lab: Lab) -> None:
    command = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", sys.executable, DRIVER,
               lab.runs_dir, lab.journal, "0.3", "4"]  # fmt: skip
    driver = subprocess.Popen(command, env=environment())
    wait_until(lambda: sum(lab.noted("start").values()) >= 2)
    driver.send_signal(signal.SIGHUP)
    assert driver.wait(240) == 0
    assert lab.states() == {"COMPLETE": 8}


@pytest.mark.usefixtures("heard_signals")
def test_a_signal_leaves_a_study_that_continues(lab: Lab) -> None:
    driver = start_driver(lab, seconds=0.4)
    wait_until(lambda: sum(lab.noted("done").values()) >= 1)
    wait_until(lambda: len(lab.pids()) > sum(lab.noted("done").values()))
    driver.send_signal(signal.SIGINT)
    assert driver.wait(120) == 130
    trials = make_trials(*[{"seconds": 0.4}] * 4, seeds=(0, 1))
    done = sum(lab.result(trial) is not None for trial in trials)
    assert lab.run(trials, slot_count=8).count("found") == done
    lab.assert_each_done_once(trials)


def test_a_trial_that_the_system_ends_is_queued_again_and_goes_on(lab: Lab) -> None:
    trials = make_trials({"preempted": 2}, {})
    kinds = lab.run(trials)
    assert kinds.count("interrupted") == 2 and kinds.count("done") == 2
    assert "retry" not in kinds and lab.states() == {"COMPLETE": 2, "FAIL": 2}
    folder = runs.trial_dir(trials[0], lab.runs_dir)
    assert (folder / "checkpoint-1").is_dir()  # stays where the next attempt looks for it
    assert lab.result(trials[0]).attempt == 3
    lab.assert_each_done_once(trials)


def test_a_trial_that_is_asked_to_end_when_it_is_done_is_done(lab: Lab) -> None:
    trials = make_trials({"exits_with": 75})
    assert lab.run(trials) == ["started", "done"]
    assert lab.states() == {"COMPLETE": 1}


def test_a_trial_that_is_ended_for_ever_fails(lab: Lab, monkeypatch) -> None:
    monkeypatch.setattr(loop, "MOST_ATTEMPTS", 3)
    trials = make_trials({"preempted": 99})
    assert lab.run(trials).count("interrupted") == 2
    assert lab.result(trials[0]).failure.message == "ended by SIGTERM in 3 attempts"


def test_a_deterministic_trial_gets_the_variables_that_cublas_reads(lab: Lab) -> None:
    fake = {"exit": 1, "says": "workspace", "variable": "CUBLAS_WORKSPACE_CONFIG"}
    (plain,) = make_trials(fake)
    exact = plain.model_copy(update={"config": plain.config | {"train": {"deterministic": True}}})
    lab.run([plain, exact])
    assert lab.result(plain).failure.message.endswith("workspace")
    assert lab.result(exact).failure.message.endswith("workspace :4096:8")


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumps_ends_no_trial(lab: Lab, jump: float, monkeypatch) -> None:
    real, calls = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: real() + jump * next(calls))
    trials = make_trials({"seconds": 0.2})
    assert lab.run(trials, make_study(per_trial_minutes=1, max_hours=1)) == ["started", "done"]


def test_a_trial_that_saves_at_its_time_limit_has_failed_and_can_go_on(lab: Lab) -> None:
    trials = make_trials({"saves": True, "seconds": 60})
    lab.run(trials, make_study(per_trial_minutes=0.01))
    failure = lab.result(trials[0]).failure
    assert failure.kind == "timeout"
    assert "--retry-failed goes on from its checkpoint" in failure.message
    assert lab.states() == {"FAIL": 1}


def test_a_trial_that_finds_the_disk_full_says_so(lab: Lab) -> None:
    said = "OSError: [Errno 28] No space left on device: 'result.json'"
    lab.run(make_trials({"exit": 1, "says": said}, {}))
    failure = lab.result(make_trials({"exit": 1, "says": said})[0]).failure
    assert failure.kind == "disk_full" and "Free space below --runs" in failure.message


def test_a_record_that_fails_leaves_no_trial_behind(lab: Lab, monkeypatch) -> None:
    failures = iter([OSError(28, "No space left on device")])
    real = OptunaLedger._add

    def add(self, *arguments) -> None:
        for failure in failures:
            raise failure
        real(self, *arguments)

    monkeypatch.setattr(OptunaLedger, "_add", add)
    trials = make_trials({"seconds": 1}, {"seconds": 1}, {"saves": True, "seconds": 60})
    with pytest.raises(OSError, match="No space left"):
        lab.run(trials, slot_count=3)
    assert not any(lives(pid) for pid in lab.pids())
    assert lab.result(trials[2]) is None
    assert (runs.trial_dir(trials[2], lab.runs_dir) / "checkpoint-1").is_dir()
    assert lab.run([*trials[:2]]).count("found") >= 1
    assert set(lab.noted("done").values()) == {1}


def test_hours_count_from_the_first_trial_of_a_study(lab: Lab) -> None:
    trials = make_trials({"seconds": 0.3})
    later = [trial.model_copy(update={"study": "later"}) for trial in make_trials({})]
    tasks = [
        Task(trial, runs.trial_dir(trial, lab.runs_dir), "test/accuracy", Budget(max_hours=hours))
        for trial, hours in ((trials[0], 1.0), (later[0], 0.1 / 3600))
    ]
    runner = fake_trials.make_runner(lab.journal.parent, 1, str(lab.journal))
    loop.Loop(Queue(tasks), runner, lab.runs_dir, signals=[]).work()
    assert lab.result(later[0]).status == "done"
