"""What a task is: where rows come from, what is measured on them, and in which direction."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from studies.backbones.head import Head, HeadKind
from studies.tasks.rows import AnyRow

if TYPE_CHECKING:
    from studies.tasks.kinds.prepared import Prepared

Direction = Literal["maximize", "minimize"]


Kind = Literal[
    "text_classification",
    "text_regression",
    "multiple_choice",
    "instruction",
    "image_classification",
]
HEADS: Mapping[Kind, HeadKind] = {
    "text_classification": "text_classes",
    "text_regression": "text_score",
    "multiple_choice": "language_model",
    "instruction": "language_model",
    "image_classification": "image_classes",
}
"""What a model must give for each kind of task."""


@dataclass(frozen=True)
class TaskSpec:
    """A checked `task:` entry."""

    name: str
    train_rows: int | None = None
    """None takes the task's default."""
    valid_rows: int | None = None
    test_rows: int | None = None
    max_length: int = 128
    """Tokens a text is cut to."""
    text: str | tuple[str, ...] = "text"
    """Column of the text, or the two columns of a pair, for files and hub data sets."""
    label: str = "label"
    """Column of the label, for files and hub data sets."""
    template: str | None = None
    """The prompt with `{column}` for each column's value: makes a file or hub data set a
    multiple-choice task (with `choices`) or an instruction task (without)."""
    choices: str | tuple[str, ...] | None = None
    """Columns of the choices, or the one column with a list of them; `label` then holds the right
    one's place, letter or text."""
    data: str | None = None
    """Local file or folder with the task's own data, instead of the hub."""
    train_on_inputs: bool | None = None
    """Whether a language model is trained on the prompt's tokens too; None: the task's default."""
    scoring: Literal["sum", "normalised"] | None = None
    """Which log-likelihood decides `accuracy`; None: the task's own rule."""
    evaluate: Literal["loglikelihood", "generation", "both"] = "loglikelihood"
    """How multiple-choice answers are found."""
    max_new_tokens: int = 32
    """Length of generated answers."""
    beams: int = 1
    """Beams of generated answers."""
    image_size: int | None = None
    """Side of the square that images are cut to; None: the backbone's own."""
    augment: bool = False
    """Random crops and flips of training images."""
    prompts: tuple[str, ...] = ()
    """Templates with `{}` for a class's name, for CLIP; () is the task's own."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The one or two columns of text."""
        return (self.text,) if isinstance(self.text, str) else self.text


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

    @property
    def has_classes(self) -> bool:
        """Whether rows are labelled with one of a few classes."""
        return self.kind in ("text_classification", "image_classification")

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

    def head(self, spec: TaskSpec, data: TaskData) -> Head:
        """What the model must give."""
        return Head(HEADS[data.info.kind], data.labels)

    def prepare(self, spec: TaskSpec, data: TaskData, processor: Any) -> "Prepared":
        """`data` made ready for a model with this tokenizer or image processor."""
        from studies.tasks.kinds import prepare  # torch is imported no earlier than here

        return prepare(spec, data, processor)


def entry_of(spec: str | Mapping[str, Any]) -> dict[str, Any]:
    """A `task:` entry in its mapping form; a key that is None counts as not given."""
    given = {"name": spec} if isinstance(spec, str) else spec
    return {key: value for key, value in given.items() if value is not None}
