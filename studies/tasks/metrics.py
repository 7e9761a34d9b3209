"""What tasks measure, from a model's outputs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from studies.tasks.task import Direction

Rows = tuple[NDArray[Any], ...]
"""What each row adds to a metric: the metric is the mean of these, and of several arrays, each of
the rows of one part, the unweighted mean of their means. Rows come as their split has them."""


class Measured(NamedTuple):
    """What a model scores on the rows of a split."""

    metrics: dict[str, float]
    by_row: Mapping[str, Rows]
    """Of the metrics that are means over rows."""


CLASSIFICATION: dict[str, Direction] = {
    "accuracy": "maximize",
    "macro_f1": "maximize",
    "loss": "minimize",
}
"""What is measured of classes as a rule, and which way each is better."""
CORRELATION: dict[str, Direction] = {
    "pearson": "maximize",
    "spearman": "maximize",
    "loss": "minimize",
}
"""What `correlation_metrics` gives."""
INSTRUCTION: dict[str, Direction] = {"loss": "minimize", "perplexity": "minimize"}
"""What instruction tuning is measured by."""


def named_classification_metrics(
    names: Collection[str], logits: NDArray[np.float64], labels: NDArray[np.int64]
) -> Measured:
    """Those of `names`; `logits` is (rows, classes), `labels` (rows,).

    macro_f1 is the unweighted mean of $2 tp / (2 tp + fp + fn)$ over the classes that occur in the
    labels or the predictions; f1 is that of class 1, 0 where nothing is or is called class 1. loss
    is the mean cross-entropy in nats. matthews is Gorodkin's correlation of predictions and labels
    for any number of classes, 0 where either is constant.
    """
    predicted = logits.argmax(axis=1)
    top = logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    by_row = {
        "accuracy": predicted == labels,
        "loss": log_sum - logits[np.arange(len(labels)), labels],
    }
    metrics = {name: float(np.mean(rows)) for name, rows in by_row.items()}
    classes = np.union1d(labels, predicted)
    metrics["macro_f1"] = float(np.mean([_f1(predicted == c, labels == c) for c in classes]))
    if "f1" in names:
        metrics["f1"] = _f1(predicted == 1, labels == 1)
    if "matthews" in names:
        one_hot = ((x[:, None] == classes).astype(np.float64) for x in (predicted, labels))
        metrics["matthews"] = _correlation(*one_hot)
    return Measured(
        {name: metrics[name] for name in names},
        {name: (rows,) for name, rows in by_row.items() if name in names},
    )


def _f1(called: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    size = int(called.sum() + true.sum())
    return float(2 * np.sum(called & true) / size) if size else 0.0


def correlation_metrics(outputs: NDArray[np.float64], labels: NDArray[np.float64]) -> Measured:
    """Pearson's and Spearman's correlation of (rows,) with (rows,), and the mean squared error.

    A correlation with a constant is reported as 0.
    """
    from scipy.stats import rankdata

    errors = (outputs - labels) ** 2
    metrics = {
        "pearson": _correlation(outputs, labels),
        "spearman": _correlation(rankdata(outputs), rankdata(labels)),
        "loss": float(np.mean(errors)),
    }
    return Measured(metrics, {"loss": (errors,)})


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Pearson's of two columns, Gorodkin's of several; 0 where either is constant."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    return float(np.sum(x * y)) / scale if scale else 0.0


def multiple_choice_names(evaluate: str, parts: Sequence[str] = ()) -> dict[str, Direction]:
    """The metrics of a multiple-choice task, its own `accuracy` first.

    `parts` are the test sets of a suite: accuracy is then the unweighted mean of theirs.
    """
    names = ["accuracy", *(f"accuracy_{part}" for part in parts)]
    directions: dict[str, Direction] = dict.fromkeys(names, "maximize")
    if evaluate != "generation":
        directions |= {"accuracy_sum": "maximize", "accuracy_normalised": "maximize"}
        directions["loss"] = "minimize"
    if evaluate != "loglikelihood":
        directions |= {"accuracy_generated": "maximize", "unparsed": "minimize"}
    return directions


def has_chance_level(metrics: Collection[str]) -> bool:
    """Whether accuracy has a level that always giving one answer reaches.

    The mean over the test sets of a suite has none: the most frequent answers of each differ.
    """
    ways = {"accuracy_sum", "accuracy_normalised", "accuracy_generated"}
    parts = {name for name in metrics if name.startswith("accuracy_")} - ways
    return "accuracy" in metrics and not parts
