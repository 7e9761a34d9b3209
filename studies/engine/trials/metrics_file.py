"""metrics.jsonl: one JSON object a line, readable while the trial runs."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path


class MetricsFile:
    """Appends lines `{"step": ..., "seconds": ..., "<metric>": ...}` to a fresh file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w", encoding="utf-8", buffering=1)  # a line at a time
        self._started = time.monotonic()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line; values that JSON cannot hold (NaN, infinity) are left out."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        seconds = round(time.monotonic() - self._started, 4)
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
