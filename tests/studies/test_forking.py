"""Workers forked from one process that has imported everything: alike, apart, and gone with it."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from studies.engine.running import forking
from studies.engine.running.forking import Forked, Template
from studies.engine.running.local import LocalRunner

pytestmark = pytest.mark.skipif(not forking.POSSIBLE, reason="there is no fork to rely on")
SCRIPT = """
import json, os, sys
from studies.engine.trials import template, worker

def work(answers):
    orders = os.read(0, 100).decode()
    print("said", flush=True)
    told = {"variables": dict(os.environ), "group": os.getpgid(0), "orders": orders}
    os.write(answers, json.dumps(told).encode())
    return int(os.read(0, 100) or 7)

worker.import_what_trials_need = lambda: None
worker.main = work
sys.exit(template.main())
"""
"""A template whose workers tell what they are, and end with the code that they are told."""


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(forking, "COMMAND", [sys.executable, "-c", SCRIPT])
    made = Template({**os.environ, "BASE": "1", "GONE": "1"}, tmp_path / "template.log")
    yield made
    made.close()


class Started:
    """A worker, and what one has of it."""

    def __init__(self, template: Template, log: Path, **variables: str) -> None:
        stdin, self.orders = os.pipe()
        self.answers, theirs = os.pipe()
        wanted = {**os.environ, "BASE": "1", **variables}
        self.process: Forked = template.start(wanted, stdin, theirs, log)
        os.close(stdin)
        os.close(theirs)

    def ask(self) -> dict[str, Any]:
        os.write(self.orders, b"go")
        told: dict[str, Any] = json.loads(os.read(self.answers, 1 << 20))
        return told


def test_each_worker_has_its_own_environment_group_and_log(
    template: Template, tmp_path: Path
) -> None:
    one, two = (Started(template, tmp_path / n, OWN=n) for n in ("one", "two"))
    for name, worker in (("one", one), ("two", two)):
        told = worker.ask()
        assert told["orders"] == "go"
        assert told["variables"]["OWN"] == name and told["variables"]["BASE"] == "1"
        assert not told["variables"].keys() & {"GONE", "PYTORCH_NVML_BASED_CUDA_CHECK"}
        assert worker.process.poll() is None and told["group"] == worker.process.pid
        assert (tmp_path / name).read_text() == "said\n"
    os.close(one.orders)  # what another worker was forked with must not keep it open
    assert one.process.wait() == 7
    os.write(two.orders, b"75")
    assert two.process.wait() == 75 == two.process.returncode


def test_a_worker_that_is_killed_says_by_which_signal(template: Template, tmp_path: Path) -> None:
    worker = Started(template, tmp_path / "log")
    worker.ask()
    worker.process.terminate()
    assert worker.process.wait() == -signal.SIGTERM


def test_a_worker_that_is_to_end_before_it_is_there_ends(
    template: Template, tmp_path: Path
) -> None:
    worker = Started(template, tmp_path / "log")
    worker.process.terminate()
    assert worker.process.wait() == -signal.SIGTERM


def test_workers_die_with_their_template_and_the_next_one_gets_another(
    template: Template, tmp_path: Path
) -> None:
    worker = Started(template, tmp_path / "log")
    own = worker.ask()["group"]
    process = template._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    assert worker.process.wait() == -signal.SIGKILL
    wait_until(lambda: not os.path.exists(f"/proc/{own}"))
    wait_until(process.poll)
    assert Started(template, tmp_path / "next").ask()["orders"] == "go"


def test_a_template_that_cannot_start_leaves_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "COMMAND", [sys.executable, "-c", "raise ImportError('no torch')"])
    template = Template(dict(os.environ), tmp_path / "template.log")
    worker = Started(template, tmp_path / "log")
    assert worker.process.wait() == 1
    assert (tmp_path / "log").read_text() == "ImportError: no torch\n"
    template.close()


def test_a_sigterm_to_all_processes_of_a_job_leaves_the_template_that_workers_need(
    template: Template, tmp_path: Path
) -> None:
    worker = Started(template, tmp_path / "log")
    worker.ask()
    assert template._process is not None
    os.kill(template._process.pid, signal.SIGTERM)
    assert Started(template, tmp_path / "next").ask()["orders"] == "go"
    os.write(worker.orders, b"75")
    assert worker.process.wait() == 75


def test_where_an_import_starts_cuda_workers_import_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = "types.SimpleNamespace(cuda=types.SimpleNamespace(is_initialized=lambda: True))"
    spoilt = SCRIPT.replace(
        "import_what_trials_need = lambda: None",
        f"import_what_trials_need = lambda: sys.modules.update(torch={fake})",
    )
    script = spoilt.replace("import json, os, sys", "import json, os, sys, types")
    monkeypatch.setattr(forking, "COMMAND", [sys.executable, "-c", script])
    template = Template(dict(os.environ), tmp_path / "template.log")
    worker = Started(template, tmp_path / "log")
    wait_until(lambda: worker.process.poll() is not None or worker.process.pid)
    command = Path(f"/proc/{worker.process.pid}/cmdline").read_bytes().split(b"\0")
    assert command[1:3] == [b"-m", b"studies.engine.trials.template"] and command[4] == b"bare"
    template.close()


def test_a_template_that_dies_with_a_request_unread_is_no_fault_of_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = "import os, sys, time; os.close(int(sys.argv[1])); time.sleep(60)"
    monkeypatch.setattr(forking, "COMMAND", [sys.executable, "-c", deaf])
    template = Template(dict(os.environ), tmp_path / "template.log")
    workers = [Started(template, tmp_path / "log") for _ in range(2)]
    assert workers[0].process.wait() == 1
    assert Started(template, tmp_path / "next").process.wait() == 1
    template.close()


def test_a_disk_that_is_full_takes_no_last_words(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(forking, "COMMAND", [sys.executable, "-c", "raise ImportError('no torch')"])
    worker = Started(template, tmp_path / "log")
    monkeypatch.setattr(Path, "write_text", full)
    assert worker.process.wait() == 1


def test_closing_a_runner_waits_for_the_end_of_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template that is gone cannot tell when they are, and they hold memory of a GPU."""
    monkeypatch.setattr(forking, "COMMAND", [sys.executable, "-c", SCRIPT])
    runner = LocalRunner(1, tmp_path)
    worker = runner._workers[0]
    worker._start({})
    wait_until(lambda: worker.started)
    process, template = worker._process, runner._template
    assert process is not None and template is not None
    told: list[int | None] = []
    resting = template.rest
    monkeypatch.setattr(template, "rest", lambda: (told.append(process.returncode), resting()))
    runner.close()
    assert told == [-signal.SIGKILL]


def started(runner: LocalRunner) -> tuple[int, int]:
    """The process ids of a worker, and of what it was forked from."""
    worker, template = runner._workers[0], runner._template
    worker._start({})
    wait_until(lambda: worker.started)
    assert worker._process is not None and worker._process.pid is not None
    assert template is not None and template._process is not None
    return worker._process.pid, template._process.pid


def test_the_next_runner_forks_from_the_template_of_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "COMMAND", [sys.executable, "-c", SCRIPT])
    monkeypatch.setattr(forking, "_resting", None)
    runners = LocalRunner(1, tmp_path / "one"), LocalRunner(1, tmp_path / "two")
    worker, first = started(runners[0])
    assert started(runners[1])[1] != first, "one template has one runner"
    runners[0].close()
    assert not os.path.exists(f"/proc/{worker}")
    third = LocalRunner(1, tmp_path / "three")
    assert started(third)[1] == first
    third.close()
    runners[1].close()
    wait_until(lambda: not os.path.exists(f"/proc/{first}"))  # one rests, the last
    last = runners[1]._template
    monkeypatch.setenv("ANOTHER", "environment")
    other = LocalRunner(1, tmp_path / "four")
    assert forking._resting is None and last is not None and last._process is None
    other._workers[0]._start({})  # asked for, and not there
    process = other._workers[0]._process
    other.close()
    assert forking._resting is None and process is not None and process.poll() is not None
