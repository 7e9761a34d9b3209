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
