"""What tasks measure, from a model's outputs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from studies.tasks.task import Direction

CLASSIFICATION: dict[str, Direction] = {
    "accuracy": "maximize",
    "macro_f1": "maximize",
    "loss": "minimize",
}
"""What `classification_metrics` gives, and which way each is better."""


def classification_metrics(
    logits: NDArray[np.float64], labels: NDArray[np.int64]
) -> dict[str, float]:
    """The metrics named in `CLASSIFICATION`; `logits` is (rows, classes), `labels` (rows,).

    macro_f1 is the unweighted mean of $2 tp / (2 tp + fp + fn)$ over the classes that occur in the
    labels or the predictions; loss is the mean cross-entropy in nats.
    """
    predicted = logits.argmax(axis=1)
    f1 = []
    for label in np.union1d(labels, predicted):
        hits = np.sum((predicted == label) & (labels == label))
        f1.append(2 * hits / (np.sum(predicted == label) + np.sum(labels == label)))
    top = logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "macro_f1": float(np.mean(f1)),
        "loss": float(np.mean(log_sum - logits[np.arange(len(labels)), labels])),
    }


CORRELATION: dict[str, Direction] = {
    "pearson": "maximize",
    "spearman": "maximize",
    "loss": "minimize",
}
"""What `correlation_metrics` gives."""
INSTRUCTION: dict[str, Direction] = {"loss": "minimize", "perplexity": "minimize"}
"""What instruction tuning is measured by."""


def named_classification_metrics(
    names: Sequence[str], logits: NDArray[np.float64], labels: NDArray[np.int64]
) -> dict[str, float]:
    """`classification_metrics` with, where `names` asks for them, `f1` and `matthews`.

    f1 is that of class 1: $2 tp / (2 tp + fp + fn)$, 0 where nothing is or is called class 1.
    matthews is Gorodkin's correlation of predictions and labels for any number of classes, 0 where
    either is constant.
    """
    found = classification_metrics(logits, labels)
    predicted = logits.argmax(axis=1)
    if "f1" in names:
        called, true = predicted == 1, labels == 1
        size = int(called.sum() + true.sum())
        found["f1"] = float(2 * np.sum(called & true) / size) if size else 0.0
    if "matthews" in names:
        classes = np.union1d(labels, predicted)
        a, b = (x[:, None] == classes for x in (predicted, labels))
        a, b = (x - x.mean(axis=0) for x in (a.astype(float), b.astype(float)))
        scale = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
        found["matthews"] = float(np.sum(a * b)) / scale if scale else 0.0
    return {name: found[name] for name in names}


def correlation_metrics(
    outputs: NDArray[np.float64], labels: NDArray[np.float64]
) -> dict[str, float]:
    """Pearson's and Spearman's correlation of (rows,) with (rows,), and the mean squared error.

    A correlation with a constant is reported as 0.
    """
    from scipy.stats import rankdata

    return {
        "pearson": _pearson(outputs, labels),
        "spearman": _pearson(rankdata(outputs), rankdata(labels)),
        "loss": float(np.mean((outputs - labels) ** 2)),
    }


def _pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    return float(np.sum(x * y)) / scale if scale else 0.0


def multiple_choice_names(evaluate: str, parts: Sequence[str] = ()) -> dict[str, Direction]:
    """The metrics of a multiple-choice task, its own `accuracy` first.

    `parts` are the test sets of a suite: accuracy is then the unweighted mean of theirs.
    """
    names = ["accuracy", *(f"accuracy_{part}" for part in parts)]
    found: dict[str, Direction] = dict.fromkeys(names, "maximize")
    if evaluate != "generation":
        found |= {"accuracy_sum": "maximize", "accuracy_normalised": "maximize"}
        found["loss"] = "minimize"
    if evaluate != "loglikelihood":
        found |= {"accuracy_generated": "maximize", "unparsed": "minimize"}
    return found
