"""metrics.jsonl: one JSON object a line, readable while the trial runs."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from studies.engine.errors import StudyError


class MetricsFile:
    """Appends lines `{"step": ..., "seconds": ..., "<metric>": ...}` to a fresh file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w", encoding="utf-8", buffering=1)  # a line at a time
        self._started = time.monotonic()

    def write(self, step: int, metrics: Mapping[str, float], at: float | None = None) -> None:
        """Append one line; values that JSON cannot hold (NaN, infinity) are left out.

        `at` is when they came about, by `time.monotonic`; None means now.
        """
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        seconds = round((time.monotonic() if at is None else at) - self._started, 4)
        self._file.write(json.dumps({"step": step, "seconds": seconds, **finite}) + "\n")

    @property
    def text(self) -> str:
        """All that was written so far."""
        return self._path.read_text(encoding="utf-8")

    def restore(self, text: str) -> None:
        """Go on from the `text` of an earlier attempt, its time included."""
        self._file.write(text)
        lines = text.splitlines()
        if lines:
            self._started = time.monotonic() - json.loads(lines[-1])["seconds"]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(file: Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl; a last line cut short by a killed process is left out.

    Raises `StudyError` where another line is no mapping with numbers for `step` and `seconds`.
    """
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict) and all(is_number(entry.get(k)) for k in ("step", "seconds")):
            entries.append(entry)
        elif number < len(lines):
            raise StudyError(
                f'{file}:{number}: expected {{"step": ..., "seconds": ...}}, got {line[:80]!r}: '
                "remove this file, the learning curve alone is lost"
            )
    return entries


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` has a place on an axis of numbers; a truth value has none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False
