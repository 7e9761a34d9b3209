"""The Ray runner, on a cluster of two nodes that are processes of this machine."""

import ast
import hashlib
import importlib
import inspect
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import fake_ray
import pytest
from fake_trials import make_study, make_trials
from lab import Lab, lives
from python_path import environment
from waiting import wait_until

from studies.engine.command import cli
from studies.engine.errors import StudyError
from studies.engine.planning import runs
from studies.engine.running import slots
from studies.engine.running.cluster import node_check
from studies.engine.running.cluster.actor import Node
from studies.engine.running.events import Stopped
from studies.engine.running.protocols import Task

pytestmark = pytest.mark.slow

try:
    # before Ray, which reads variables that it sets
    from studies.engine.running.cluster import ray_runner
except StudyError:
    pytest.skip("Ray is not installed", allow_module_level=True)


on_a_cluster = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[fake_ray.FakeCluster]:
    """Two slots."""
    started = fake_ray.FakeCluster(nodes=2)
    yield started
    started.close()


@pytest.fixture(scope="module")
def connection(cluster: fake_ray.FakeCluster) -> Iterator[ray_runner.Cluster]:
    with ray_runner.connected(cluster.address) as connected:
        yield connected


@pytest.fixture
def lab(tmp_path: Path, connection: ray_runner.Cluster) -> Lab:
    (tmp_path / "runs").mkdir()
    command = fake_ray.command(tmp_path)
    lab = Lab(tmp_path)
    lab.make_runner = lambda left: ray_runner.RayRunner(
        connection, left, command=lambda processes: command
    )
    return lab


def folder_of(lab: Lab, trial) -> Path:
    return runs.trial_dir(trial, lab.runs_dir)


def in_background(disturb: Callable[[], None]) -> threading.Thread:
    """The test's part: signals are handled in the main thread, so `lab.run` stays there."""
    thread = threading.Thread(target=disturb)
    thread.start()
    return thread


def start_driver(cluster: fake_ray.FakeCluster, folder: Path, seconds: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, fake_ray.__file__, "drive", cluster.address, folder, str(seconds)],
        env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def assert_nothing_left(lab: Lab) -> None:
    wait_until(lambda: not any(lives(pid) for pid in lab.pids()))


@on_a_cluster
def test_each_trial_is_run_once_and_comes_home(lab: Lab, cluster: fake_ray.FakeCluster) -> None:
    trials = make_trials({"lines": 3}, {}, {}, {}, {"failures": 1, "message": "no"})
    assert sorted(lab.run(trials)) == ["done"] * 4 + ["failed"] + ["started"] * 5
    assert set(lab.noted("start").values()) == {1}
    assert lab.states() == {"COMPLETE": 4, "FAIL": 1}
    assert len((folder_of(lab, trials[0]) / "metrics.jsonl").read_text().splitlines()) == 3
    assert lab.result(trials[4]).failure.message == "no"
    assert_nothing_left(lab)
    assert lab.run(trials) == ["found"] * 5


@on_a_cluster
def test_a_worker_that_is_killed_fails_its_trial_alone(lab: Lab) -> None:
    trials = make_trials({"killed": True}, {"exit": 3}, {})
    lab.run(trials)
    messages = [lab.result(trial).failure.message for trial in trials[:2]]
    assert messages == [
        "killed by SIGKILL; perhaps the machine ran out of memory",
        "ended with exit code 3 and no result: the last words",
    ]
    assert lab.result(trials[2]).status == "done"


@on_a_cluster
def test_metrics_come_home_while_a_trial_runs(lab: Lab, tmp_path: Path) -> None:
    go = tmp_path / "go"
    (trial,) = trials = make_trials({"lines": 2, "waits_for": str(go)})
    metrics = folder_of(lab, trial) / "metrics.jsonl"

    def watch() -> None:
        wait_until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) == 2)
        go.touch()  # without it the trial would not end

    watching = in_background(watch)
    assert lab.run(trials) == ["started", "done"]
    watching.join()


@on_a_cluster
def test_a_plug_in_travels_by_its_content(lab: Lab, tmp_path: Path) -> None:
    plugin = tmp_path / "phi.py"
    plugin.write_text("the content")
    (plain,) = make_trials({"plugins": True})
    digest = hashlib.sha256(b"the content").hexdigest()
    trial = plain.model_copy(update={"plugins": (str(plugin),), "plugin_hashes": (digest,)})
    (tmp_path / "elsewhere").mkdir()
    lab.run([trial])
    assert lab.result(trial).notes == ("the content",)


@on_a_cluster
def test_what_a_trial_saved_comes_home_and_travels_to_the_next_node(
    lab: Lab, cluster: fake_ray.FakeCluster
) -> None:
    trials = make_trials({"saves": True, "seconds": 60})
    lab.run(trials, make_study(per_trial_minutes=0.02))
    folder = folder_of(lab, trials[0])
    assert "--retry-failed goes on from its checkpoint" in lab.result(trials[0]).failure.message
    assert (folder / "checkpoint-1" / "state").read_text() == "saved\n"
    lab.run(trials, make_study(per_trial_minutes=0.02), retry_failed=True)
    assert lab.noted("goes-on") == {trials[0].key: 1}
    assert_nothing_left(lab)


@on_a_cluster
def test_trials_of_a_lost_node_run_again_where_one_joined(
    lab: Lab, cluster: fake_ray.FakeCluster, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    trials = make_trials(*[{"waits_for": str(go)}] * 3)

    def disturb() -> None:
        wait_until(lambda: sum(lab.noted("start").values()) == 2)
        cluster.do("kill")
        wait_until(lambda: sum(map(lives, lab.pids())) == 1)
        cluster.do("add")
        wait_until(lambda: sum(lab.noted("start").values()) == 3)
        go.touch()

    disturbing = in_background(disturb)
    kinds = lab.run(trials)
    disturbing.join()
    assert kinds.count("interrupted") == 1 and kinds.count("done") == 3
    assert "retry" not in kinds and "failed" not in kinds
    lab.assert_each_complete_once(trials)


@on_a_cluster
def test_a_killed_driver_leaves_no_trial_and_the_same_command_goes_on(
    lab: Lab, cluster: fake_ray.FakeCluster, tmp_path: Path
) -> None:
    driver = start_driver(cluster, tmp_path, seconds=1)
    wait_until(lambda: sum(lab.noted("done").values()) >= 1)
    wait_until(lambda: sum(lab.noted("start").values()) >= 3)
    driver.kill()
    driver.communicate()
    wait_until(lambda: not any(lives(pid) for pid in lab.pids()))
    trials = fake_ray.trials(seconds=1)
    found = sum(lab.result(trial) is not None for trial in trials)
    assert lab.run(trials).count("found") == found > 0
    lab.assert_each_complete_once(trials)  # what ended far away had perhaps not come home
    assert_nothing_left(lab)


@on_a_cluster
def test_ctrl_c_saves_every_trial_and_brings_it_home(
    lab: Lab, cluster: fake_ray.FakeCluster, tmp_path: Path
) -> None:
    driver = start_driver(cluster, tmp_path, seconds=60)
    wait_until(lambda: sum(lab.noted("start").values()) == 2)
    driver.send_signal(signal.SIGINT)
    _, said = driver.communicate()
    assert (driver.returncode, said) == (130, "")
    saved = lab.runs_dir.glob("fake/embedded/trials/*/checkpoint-1/state")
    assert [file.read_text() for file in saved] == ["saved\n"] * 2
    assert lab.states() == {"FAIL": 2}
    assert_nothing_left(lab)


@on_a_cluster
def test_a_node_that_joins_with_other_code_gets_no_trial(
    lab: Lab, cluster: fake_ray.FakeCluster, connection: ray_runner.Cluster, monkeypatch
) -> None:
    there = node_check.probe() | {"version": "9", "source": "another"}
    monkeypatch.setattr(connection, "_here", there)  # who joins now differs from "this machine"
    cluster.do("add")
    said: list[str] = []
    runner = ray_runner.RayRunner(connection, 9, say=said.append)
    wait_until(lambda: runner.poll() or said)
    runner.close()
    assert re.fullmatch(r"node .* of the Ray cluster has another basis-zoo \(.*, here 9\).*", *said)
    with pytest.raises(StudyError, match="here 9"):
        connection.check()


@on_a_cluster
def test_a_cluster_whose_nodes_all_fail_ends_the_study(
    lab: Lab, connection: ray_runner.Cluster, monkeypatch
) -> None:
    monkeypatch.setattr(connection, "nodes", dict(connection.nodes))
    monkeypatch.setattr(connection, "refused", {})
    lab.make_runner = lambda left: ray_runner.RayRunner(
        connection, 9, command=lambda processes: [][1]
    )
    with pytest.raises(Stopped, match="gets no trials: IndexError: list index out of range"):
        lab.run(make_trials({}))


@on_a_cluster
def test_on_a_cluster_with_gpus_a_slot_is_a_share_of_one_or_several(
    lab: Lab, cluster: fake_ray.FakeCluster, connection: ray_runner.Cluster, tmp_path: Path
) -> None:
    cluster.do("gpus")
    with_gpus = ray_runner.Cluster(connection.address)
    with_gpus.check()
    assert with_gpus.most_gpus == 2
    command = fake_ray.command(tmp_path)
    noted = ["CUDA_VISIBLE_DEVICES", "BASIS_ZOO_SLOTS", "OMP_NUM_THREADS"]
    found = []
    for per_trial, per_gpu, count in ((1, 2, 4), (2, 1, 1)):
        lab.make_runner = lambda left, per_trial=per_trial, per_gpu=per_gpu: ray_runner.RayRunner(
            with_gpus, left, gpus_per_trial=per_trial, slots_per_gpu=per_gpu,
            command=lambda processes: command,
        )  # fmt: skip
        go = tmp_path / f"go-{count}"
        trials = make_trials(*[{"noted": noted, "waits_for": str(go)}] * count)
        begun = sum(lab.noted("start").values())

        def release(go: Path = go, whole: int = begun + count) -> None:
            wait_until(lambda: sum(lab.noted("start").values()) == whole)  # all at once
            go.touch()

        releasing = in_background(release)
        lab.run(trials)
        releasing.join()
        found.append(sorted(lab.result(trial).notes for trial in trials))
    assert found == [
        [("0", "4", "1"), ("0", "4", "1"), ("1", "4", "1"), ("1", "4", "1")],
        [("0,1", "1", "4")],
    ]


@on_a_cluster
def test_a_driver_without_a_head_says_so_and_leaves_no_trial(tmp_path: Path) -> None:
    """On a cluster of its own: Ray ends every process that is connected with a dead head."""
    lab = Lab(tmp_path)
    lab.runs_dir.mkdir()
    cluster = fake_ray.FakeCluster(nodes=2)
    try:
        driver = start_driver(cluster, tmp_path, seconds=60)
        wait_until(lambda: sum(lab.noted("start").values()) == 2)
        cluster.do("gcs")
        _, said = driver.communicate()
        assert driver.returncode == 1
        assert "does not answer" in said and "run the same command again" in said
        wait_until(lambda: not any(lives(pid) for pid in lab.pids()))
    finally:
        cluster.close()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("auto", "--ray auto: no answer in 1 seconds. Start a cluster with `ray start --head`"),
        ("127.0.0.1:1", "--ray 127.0.0.1:1: no answer in 1 seconds"),
        ("nonsense", "--ray nonsense: "),
        ("ray://host:10001", "expected host:port of the head"),
    ],
)
def test_an_address_that_does_not_answer_is_refused(address, message, monkeypatch) -> None:
    monkeypatch.setattr(ray_runner, "ANSWER_SECONDS", 1)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # what auto stands for
    with pytest.raises(StudyError, match=message), ray_runner.connected(address):
        pass


def test_a_cluster_that_asks_for_a_token_says_which_setting_is_missing(monkeypatch) -> None:
    refuses = "import sys; sys.exit('RPC error: InvalidAuthToken: missing or incorrect')"
    monkeypatch.setattr(ray_runner, "CONNECTS", refuses)
    with pytest.raises(StudyError, match="set RAY_AUTH_MODE=token"):
        with ray_runner.connected("host:1"):
            pass


def test_to_end_a_trial_that_has_ended_by_itself_is_nothing() -> None:
    """The first trials fail alike in one look: of the third the others that run are ended."""
    cluster = SimpleNamespace(has_gpus=False, nodes={}, refused={})
    runner = ray_runner.RayRunner(cluster, 4)
    (trial,) = make_trials({})
    task = Task(trial, Path("nowhere"), "test/accuracy", make_study().budget)
    runner.end(task)
    runner.kill(task)


def test_a_trial_does_not_get_the_token_of_the_cluster(monkeypatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert "secret" not in slots.common_environment(1).values()


def test_a_node_without_the_packages_is_named() -> None:
    here = node_check.probe()
    source = inspect.getsource(node_check.probe)
    bare = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"from typing import Any\n{source}\nprint(probe())"],
        capture_output=True, text=True, check=True, cwd="/",
    ).stdout  # fmt: skip
    assert node_check.difference("n1", here, here) == ""
    assert re.match(
        "node n1 of the Ray cluster has no basis-zoo: install it",
        node_check.difference("n1", ast.literal_eval(bare), here),
    )
    edited = here | {"source": "another"}
    assert "with other source files" in node_check.difference("n1", edited, here)


def test_without_ray_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "studies.engine.running.cluster.ray_runner")
    with pytest.raises(StudyError, match=r"pip install 'basis-zoo\[ray\]'"):
        importlib.import_module("studies.engine.running.cluster.ray_runner")


def test_slots_are_not_measured_for_other_machines(capsys) -> None:
    assert cli.main(["grid_size", "--ray", "--slots", "auto"]) == 2
    assert "--slots auto measures this machine" in capsys.readouterr().err


def test_a_trial_that_needs_more_gpus_than_any_node_has_is_refused() -> None:
    study = make_study(gpus_per_trial=8)
    what = "no node of the Ray cluster has more than {} GPUs"
    with pytest.raises(StudyError, match=r"fake.yaml:1: .*more than 4 GPUs, got 8"):
        cli._refuse_too_many(study, 4, what)
    cli._refuse_too_many(study, 0, what)  # without a GPU, processes share the CPU


@pytest.mark.parametrize(
    ("node", "gpus_per_trial", "per_gpu", "slots", "share"),
    [
        (Node("", "", 16, 4), 1, 1, 4, (4, 1)),
        (Node("", "", 16, 1), 1, 6, 6, (2, 0.1666)),
        (Node("", "", 2, 1), 1, 8, 8, (0, 0.125)),
        (Node("", "", 32, 5), 2, 9, 2, (16, 2)),
        (Node("", "", 16, 0), 1, 9, 16, (1, 0)),
    ],
)
def test_a_slot_is_a_share_of_a_node(node, gpus_per_trial, per_gpu, slots, share) -> None:
    assert ray_runner.slots_on(node, node.gpus > 0, gpus_per_trial, per_gpu) == slots
    assert ray_runner.share(node, slots, node.gpus > 0, gpus_per_trial, per_gpu) == share
