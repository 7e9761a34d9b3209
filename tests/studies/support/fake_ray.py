"""A Ray cluster on this machine, and a driver of fake trials on it; both are there to be killed.

    python fake_ray.py cluster NODES                 # obeys `add`, `gpus`, `kill`, `gcs` and `head`
    python fake_ray.py drive ADDRESS FOLDER SECONDS  # 4 trials of SECONDS

Each node has one CPU, so one slot; the head has none. Orders: `add` a node, or one that says it
has 2 `gpus` (and 4 CPUs); `kill` the node that came first; `gcs` and `head` kill the head's server,
or all of the head. A line is printed when that is done.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import fake_trials
import psutil
from python_path import environment


class FakeCluster:
    """The first program, told what to do."""

    def __init__(self, nodes: int) -> None:
        command = [sys.executable, __file__, "cluster", str(nodes)]
        self.scratch = Path(tempfile.mkdtemp(prefix="bz-"))
        """What trials write before it comes home, apart from other clusters' on this machine."""
        variables = environment(RAY_USAGE_STATS_ENABLED="0", TMPDIR=str(self.scratch))
        variables.pop("OMP_NUM_THREADS", None)  # Ray would leave it as it is
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=variables,
            start_new_session=True,  # what Ray starts stays in it
        )  # fmt: skip
        self.address = self._answer()

    @property
    def session(self) -> int:
        """That of all of its processes but the trials'."""
        return self._process.pid

    def do(self, order: str) -> None:
        """One of the orders."""
        assert self._process.stdin is not None
        print(order, file=self._process.stdin, flush=True)
        self._answer()

    def close(self) -> None:
        """Kill whatever is left of it."""
        for pid in psutil.pids():
            try:
                if os.getsid(pid) == self.session:
                    os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        self._process.communicate()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the cluster's program ended"
        return line


def command(folder: Path) -> Sequence[str]:
    """That of a fake worker with its journal in `folder`."""
    script = folder / "fake_worker.py"
    script.write_text(fake_trials.SCRIPT)
    return [sys.executable, "-S", str(script), str(folder / "journal")]


def trials(seconds: float) -> list[fake_trials.Trial]:
    """Those of the driver."""
    return fake_trials.make_trials(*[{"seconds": float(seconds), "saves": True}] * 4)


def _cluster(nodes: int) -> None:
    from ray.cluster_utils import Cluster

    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    there = [cluster.add_node(num_cpus=1, wait=False) for _ in range(nodes)]
    cluster.wait_for_nodes()
    print(cluster.address, file=out)
    for line in sys.stdin:
        match line.strip():
            case "add":
                there.append(cluster.add_node(num_cpus=1))
            case "gpus":
                cluster.add_node(num_cpus=4, num_gpus=2)
            case "kill":
                cluster.remove_node(there.pop(0), allow_graceful=False)
            case "gcs":
                for each in cluster.head_node.all_processes["gcs_server"]:
                    each.process.kill()
            case "head":
                for processes in cluster.head_node.all_processes.values():
                    for each in processes:
                        each.process.kill()
        print("done", file=out)


def _drive(address: str, folder: Path, seconds: float) -> None:
    from studies.engine.command import dispatch
    from studies.engine.running.cluster import ray_runner
    from studies.engine.running.events import Interrupted, Stopped

    ray_runner.LOST_SECONDS = 2
    argv = command(folder)
    try:
        with ray_runner.connected(address) as cluster:
            dispatch.run(
                fake_trials.make_study(), trials(seconds), folder / "runs",
                lambda left: ray_runner.RayRunner(cluster, left, command=lambda processes: argv),
            )  # fmt: skip
    except Interrupted:
        sys.exit(130)
    except Stopped as error:
        sys.exit(str(error))


if __name__ == "__main__":
    if sys.argv[1] == "cluster":
        _cluster(int(sys.argv[2]))
    else:
        _drive(sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))
