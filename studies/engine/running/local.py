"""Trials on this machine: one warm worker process a slot."""

import functools
from collections.abc import Sequence
from pathlib import Path

from studies.engine.running import forking, slots, worker_process
from studies.engine.running.protocols import Exit, Task
from studies.engine.running.worker_process import Command, Start, Worker, worker_command


class LocalRunner:
    """Runs `count` trials at once."""

    def __init__(
        self, count: int, logs: Path, gpus_per_trial: int = 1, command: Command | None = None
    ) -> None:
        """`logs` is the folder for what workers say between trials.

        Workers are forked from one process that has imported what trials need, but for those of
        `command`, of trials on several GPUs, and where there is no fork to rely on.
        """
        self._template: forking.Template | None = None
        start: Start
        if command is None and gpus_per_trial == 1 and forking.POSSIBLE:
            self._template = forking.template(slots.environment(0, count), logs / "template.log")
            start = self._template.start
        else:
            argv = (command or worker_command)(gpus_per_trial)
            start = functools.partial(worker_process.run, argv)
        self._workers = [
            Worker(
                start, slots.environment(slot, count, gpus_per_trial), logs / f"worker-{slot}.log"
            )
            for slot in range(count)
        ]
        self._tasks: dict[int, Task] = {}
        """By slot."""

    def free(self) -> int:
        """How many trials may be started now."""
        return len(self._workers) - len(self._tasks)

    def start(self, task: Task) -> int:
        """Hand `task` to an idle worker, one that serves such trials already before others."""
        idle = set(range(len(self._workers))) - self._tasks.keys()
        slot = min(idle, key=lambda slot: (self._workers[slot].wait_for(task.trial), slot))
        self._workers[slot].give(task.trial, task.run_dir)
        self._tasks[slot] = task
        return slot

    def poll(self) -> Sequence[tuple[Task, Exit]]:
        """The trials that ended since the last call."""
        ended = []
        for slot in list(self._tasks):
            if (exit_ := self._workers[slot].poll()) is not None:
                ended.append((self._tasks.pop(slot), exit_))
        return ended

    def end(self, task: Task) -> None:
        """Ask the trial to save and end."""
        if worker := self._worker_of(task):
            worker.end()

    def kill(self, task: Task) -> None:
        """End the trial now."""
        if worker := self._worker_of(task):
            worker.kill()

    def close(self) -> None:
        """End every worker; what they held, such as memory of a GPU, is free then."""
        if self._template is not None:
            for worker in self._workers:
                if worker.started:  # while there is the template, which tells that it has ended
                    worker.close()
            if any(worker.exists for worker in self._workers):
                self._template.close()  # so that none begins that was asked for
            else:
                self._template.rest()
        for worker in self._workers:
            worker.close()

    def _worker_of(self, task: Task) -> Worker | None:
        """None where the trial has ended by itself."""
        workers = (self._workers[slot] for slot, each in self._tasks.items() if each is task)
        return next(workers, None)
