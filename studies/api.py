"""What the command does, for those who work in Python: run a study, and look at what it found.

    import studies

    found = studies.run("grid_size", set={"train.epochs": 1})
    found.arms

Whatever the command refuses is refused here, as `StudyError`; docs/python_api.md shows the rest.
"""

import argparse
import functools
import io
import json
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.engine.command import cli, exits
from studies.engine.command.session import Options, Session
from studies.engine.definition import answers, overrides
from studies.engine.definition.schema import load_study
from studies.engine.definition.shipped import find_study
from studies.engine.definition.study_builder import Study, plain_data
from studies.engine.errors import StudyError
from studies.engine.planning import runs as folders
from studies.engine.running import slots as places
from studies.engine.running.events import Interrupted
from studies.sections import unlike

if TYPE_CHECKING:  # these take seconds
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

    from studies.engine.definition.study import Study as Validated
    from studies.engine.reporting.report import Draft


def run(
    study: str | Path | Study,
    *,
    runs: str | Path = "runs",
    profile: str = "embedded",
    seeds: Sequence[int] | Mapping[str, Any] | None = None,
    set: Mapping[str, Any] | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
    only: str | Sequence[str] = (),
    retry_failed: bool = False,
    slots: int | str | None = None,
) -> "Findings":
    """Train what is missing, report as the command does, and return what `load` returns.

    Trials that failed are rows of `trials` then, and said; they raise nothing.

    Args:
        study: The name of a study that ships, a study file, a `Study`, or a folder, see `load`.
        runs: The folder of all runs.
        profile: embedded, gpu or paper.
        seeds: The study's `seeds` instead of its own.
        set: Dotted settings of the whole study and their values, as `--set`.
        plugins: Python files that register families, forms, methods, tasks or other parts, beside
            those that the study names.
        only: A condition such as `arm=lora`, or several: only these trials are run.
        retry_failed: Whether failed trials are run again.
        slots: How many trials run at once, or auto; None: one a GPU, without a GPU one a core.

    Raises:
        StudyError: something has to be corrected; nothing was trained.
        KeyboardInterrupt: the trials that ran were ended in order; the same call continues.
        OSError: a folder cannot be written.
    """
    if threading.current_thread() is not threading.main_thread():
        raise StudyError(
            "studies.run ends its trials in order on Ctrl-C, which only Python's main thread "
            "hears: call it there, or start the command in a process of its own"
        )
    read, runs_dir = _read(study, runs, profile, seeds, set, plugins)
    count = None if slots is None else _slot_count(slots)
    out, say = cli.consoles()
    for line in overrides.notices(read, "set"):
        say(line, "yellow")
    conditions = (only,) if isinstance(only, str) else tuple(only)
    session = Session(read, Options(runs_dir, conditions, retry_failed), out, say)
    runner = functools.partial(cli.local_runner, count, runs_dir, read, say)
    try:
        session.run(runner)
    except Interrupted:
        raise KeyboardInterrupt(exits.STOPPED) from None
    return Findings(read, runs_dir)


def load(
    study: str | Path | Study,
    *,
    runs: str | Path = "runs",
    profile: str = "embedded",
    seeds: Sequence[int] | Mapping[str, Any] | None = None,
    set: Mapping[str, Any] | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
) -> "Findings":
    """What `study` has found so far in `runs`; trains nothing, and writes no report.

    `study` may be the folder of a study in a runs folder, `runs/NAME/PROFILE`, which says the
    profile and what was `set`; its file is looked for there, in the current folder, beside the runs
    folder and among the studies that ship. For the other arguments see `run`.

    Raises:
        StudyError: something has to be corrected.
    """
    findings = Findings(*_read(study, runs, profile, seeds, set, plugins))
    findings.remark()
    return findings


class Findings:
    """What a study has found: tables, report, figures and trained models."""

    def __init__(self, study: "Validated", runs_dir: Path) -> None:
        """Reads the results that are there now; `load` again to see later ones."""
        out, self._say = cli.consoles()
        self._runs_dir, self.study = runs_dir, study
        self.folder = folders.study_dir(study, runs_dir)
        """Where trials and report lie."""
        self._session = session = Session(study, Options(runs_dir), out, self._say)
        self._seeds = session.seeds(whole=True)
        both = (*session.earlier(), *self._seeds.trials)
        every = {(trial.key, trial.arm): trial for trial in both}
        self._states = [(trial, folders.state_of(trial, runs_dir)) for trial in every.values()]
        self._results = {t.key: folders.result_of(t, runs_dir) for t in every.values()}
        self._reported = session.reported(self._seeds)

    def remark(self) -> None:
        """Say what an edit of the study left out, and what its first stage lacks."""
        before = self._session.before
        if before is not None and before.missing:
            self._say(before.missing, "yellow")
        self._session.notices.edits(self._seeds, keep=False)

    @functools.cached_property
    def trials(self) -> "pd.DataFrame":
        """One row a trial of every stage, see `studies.frames.trials`."""
        from studies import frames

        return frames.trials(self._states, self._results, self._runs_dir)

    @functools.cached_property
    def arms(self) -> "pd.DataFrame":
        """One row an arm, and one for each of several tasks, see `studies.frames.arms`."""
        from studies import frames

        return frames.arms(self._draft.outcome)

    @functools.cached_property
    def claims(self) -> "pd.DataFrame":
        """One row a claim, see `studies.frames.claims`."""
        from studies import frames

        return frames.claims(self._draft.outcome)

    @property
    def report(self) -> str:
        """The report's text, Markdown."""
        return self._draft.markdown

    @property
    def plots(self) -> list[str]:
        """Names of the figures that the report draws."""
        return list(self._draft.figures)

    def plot(self, name: str) -> "Figure":
        """A figure of the report; a notebook shows it.

        Raises:
            StudyError: the report has no such figure.
        """
        figures = self._draft.figures
        if name not in figures:
            raise StudyError(unlike(f"the report has no figure '{name}'", name, figures, "Figures"))
        figure = figures[name]
        # notebooks know by themselves how to show the figures of pyplot alone
        setattr(figure, "_repr_png_", functools.partial(_as_png, figure))  # noqa: B010
        return figure

    def model(self, arm: str, seed: int, *, task: str = "") -> "tuple[nn.Module, Any]":
        """The model that a trial of a study with `keep: adapter` has trained, and its tokenizer.

        See `studies.trained.load`.

        Raises:
            StudyError: the study has no such trial, it has not ended, or it kept no adapter.
        """
        from studies import trained

        cells = [t for t in self._seeds.trials if t.arm == arm and t.task == task]
        keys = {trial.seed: trial.key for trial in cells}
        if not cells:
            names = list(dict.fromkeys(trial.title for trial in self._seeds.trials))
            name = f"{arm} on {task}" if task else arm
            raise StudyError(unlike(f"no arm is called '{name}'", name, names, "Arms"))
        if seed not in keys:
            known = ", ".join(map(str, keys))
            raise StudyError(f"'{arm}' has no seed {seed}. Seeds: {known}")
        study = self.study
        return trained.load(
            trained.find(
                study.name, arm, seed, profile=study.profile, runs_dir=self._runs_dir,
                task=task or None, key=keys[seed],
            )
        )  # fmt: skip

    @functools.cached_property
    def _draft(self) -> "Draft":
        from studies.engine.reporting.report import draft

        if self._reported is None:
            raise StudyError(
                f"no trial of {self.study.name} has a result yet: nothing to report. "
                f"`studies.run` trains what is missing in {self.folder}"
            )
        return draft(self.study, self.folder / "trials", *self._reported)

    def __repr__(self) -> str:
        states = [state for _, state in self._states]
        counts = ", ".join(f"{states.count(each)} {each}" for each in dict.fromkeys(states))
        return f"<{self.study.name} ({self.study.profile}): {len(states)} trials: {counts}>"


def _as_png(figure: "Figure") -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _read(
    study: str | Path | Study,
    runs: str | Path,
    profile: str,
    seeds: Sequence[int] | Mapping[str, Any] | None,
    given: Mapping[str, Any] | None,
    plugins: str | Path | Sequence[str | Path],
) -> tuple["Validated", Path]:
    """The study that is meant, validated as the command does; raises `StudyError` otherwise."""
    settings = [_setting(key, value) for key, value in (given or {}).items()]
    runs_dir = Path(runs)
    if isinstance(study, Study):
        file = study.to_yaml(runs_dir / study.name / f"{study.name}.yaml")
    elif (folder := _study_folder(Path(study))) is not None:
        if settings or profile != "embedded":
            raise StudyError(f"{study}: the folder says profile and settings: leave them out")
        runs_dir = folder.parents[1]
        profile, settings = _labelled(folder)
        file = _file_of(folder)
    else:
        file = find_study(str(study))
    if seeds is not None:
        settings.append(_setting("seeds", seeds))
    files = [plugins] if isinstance(plugins, str | Path) else plugins
    with answers.cache():
        return load_study(file, profile, files, settings), runs_dir


def _setting(key: str, value: Any) -> str:
    """What `--set` takes."""
    return f"{key}={json.dumps(plain_data(value, key), ensure_ascii=False)}"


def _slot_count(slots: int | str) -> int:
    try:
        return places.count_given(str(slots))
    except argparse.ArgumentTypeError as error:
        raise StudyError(f"slots: {error}") from None


def _study_folder(path: Path) -> Path | None:
    """The folder of a study under one profile that `path` is, or has as the only one."""
    if (path / "trials").is_dir():
        return path.resolve()
    inside = sorted(each.parent.resolve() for each in path.glob("*/trials"))
    if len(inside) > 1:
        names = ", ".join(str(path / folder.name) for folder in inside)
        raise StudyError(f"{path}: holds several profiles or settings; name one folder: {names}")
    return inside[0] if inside else None


def _labelled(folder: Path) -> tuple[str, list[str]]:
    """Profile and settings that made the name of `folder`, see `overrides.labelled`."""
    profile, *settings = re.split(r"\+(?=[a-z_]+[^=+]*=)", folder.name)
    cut = re.search("-[0-9a-f]{8}$", folder.name)  # a digest in the place of what has no room
    if cut or overrides.labelled(profile, overrides.parsed(settings)) != folder.name:
        raise StudyError(
            f"{folder}: what was set cannot be read off its name: give the study by its name or "
            f"file, with `runs`, `profile` and `set` as it ran"
        )
    return profile, settings


def _file_of(folder: Path) -> Path:
    """The file of the study that ran in `folder`."""
    name, runs_dir = folder.parent.name, folder.parents[1]
    for place in (runs_dir / name, Path.cwd(), runs_dir.parent):
        if (place / f"{name}.yaml").is_file():
            return place / f"{name}.yaml"
    try:
        return find_study(name)
    except StudyError:
        raise StudyError(
            f"{folder}: its study file {name}.yaml is neither here nor beside the runs folder: "
            f"give the file, with runs='{runs_dir}'"
        ) from None
