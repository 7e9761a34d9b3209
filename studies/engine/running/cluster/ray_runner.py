"""Trials on a Ray cluster: an actor a slot, on whatever nodes there are. Alone in importing Ray."""

import contextlib
import itertools
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from studies.engine.errors import StudyError
from studies.engine.running.cluster import node_check
from studies.engine.running.cluster.actor import Actor, Node
from studies.engine.running.cluster.remote import News, RemoteSlot, bring_home
from studies.engine.running.protocols import Exit, RunnerLost, Task
from studies.engine.running.worker_process import Command, worker_command
from studies.engine.trials import devices

os.environ |= {  # read when Ray is imported; what it would say is not about the study
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "(?s).*",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
try:
    import ray
    from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise StudyError("--ray needs Ray: pip install 'basis-zoo[ray]'") from error

ANSWER_SECONDS = 20.0
"""For how long an address may be silent at the start."""
PROBE_SECONDS = 60.0
"""For how long a node may; Ray starts a process there first."""
REFRESH_SECONDS = 1.0
LOST_SECONDS = 20.0
"""A head that is silent for so long is gone; after 60 Ray would end this process."""
FRUITLESS = 3
"""So many slots of a node that end before they can be used: it gets no more."""
CONNECTS = """
import logging, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
"""
Say = Callable[[str], None]


class Cluster:
    """The nodes that may run trials, as they come and go."""

    def __init__(self, address: str) -> None:
        self.address = address
        """host:port of the head."""
        self.nodes: dict[str, Node] = {}
        """By id."""
        self.refused: dict[str, str] = {}
        """Why the other nodes get no trial."""
        self._here = node_check.probe()
        self._probes: dict[Any, Node] = {}
        self._heard = self._refreshed = time.monotonic()
        self._lost = False
        self.has_gpus = any(node.gpus for node in self._alive())
        """Then a node without any runs no trial."""

    @property
    def most_gpus(self) -> int:
        """Of one node."""
        return max((node.gpus for node in self.nodes.values()), default=0)

    def check(self) -> None:
        """Wait until every node was looked at; raises `StudyError` where one cannot be used."""
        self._look()
        end = time.monotonic() + PROBE_SECONDS
        while self._probes and time.monotonic() < end:
            time.sleep(0.05)
            self._look()
        silent = [f"node {node.name} of the Ray cluster does not answer: end it, or Ray on it"
                  for node in self._probes.values()]  # fmt: skip
        if problems := [*self.refused.values(), *silent]:
            raise StudyError(*problems)

    def refresh(self) -> bool:
        """Look at the cluster where that was some time ago; whether it did.

        Raises `RunnerLost` where the head is silent.
        """
        now = time.monotonic()
        if now - self._refreshed < REFRESH_SECONDS:
            return False
        if self.answers():
            with contextlib.suppress(RayError):  # it went away just now
                self._look()
                self._heard = time.monotonic()
        elif now - self._heard > LOST_SECONDS:
            self._lost = True
            raise RunnerLost(
                f"the head of the Ray cluster ({self.address}) does not answer. Finished trials "
                "are kept: start the cluster again and run the same command again"
            )
        self._refreshed = time.monotonic()
        return self._heard >= now

    def refuse(self, node: str, why: str) -> None:
        """Give the node of this id no more trials."""
        self.refused[node] = why
        self.nodes.pop(node, None)

    def answers(self) -> bool:
        """Whether the head answers now: calls to a dead one would not return."""
        if self._lost:
            return False
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
        except OSError:
            return False
        return True

    def _alive(self) -> list[Node]:
        return [
            Node(each["NodeID"], each["NodeManagerAddress"], int(each["Resources"].get("CPU", 0)),
                 int(each["Resources"].get("GPU", 0)))
            for each in ray.nodes()
            if each["Alive"]
        ]  # fmt: skip

    def _look(self) -> None:
        """Forget nodes that left, and probe those that joined."""
        alive = {node.id: node for node in self._alive()}
        for gone in self.nodes.keys() - alive.keys():
            del self.nodes[gone]
        known = {*self.nodes, *self.refused, *(node.id for node in self._probes.values())}
        for node in alive.values():
            if node.id not in known and (node.gpus if self.has_gpus else node.cpus):
                here = NodeAffinitySchedulingStrategy(node.id, soft=False)
                probe = ray.remote(node_check.probe).options(num_cpus=0, scheduling_strategy=here)
                self._probes[probe.remote()] = node
        for ref in _ready(self._probes):
            node = self._probes.pop(ref)
            try:
                wrong = node_check.difference(node.name, ray.get(ref), self._here)
            except RayTaskError as error:
                wrong = f"node {node.name} of the Ray cluster cannot be used: {_cause(error)}"
            except RayError:  # it left
                continue
            if wrong:
                self.refuse(node.id, wrong)
            else:
                self.nodes[node.id] = node


@contextlib.contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """The cluster at `address`, while this process is connected with it.

    Args:
        address: `host:port` of its head, `auto` for the cluster that this machine is part of, or
            `local` for one that is started here and ends with the context.

    Raises:
        StudyError: nothing answers there, or a node does not have our code.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == "local":
        options |= {"num_cpus": devices.cores(), "include_dashboard": False}
    else:
        _check_answers(address)
    # by value: a node without our packages could not import it
    ray.cloudpickle.register_pickle_by_value(node_check)
    ray.init(address=address, **options)
    cluster = None
    try:
        cluster = Cluster(ray.get_runtime_context().gcs_address)
        cluster.check()
        yield cluster
    finally:
        if cluster is None or cluster.answers():
            ray.shutdown()


class RayRunner:
    """Runs a trial in each slot of the cluster, and follows it as nodes come and go."""

    def __init__(
        self,
        cluster: Cluster,
        most: int,
        *,
        gpus_per_trial: int = 1,
        slots_per_gpu: int = 1,
        say: Say = lambda text: None,
        command: Command = worker_command,
    ) -> None:
        """Makes at most `most` slots.

        `say` hears of nodes that cannot be used. `command` is called on the nodes.
        """
        self._cluster, self._most, self._say, self._command = cluster, most, say, command
        self._processes = gpus_per_trial
        self._shape = (cluster.has_gpus, gpus_per_trial, slots_per_gpu)
        self._slots: list[Actor] = []
        self._orders = itertools.count()
        self._fruitless: dict[str, int] = {}
        """By node: slots in a row that could not be used."""
        self._said: set[str] = set()
        self._adjust()

    def free(self) -> int:
        """How many trials may be started now."""
        return sum(slot.idle for slot in self._slots)

    def start(self, task: Task) -> int:
        """Send `task` to an idle slot, with the checkpoints that it has."""
        slot = next(slot for slot in self._slots if slot.idle)
        slot.start(task, next(self._orders))
        return slot.number

    def poll(self) -> Sequence[tuple[Task, Exit]]:
        """The trials that ended since the last call; raises `RunnerLost` without a head."""
        if self._cluster.refresh():
            self._adjust()
            if self._cluster.refused and not self._cluster.nodes and not self._slots:
                raise RunnerLost("\n".join(self._cluster.refused.values()))
        waiting = {slot.ref: slot for slot in self._slots if slot.ref is not None}
        ended = []
        for ref in _ready(waiting):
            slot = waiting[ref]
            if slot.task is None:
                self._greet(slot)
            elif (exit_ := self._news(slot)) is not None:
                ended.append((slot.task, exit_))
                slot.task = None
        for slot in [slot for slot in self._slots if slot.task is not None and slot.silent]:
            assert slot.task is not None
            ended.append((slot.task, Exit(lost=f"node {slot.node.name} is silent")))
            self._drop(slot)
        return ended

    def end(self, task: Task) -> None:
        """Ask the trial to save and end."""
        if slot := self._slot_of(task):
            slot.call("end")

    def kill(self, task: Task) -> None:
        """End the trial now."""
        if (slot := self._slot_of(task)) and not slot.killed:
            slot.killed, slot.heard = True, time.monotonic()
            slot.call("kill")

    def close(self) -> None:
        """End every slot."""
        closing = [slot.actor.close.remote() for slot in self._slots if slot.usable]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=5)
        for slot in list(self._slots):
            self._drop(slot)

    def _adjust(self) -> None:
        """Make slots where there is room for some; forget those whose node left."""
        nodes = self._cluster.nodes
        for slot in [slot for slot in self._slots if slot.idle and slot.node.id not in nodes]:
            self._slots.remove(slot)
        for node in nodes.values():
            count = slots_on(node, *self._shape)
            have = sum(slot.node.id == node.id for slot in self._slots)
            for _ in range(min(count - have, self._most - len(self._slots))):
                self._slots.append(self._new_slot(node, count))
        remarks = list(self._cluster.refused.values())
        if not nodes:
            remarks.append("no node of the Ray cluster can run trials: waiting for one to join")
        for text in remarks:
            if text not in self._said:
                self._said.add(text)
                self._say(text)

    def _new_slot(self, node: Node, count: int) -> Actor:
        """A slot on `node`, one of `count`; it is used once it has answered."""
        numbers = {slot.number for slot in self._slots}
        cpus, gpus = share(node, count, *self._shape)
        here = NodeAffinitySchedulingStrategy(node.id, soft=False)
        # `end` and `kill` overtake a look that waits
        actor = ray.remote(concurrency_groups={"control": 1})(RemoteSlot)
        actor = actor.options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=here)
        handle = actor.remote(self._command, self._processes, count)
        number = next(i for i in itertools.count() if i not in numbers)
        return Actor(number, node, handle, handle.ready.remote())

    def _greet(self, slot: Actor) -> None:
        """A new slot answered, or cannot."""
        try:
            ray.get(slot.ref)
        except RayError as error:
            self._drop(slot)
            fruitless = self._fruitless[slot.node.id] = self._fruitless.get(slot.node.id, 0) + 1
            if fruitless >= FRUITLESS and slot.node.id in self._cluster.nodes:
                self._cluster.refuse(
                    slot.node.id,
                    f"node {slot.node.name} of the Ray cluster gets no trials: {_cause(error)}",
                )
            return
        self._fruitless[slot.node.id] = 0
        slot.ref = None

    def _news(self, slot: Actor) -> Exit | None:
        """How the trial of `slot` ended, if it did; what came home is in its folder."""
        assert slot.task is not None
        try:
            seen: News = ray.get(slot.ref)
            bring_home(slot.task.run_dir, seen)
        except OutOfMemoryError:
            exit_ = Exit(said=f"node {slot.node.name} ran out of memory")
        except RayTaskError as error:
            exit_ = Exit(said=f"node {slot.node.name}: {_cause(error)}")
        except RayError:
            exit_ = Exit(lost=f"node {slot.node.name} or its process was lost")
        except OSError as error:
            exit_ = Exit(said=str(error))
        else:
            slot.heard = time.monotonic()
            slot.ref = slot.actor.look.remote() if seen.exit is None else None
            return seen.exit
        self._drop(slot)
        return exit_

    def _drop(self, slot: Actor) -> None:
        self._slots.remove(slot)
        if self._cluster.answers():
            ray.kill(slot.actor)

    def _slot_of(self, task: Task) -> Actor | None:
        """None where the trial has ended by itself."""
        return next((slot for slot in self._slots if slot.task is task), None)


def slots_on(node: Node, has_gpus: bool, gpus_per_trial: int, slots_per_gpu: int) -> int:
    """How many trials run on `node` at once; `has_gpus` says whether the cluster has any."""
    if not has_gpus:
        return max(1, node.cpus // gpus_per_trial)
    return node.gpus // gpus_per_trial if gpus_per_trial > 1 else node.gpus * slots_per_gpu


def share(
    node: Node, count: int, has_gpus: bool, gpus_per_trial: int, slots_per_gpu: int
) -> tuple[int, float]:
    """CPUs and GPUs of each of `count` slots on `node`."""
    cpus = node.cpus // count
    if not has_gpus:
        return cpus, 0
    if gpus_per_trial > 1:
        return cpus, gpus_per_trial
    return cpus, (10_000 // slots_per_gpu) / 10_000  # so fine Ray counts: a third thrice must fit


def _check_answers(address: str) -> None:
    """Raise `StudyError` where no cluster answers at `address`.

    Another process asks, since Ray would try for minutes and then end this one.
    """
    if address.startswith("ray://"):
        raise StudyError(
            f"--ray {address}: expected host:port of the head, as `ray start` shows it; the "
            "command runs on a machine of the cluster, not through a Ray client"
        )
    try:
        done = subprocess.run([sys.executable, "-c", CONNECTS, address], capture_output=True,
                              timeout=ANSWER_SECONDS, check=False)  # fmt: skip
    except subprocess.TimeoutExpired as late:
        said, stderr = f"no answer in {ANSWER_SECONDS:.0f} seconds", late.stderr or b""
    else:
        if done.returncode == 0:
            return
        stderr = done.stderr
        said = (stderr.decode(errors="replace").strip().splitlines() or ["no connection"])[-1]
    if b"InvalidAuthToken" in stderr:  # Ray shows its token to an address only when told to
        raise StudyError(
            f"--ray {address}: the cluster asks for its token: set RAY_AUTH_MODE=token, and see "
            "https://docs.ray.io/en/latest/ray-security/token-auth.html"
        )
    raise StudyError(
        f"--ray {address}: {said}. Start a cluster with `ray start --head` here, or `ray start "
        "--address HOST:PORT` to make this machine part of one; `--ray local` needs none"
    )


def _ready(refs: Any) -> list[Any]:
    """Those of `refs` that have an answer."""
    if not refs:
        return []
    ready: list[Any] = ray.wait(list(refs), num_returns=len(refs), timeout=0)[0]
    return ready


def _cause(error: RayError) -> str:
    """What went wrong on a node, in one line."""
    cause = getattr(error, "cause", None)
    lines = str(cause or error).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[-1].strip()}" if cause else lines[-1].strip()
