"""What a task is: where rows come from, what is measured on them, and in which direction."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from studies.backbones.head import Head, HeadKind
from studies.tasks.rows import AnyRow, Exchange, Item, Matrix, Picture, Row
from studies.tasks.spec import TaskSpec

Direction = Literal["maximize", "minimize"]
R = TypeVar("R", Row, Item, Exchange, Picture, Matrix)


Kind = Literal[
    "text_classification",
    "text_regression",
    "multiple_choice",
    "instruction",
    "image_classification",
    "matrix",
]
HEADS: Mapping[Kind, HeadKind] = {
    "text_classification": "text_classes",
    "text_regression": "text_score",
    "multiple_choice": "language_model",
    "instruction": "language_model",
    "image_classification": "image_classes",
    "matrix": "matrix",
}
"""What a model must give for each kind of task."""


@dataclass(frozen=True)
class TaskInfo:
    """What can be said about a task before any of its rows is read."""

    name: str
    kind: Kind
    metrics: Mapping[str, Direction]
    """Metric name -> which way is better; the first one is the task's own."""
    licence: str
    source: str
    """Where the rows come from, precise enough to find them again."""
    rows: int | None = None
    """Rows there are, over all splits, where that is known without reading them."""
    scoring: Literal["sum", "normalised"] = "sum"
    """Which log-likelihood decides `accuracy` of a multiple-choice task."""
    train_on_inputs: bool = False
    """Whether a language model is trained on the prompt's tokens too."""
    answers_end: bool = False
    """Whether multiple-choice answers are trained with the end token, as generation needs."""
    drawn: bool = False
    """Whether each trial draws the rows by its own seed, instead of by the study's `split_seed`."""

    @property
    def has_classes(self) -> bool:
        """Whether rows are labelled with one of a few classes."""
        return self.kind in ("text_classification", "image_classification")

    @property
    def has_row_means(self) -> bool:
        """Whether some metric is a mean over the rows of a split."""
        return self.kind not in ("instruction", "matrix")

    @property
    def metric(self) -> str:
        """The task's own metric."""
        return next(iter(self.metrics))

    @property
    def direction(self) -> Direction:
        """Which way the task's own metric is better."""
        return self.metrics[self.metric]


@dataclass(frozen=True)
class TaskData:
    """The rows of a task, split."""

    info: TaskInfo
    labels: tuple[str, ...]
    """Class names, () where the task has none; a row's class is its label's place here."""
    splits: Mapping[str, tuple[AnyRow, ...]]
    """Rows of train, valid and test."""
    removed: Mapping[str, int] = field(default_factory=dict)
    """Rows left out of the pool, by reason."""
    notes: tuple[str, ...] = ()
    """What else a reader of the numbers should know of the rows."""

    def rows(self, split: str, kind: type[R]) -> tuple[R, ...]:
        """Those of `split`, which must all be of `kind`.

        Raises:
            TypeError: the rows are of another kind than the task's says.
        """
        rows = self.splits[split]
        own = tuple(row for row in rows if isinstance(row, kind))
        if len(own) != len(rows):
            other = next(type(row).__name__ for row in rows if not isinstance(row, kind))
            raise TypeError(
                f"task: {self.info.name} is of kind {self.info.kind!r}, whose rows are each a "
                f"{kind.__name__}; its {split} has a {other}"
            )
        return own


class Task(ABC):
    """A source of rows. Subclasses are values: no state, no cache of their own."""

    @abstractmethod
    def info(self, spec: TaskSpec) -> TaskInfo:
        """Describe the task without fetching anything.

        Raises:
            ValueError: `spec` cannot be this task, e.g. a column that the file does not have.
        """

    @abstractmethod
    def load(self, spec: TaskSpec, split_seed: int) -> TaskData:
        """Read, clean and split the rows; the same arguments give the same rows in the same order.

        Raises:
            ValueError: too few rows for the splits that were asked for.
            studies.archives.ArchiveError: a packaged source cannot be had.
        """

    def fetch(self, spec: TaskSpec) -> None:  # noqa: B027 - most sources need no fetching
        """Put what `load` needs into the cache; nothing to do unless overridden."""

    def is_local(self, spec: TaskSpec) -> bool:
        """Whether `load` reads files of the user's alone: they are checked before any trial."""
        return False

    def files(self, spec: TaskSpec) -> Mapping[str, Path]:
        """The user's own files that `load` reads, by a name: what they hold is part of a trial."""
        return {}

    def head(self, spec: TaskSpec, data: TaskData) -> Head:
        """What the model must give."""
        return Head(HEADS[data.info.kind], data.labels)
