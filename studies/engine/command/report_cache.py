"""A report that was made and is in MLflow: where nothing has changed since, it is printed again.

To draw, to compute and to ask MLflow takes seconds, most of them imports. What was printed is kept
beside the report with a fingerprint of all that it was made from and of all that was made.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from studies.engine.definition import answers
from studies.engine.definition.study import Study
from studies.engine.planning import runs
from studies.engine.program import program
from studies.engine.records import Trial
from studies.engine.tracking import mlflow_client
from studies.files import write_text

PACKAGES = (*answers.PACKAGES, "matplotlib", "mlflow", "optuna", "scipy")
"""Whose versions a report depends on."""
SOURCES = ("adapters", "basis_zoo", "studies")


class ReportCache:
    """What was printed of `trials` in `runs_dir`, and whether it still holds.

    Made before the report: a result that comes while it is drawn is a change.
    """

    def __init__(self, study: Study, trials: Sequence[Trial], runs_dir: Path) -> None:
        self._study, self._runs_dir = study, runs_dir
        self._folder = runs.study_dir(study, runs_dir)
        self._file = self._folder / "delivered.json"
        self._source = self._source_digest(trials)

    def texts(self) -> list[str]:
        """What was printed; nothing where anything has changed since, or that cannot be told."""
        try:
            cached = json.loads(self._file.read_bytes())
            if cached["fingerprint"] is not None and cached["fingerprint"] == self._fingerprint():
                return [str(text) for text in cached["told"]]
        except (OSError, ValueError, TypeError, KeyError):  # none yet, or no file of ours
            pass
        return []

    def keep(self, texts: Sequence[str]) -> None:
        """Note that `texts` was printed, and all that it tells of was made."""
        if (fingerprint := self._fingerprint()) is not None:
            about = {"fingerprint": fingerprint, "told": list(texts)}
            write_text(self._file, json.dumps(about, indent=2))

    def _source_digest(self, trials: Sequence[Trial]) -> str | None:
        code = answers.code_hash(PACKAGES, SOURCES)
        if code is None or os.environ.get(mlflow_client.VARIABLE):  # nobody can tell what is there
            return None
        parts = [
            code, program(), str(self._runs_dir), str(self._runs_dir.resolve()),
            self._study.path.read_text(encoding="utf-8"), self._study.model_dump_json(),
            *(trial.model_dump_json() for trial in trials),
            *_stats(self._folder / "claims.json"), *_stats(self._folder / "trials"),
        ]  # fmt: skip
        return _digest(parts)

    def _fingerprint(self) -> str | None:
        page = mlflow_client.state(
            self._runs_dir / "mlflow.db", mlflow_client.experiment(self._study)
        )
        if self._source is None or page is None:
            return None
        return _digest([self._source, page, *_stats(self._folder / "report")])


def _stats(place: Path) -> Iterator[str]:
    """Name, size and times of the file `place`, or of each file below it."""
    files = [Path(at) / name for at, _, names in os.walk(place) for name in names]
    for file in sorted(files) or [place]:
        try:
            stat = file.stat()
        except OSError:
            yield f"{file}: none"
        else:
            yield f"{file}: {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
