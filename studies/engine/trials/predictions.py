"""What a trial scores on every test row, beside its result: `predictions.npz` in its folder.

    about              JSON: the trial's key, the hash of the test rows, how many rows each array of
                       a metric has: one array, or of a suite's accuracy one for each of its parts
    <metric>           float32: what each row adds to `test/<metric>`, e.g. 0 or 1 to an accuracy,
                       in the order of the test rows, the parts one after the other

Metrics that are no means over rows (F1, Matthews, perplexity) have no array.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.archives.unpack import DAMAGED
from studies.engine.errors import StudyError
from studies.engine.records import PREDICTIONS, Result
from studies.files import replacing
from studies.tasks.metrics import Rows

SPLIT = "test"
TOLERANCE = 1e-5
"""By how much, as a share, the mean of float32 scores may differ from the metric."""


@dataclass(frozen=True)
class Predictions:
    """Scores by row of one trial."""

    rows: str
    """Names the test rows in their order: trials that share it pair row by row."""
    scores: Mapping[str, tuple[NDArray[np.float64], ...]]
    """`test/<metric>` to its rows, and of several parts to the rows of each: the metric is the
    unweighted mean of their means."""


def write_predictions(folder: Path, key: str, rows: str, by_row: Mapping[str, Rows]) -> None:
    """Keep what the trial `key` scores `by_row` on the test rows that the hash `rows` names.

    Raises:
        OSError: it cannot be written.
    """
    lengths = {metric: [len(part) for part in parts] for metric, parts in by_row.items()}
    arrays: dict[str, Any] = {
        metric: np.concatenate(parts).astype(np.float32) for metric, parts in by_row.items()
    }
    arrays["about"] = np.array(json.dumps({"key": key, "rows": rows, "lengths": lengths}))
    with replacing(folder / PREDICTIONS) as scratch, scratch.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_predictions(folder: Path, result: Result) -> Predictions | None:
    """What the trial in `folder`, which found `result`, has kept by row; None where nothing is.

    Raises:
        StudyError: the file is not whole, of another trial, or not what `result` was measured on.
    """
    path = folder / PREDICTIONS
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            key, rows, lengths = (about[name] for name in ("key", "rows", "lengths"))
            arrays = {metric: file[metric].astype(np.float64) for metric in lengths}
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, *DAMAGED) as error:
        raise _refused(path, "it is not whole, or of another version") from error
    if key != result.key:
        raise _refused(path, f"it is of the trial {key}, and lies beside that of {result.key}")
    total = result.data.get("rows", {}).get(SPLIT)
    scores = {}
    for metric, values in arrays.items():
        counts, name = lengths[metric], f"{SPLIT}/{metric}"
        if values.ndim != 1 or sum(counts) != len(values) or min(counts, default=0) < 1:
            raise _refused(path, f"{metric} has {values.size} scores for {counts} rows")
        if total is not None and len(values) > total:
            raise _refused(path, f"{metric} has {len(values)} scores, and there are {total} rows")
        parts = tuple(np.split(values, np.cumsum(counts)[:-1]))
        mean, reported = float(np.mean([part.mean() for part in parts])), result.metrics.get(name)
        if reported is None or not abs(mean - reported) <= TOLERANCE * max(1.0, abs(reported)):
            raise _refused(path, f"its {metric} is {mean:.6g} on average, and {name} is {reported}")
        scores[name] = parts
    return Predictions(rows, scores)


def _refused(path: Path, why: str) -> StudyError:
    return StudyError(
        f"{path}: {why}: remove this file, and claims on its arm are tested over seeds alone; or "
        "remove its folder and run the same command, to train the trial again"
    )
