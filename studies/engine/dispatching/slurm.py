"""Dispatchers as jobs of a SLURM cluster: `run_study.py STUDY --slurm 4`.

Every job is the same command as on one host, with a runs folder of its own. BASIS_ZOO_STORAGE,
which sbatch hands on with the environment, makes them share the study. Needs submitit (extra
`cluster`).
A job that comes to the end of its time, or has to give way to another, ends its trials in an
orderly way and queues itself again.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.engine.dispatching.child import LEASH
from studies.engine.errors import StudyError
from studies.engine.slots import STORAGE_VARIABLE

TIMEOUT_MINUTES = 24 * 60
ENDING_SECONDS = 120
"""Before its time is up a job is told so; trials may need `child.GRACE_SECONDS` to end."""
MAIN = "import sys; from studies.engine.cli import main; sys.exit(main(sys.argv[1:]))"


class Dispatcher:
    """The function of one job: runs `command`, its exit code is the answer."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)

    def __call__(self) -> int:
        """Run until the study is done."""
        if not os.environ.get(STORAGE_VARIABLE):  # or every job would run the whole study
            raise StudyError(
                f"{STORAGE_VARIABLE} did not reach the job: is sbatch called with --export=NONE?"
            )
        leash = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid())]
        # in a session of its own, for SLURM's warning signal would end it at once
        self._process = subprocess.Popen([*leash, *self._command], start_new_session=True)
        before = signal.signal(signal.SIGTERM, lambda number, frame: self._process.terminate())
        try:
            return self._process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)

    def checkpoint(self) -> Any:
        """Called by submitit when the job has to go: what is to be queued instead."""
        import submitit

        self._process.terminate()
        end = time.monotonic() + ENDING_SECONDS / 2
        while not self._has_ended() and time.monotonic() < end:
            time.sleep(0.1)
        self._process.kill()
        return submitit.helpers.DelayedSubmission(Dispatcher(self._command))

    def _has_ended(self) -> bool:
        # not Popen.wait: `checkpoint` is called in the midst of one, which holds its lock
        try:
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self._process.pid, flags) is not None
        except ChildProcessError:
            return True


@dataclass(frozen=True)
class Submitted:
    """What was queued."""

    jobs: tuple[Any, ...]
    """submitit's jobs."""
    logs: Path

    def __str__(self) -> str:
        names = " ".join(job.job_id for job in self.jobs)
        return f"{len(self.jobs)} jobs queued: {names}. Their logs: {self.logs}"


def submit(
    commands: Sequence[Sequence[str]],
    folder: Path,
    name: str,
    parameters: Mapping[str, Any],
    cluster: str = "slurm",
) -> Submitted:
    """Queue one job for each of `commands`; `parameters` are submitit's, e.g. slurm_partition.

    Raises:
        StudyError: submitit or SLURM is not there, no storage is named, or a parameter is unknown.
    """
    if not os.environ.get(STORAGE_VARIABLE):
        raise StudyError(f"--slurm: jobs share a study through a database: set {STORAGE_VARIABLE}")
    if cluster == "slurm" and shutil.which("srun") is None:
        raise StudyError("--slurm: there is no SLURM on this machine (no srun)")
    try:
        import submitit
    except ImportError:
        raise StudyError("--slurm: submitit is missing: pip install 'basis-zoo[cluster]'") from None
    logs = folder.resolve() / "jobs"
    executor = submitit.AutoExecutor(logs, cluster)
    settings = {"timeout_min": TIMEOUT_MINUTES, "slurm_signal_delay_s": ENDING_SECONDS}
    try:
        executor.update_parameters(**{**settings, **parameters, "name": f"basis-zoo-{name}"})
    except (NameError, AssertionError, TypeError, ValueError) as error:
        raise StudyError(f"--job: {error}") from None
    with executor.batch():
        jobs = [executor.submit(Dispatcher(command)) for command in commands]
    return Submitted(tuple(jobs), logs)


def command(arguments: Sequence[str], runs_dir: Path) -> list[str]:
    """The command of a job that runs a study with `arguments` in `runs_dir`."""
    return [sys.executable, "-c", MAIN, *arguments, "--runs", str(runs_dir.resolve())]
