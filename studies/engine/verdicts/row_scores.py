"""Claims over seeds and test rows: the weighted sum of a claim for each seed and row."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studies.engine.definition.contrasts import Term, WeightedSum
from studies.engine.definition.study import Study
from studies.engine.records import Result
from studies.engine.trials.predictions import Predictions, read_predictions

Read = Callable[[Result], Predictions | None]
"""What the trial that found a result has kept by row; None where nothing is."""
Results = Mapping[str, Mapping[int, Result]]
Scores = tuple[NDArray[np.float64], ...]
"""(S, R) of one arm, or of its weighted sum with others: an array for each set of rows."""


class NoRows(ValueError):
    """A claim cannot be tested over rows; the message says why."""


def row_reader(study: Study, trials_dir: Path) -> Read | None:
    """Reads what the trials of `study` in `trials_dir`/<key> have kept by row, each once.

    None where they keep nothing. What it gives raises `StudyError` where a file is damaged or of
    another trial.
    """
    if "predictions" not in study.keep:
        return None
    known: dict[str, Predictions | None] = {}

    def read(result: Result) -> Predictions | None:
        if result.key not in known:
            known[result.key] = read_predictions(trials_dir / result.key, result)
        return known[result.key]

    return read


def by_seed_and_row(
    total: WeightedSum,
    measured: Sequence[tuple[Results, str]],
    seeds: Sequence[int],
    read: Read | None,
) -> list[NDArray[np.float64]]:
    """`total` without its numbers, (S, R) for each set of rows, whose means add up to its mean.

    Args:
        total: of arms, all of which have finished `seeds`.
        measured: results and metric of the task, or of each of those whose mean is meant.
        seeds: S of them.
        read: None where the study keeps no predictions.

    Raises:
        NoRows: some score is not there, or the rows are others.
    """
    if read is None:
        raise NoRows("no scores by row are kept (keep: predictions)")
    if any(term.unit is not None for term in total.terms):
        raise NoRows("a share of another arm is no mean over rows")
    sets: list[NDArray[np.float64]] = []
    for results, metric in measured:
        rows: set[object] = set()
        summed: list[NDArray[np.float64]] = []
        for term in total.terms:
            if isinstance(term.of, str):
                own = _of_arm(term, term.metric or metric, results[term.of], seeds, read, rows)
                share = term.weight / len(own) / len(measured)
                parts = [share * part for part in own]
                summed = [a + b for a, b in zip(summed, parts, strict=True)] if summed else parts
        sets += summed
    if min(d.shape[1] for d in sets) < 2:
        raise NoRows("there is one test row")
    return sets


def _of_arm(
    term: Term,
    metric: str,
    results: Mapping[int, Result],
    seeds: Sequence[int],
    read: Read,
    rows: set[object],
) -> Scores:
    """Scores of an arm by seed; `rows` gets what names its rows, which all must share."""
    scores: list[Scores] = []
    for seed in seeds:
        predictions = read(results[seed])
        if predictions is None:
            raise NoRows(f"`{term.of}` kept no predictions at seed {seed}")
        if metric not in predictions.scores:
            raise NoRows(f"{metric} is no mean over test rows")
        scores.append(predictions.scores[metric])
        rows.add((predictions.rows, tuple(map(len, scores[-1]))))
        if len(rows) > 1:
            raise NoRows(f"`{term.of}` was tested on other rows at seed {seed}")
    return tuple(np.stack(each) for each in zip(*scores, strict=True))
