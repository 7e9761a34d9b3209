"""A process that trains many trials, one after the other: imports are paid for once.

    python -m studies.engine.worker FD          # started by `studies.engine.dispatching.pool` alone

Reads run folders, one a line, from stdin; trains the trial of each; writes its key to the file
descriptor FD once result.json is there, and `retires` where it is unfit for another. What is
printed meanwhile goes to the trial's log.txt. Models are loaded anew for each trial and every seed
is set anew, so a trial's numbers are those that it has in a process of its own.
"""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from studies.engine.records import Result, read_trial
from studies.engine.trials.preemption import PREEMPTED, Preempted, Preemption, preemptible
from studies.engine.trials.trial import run_trial

RETIRES = "retires"
"""Follows the key of a worker's last trial."""


def main() -> int:
    """Work until stdin ends (0) or SIGTERM comes (75); 1 after a trial that may have left the
    process unfit for another."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # a trial runs on one device
    _import_what_trials_need()
    try:
        with (
            os.fdopen(int(sys.argv[1]), "w", buffering=1) as answers,
            preemptible() as preemption,
        ):
            return _work(answers, preemption)
    except Preempted:
        return PREEMPTED


def _work(answers: TextIO, preemption: Preemption) -> int:
    answers.write("ready\n")
    for line in sys.stdin:
        run_dir = Path(line.rstrip("\n"))
        with _output_to(run_dir / "log.txt"):
            result = run_trial(read_trial(run_dir), run_dir, preemption)
        with preemption.whole():
            _clean_up()
            if _is_tainted(result):
                answers.write(f"{result.key} {RETIRES}\n")
                return 1
            answers.write(f"{result.key}\n")
        preemption.check()
    return 0


def _import_what_trials_need() -> None:
    import adapters
    from studies import backbones, tasks
    from studies.backbones import loading
    from studies.engine.trials import batches, environment, failures, training

    del adapters, backbones, tasks, loading, batches, environment, failures, training


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """stdout and stderr of this process, libraries in C included, go to `log`."""
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with log.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, before in zip((1, 2), kept, strict=True):
            os.dup2(before, descriptor)
            os.close(before)


def _clean_up() -> None:
    """Give back what the last trial held, so that the next one's peak memory is its own."""
    import torch

    from studies.engine.trials.environment import reset_peak_memory

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    reset_peak_memory()


def _is_tainted(result: Result) -> bool:
    """Whether the process may be unfit: a CUDA fault stays, an exception may hold memory."""
    return result.failure is not None and result.failure.kind != "not_finite"


if __name__ == "__main__":
    sys.exit(main())
