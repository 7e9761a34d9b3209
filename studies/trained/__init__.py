"""What studies with `keep: adapter` have trained: found, copied and loaded.

    from studies import trained
    model, tokenizer = trained.load(trained.find("grid_size", "lora", seed=0))

The model is what the trial evaluated: `adapters.export`, `adapters.spectrum` and MT-Bench work on
it, and nothing is trained again.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.engine.errors import StudyError
from studies.engine.records import ABOUT, ADAPTER, Trial, read_result, read_trial
from studies.sections import unlike

if TYPE_CHECKING:
    from torch import nn


def find(
    study: str,
    arm: str,
    seed: int,
    *,
    profile: str = "embedded",
    runs_dir: str | Path = "runs",
    task: str | None = None,
    key: str | None = None,
) -> Path:
    """The folder of the finished trial of `arm` with `seed`.

    Args:
        study: Its name.
        arm: Of the stage of the seeds.
        seed: One of `seeds`.
        profile: Under which it ran.
        runs_dir: What `--runs` was.
        task: One of the study's `tasks`, where it has several.
        key: The trial's, where an edited study has several of the arm and seed.

    Raises:
        StudyError: there is no such trial, it kept no adapter, or `task` or `key` must say which.
    """
    folder = Path(runs_dir) / study / profile / "trials"
    done = dict(_done(folder))
    if not done:
        raise StudyError(f"{folder}: no finished trial: run the study with `keep: adapter` first")
    of_arm = {path: trial for path, trial in done.items() if trial.arm == arm}
    if not of_arm:
        arms = sorted({trial.arm for trial in done.values()})
        raise StudyError(unlike(f"no finished arm is called '{arm}'", arm, arms, "Finished"))
    tasks = sorted({trial.task for trial in of_arm.values()})
    if (task or "") not in tasks:
        known = ", ".join(filter(None, tasks)) or "none: the study has one task alone"
        which = (
            f"no finished trial on the task '{task}'" if task else "several tasks: say which one"
        )
        raise StudyError(f"'{arm}' has {which}. Tasks: {known}")
    of_arm = {path: trial for path, trial in of_arm.items() if trial.task == (task or "")}
    finished = [p for p, t in of_arm.items() if t.seed == seed and key in (None, t.key)]
    if not finished:
        seeds = ", ".join(str(n) for n in sorted({trial.seed for trial in of_arm.values()}))
        which = f"seed {seed}" if key is None else f"seed {seed} and key {key}"
        raise StudyError(f"'{arm}' has no finished trial with {which}. Finished seeds: {seeds}")
    saved = [path for path in finished if (path / ADAPTER / ABOUT).is_file()]
    if not saved:
        raise StudyError(
            f"'{arm}' with seed {seed} kept no adapter: put `keep: adapter` into the study, remove "
            f"{finished[0]} and run the study again"
        )
    if len(saved) > 1:
        keys = ", ".join(path.name for path in saved)
        raise StudyError(
            f"'{arm}' with seed {seed} was trained with several settings, as the study was "
            f"edited: say which by its key, the name of its folder: {keys}"
        )
    return saved[0]


def _done(folder: Path) -> Iterator[tuple[Path, Trial]]:
    """The finished trials of the stage of the seeds below `folder`."""
    for path in sorted(folder.glob("*/trial.json")):
        result = read_result(path.parent)
        if result is None or result.status != "done":
            continue
        try:
            trial = read_trial(path.parent)
        except (OSError, ValueError):  # of another version
            continue
        if trial.stage == "seeds":
            yield path.parent, trial


def copy(run_dir: Path, to: Path) -> Path:
    """Copy the adapter of the trial in `run_dir` to the new folder `to`, which `load` takes.

    Raises:
        StudyError: `to` is there already and not empty.
        OSError: it cannot be written.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise StudyError(f"{to} is there already: name a new folder")
    shutil.copytree(run_dir / ADAPTER, to, dirs_exist_ok=True)
    return to


def load(folder: str | Path, plugins: Sequence[str | Path] = ()) -> "tuple[nn.Module, Any]":
    """The trained model in `folder` and its tokenizer or image processor.

    `folder` is a trial's, or what `copy` made of it; see `studies.engine.trials.keeping.load`.

    Raises:
        StudyError: it holds no trained adapter, or a plug-in or the backbone is another one now.
    """
    from studies.engine.trials import keeping  # with torch, which finding needs not

    return keeping.load(Path(folder), plugins)


__all__ = ["copy", "find", "load"]
