"""What `keep` asks of the disk, and which finished trials kept nothing."""

import os
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

from studies.engine.definition.study import Study
from studies.engine.errors import StudyError
from studies.engine.labels import counted, span
from studies.engine.planning import runs
from studies.engine.records import ABOUT, ADAPTER, PREDICTIONS, Trial
from studies.engine.running.loop import MIN_FREE_BYTES
from studies.engine.tracking.mlflow_client import VARIABLE
from studies.engine.trials.size import expected_bytes

MOST_SHOWN = 5
"""Folders that a line names."""


def room(study: Study, trials: Sequence[Trial], runs_dir: Path) -> list[str]:
    """What those of `trials` that are not done will keep, in a line; none where they keep nothing.

    Raises `StudyError` where the disk has no room for it.
    """
    left = [trial for trial in trials if trial.keeps_adapter and not _done(trial, runs_dir)]
    if not left:
        return []
    known = {trial.key: used for trial in trials if (used := _size_on_disk(trial, runs_dir))}
    arms = {trial.cell: trial for trial in left}.values()
    sizes = [size for trial in arms if (size := _bytes(trial, trials, known))]
    many = counted(len(left), "trial")
    if not sizes:
        return [
            f"keep: what each of {many} keeps is known once the first has ended: "
            "the backbone's configuration is not on this machine yet"
        ]
    copies = 2 if "mlflow" in study.keep and not os.environ.get(VARIABLE) else 1
    total = round(statistics.fmean(sizes) * len(left) * copies)
    folder = runs_dir.resolve()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    each = span(_amount(min(sizes)), _amount(max(sizes)))
    needed = (
        f"{many} keep{'s' if len(left) == 1 else ''} about {each} each, "
        f"{_amount(total)} in all{', in the folders and in MLflow' if copies == 2 else ''}"
    )
    if free - MIN_FREE_BYTES < total:
        raise StudyError(
            f"{study.place('keep')}: keep: {needed}, and {runs_dir} has {_amount(free)} free, of "
            f"which {_amount(MIN_FREE_BYTES)} must stay so: make room, choose another disk by "
            "--runs, or remove `keep`"
        )
    return [f"keep: {needed}; {_amount(free)} are free in {runs_dir}"]


def lacking(trials: Sequence[Trial], runs_dir: Path) -> list[str]:
    """Which of `trials` are done and lack what they are to keep, and what to do about it."""
    done = [trial for trial in trials if trial.keep and _done(trial, runs_dir)]
    files = (
        ([t for t in done if t.keeps_adapter], Path(ADAPTER, ABOUT), "adapter", "it was", "it"),
        ([t for t in done if "predictions" in t.keep], Path(PREDICTIONS), "predictions",
         "they were", "them"),
    )  # fmt: skip
    lines = []
    for kept, file, what, were, them in files:
        bare = [trial for trial in kept if not (runs.trial_dir(trial, runs_dir) / file).is_file()]
        if bare:
            arms = ", ".join(dict.fromkeys(trial.arm for trial in bare))
            keys = " ".join(trial.key for trial in bare[:MOST_SHOWN])
            more = f" and {len(bare) - MOST_SHOWN} more" if len(bare) > MOST_SHOWN else ""
            lines.append(
                f"keep: {len(bare)} of {len(kept)} finished trials have no {what}: they were "
                f"trained without `keep`, or {were} removed ({arms}). Their results stay. To train "
                f"them again and keep {them}, remove their folders in "
                f"{runs.trial_dir(bare[0], runs_dir).parent} ({keys}{more}) and run the same "
                "command"
            )
    return lines


def _bytes(trial: Trial, trials: Sequence[Trial], known: dict[str, int]) -> int | None:
    """What a trial of the same arm has kept, else what is expected, else what any has kept."""
    own = [known[each.key] for each in trials if each.key in known and each.cell == trial.cell]
    if own:
        return max(own)
    return expected_bytes(trial) or max(known.values(), default=None)


def _size_on_disk(trial: Trial, runs_dir: Path) -> int:
    folder = runs.trial_dir(trial, runs_dir) / ADAPTER
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _done(trial: Trial, runs_dir: Path) -> bool:
    return runs.state_of(trial, runs_dir) == "done"


def _amount(size: float) -> str:
    """`size` bytes as a person says it: 340 KiB, 2.1 GiB."""
    units = ("KiB", "MiB", "GiB", "TiB")
    power = next((i for i in range(len(units)) if size < 1000 * 1024 ** (i + 1)), len(units) - 1)
    return f"{size / 1024 ** (power + 1):.3g} {units[power]}"
