"""GLUE: eight tasks of understanding sentences and pairs of them.

Wang et al., *GLUE: a multi-task benchmark and analysis platform*, ICLR 2019. The labels of the test
sets are hidden, so test is the set's own validation split, as in the papers that are compared with,
whole and in its order; valid is cut from train. Training rows that are also test rows are left out.

Rows come from the hub (`nyu-mll/glue`), or from the folder `task.data` with files `train.*` and
`validation.*` (MNLI: `validation_matched.*`) of the same columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.tasks.hub import HIDDEN, load_tables
from studies.tasks.metrics import CLASSIFICATION, CORRELATION
from studies.tasks.places import split_of, tables_below
from studies.tasks.rows import Row, words_of
from studies.tasks.spec import TaskSpec
from studies.tasks.splits import check_disjoint, clean_beside, sampled, split_pool
from studies.tasks.table_files import read_records
from studies.tasks.task import Direction, Task, TaskData, TaskInfo

HUB = "nyu-mll/glue"
LICENCE = "other (each set has its own terms, see gluebenchmark.com)"


@dataclass(frozen=True)
class Glue(Task):
    """One of the eight."""

    subset: str
    columns: tuple[str, ...]
    """Column of the sentence, or the two columns of a pair."""
    labels: tuple[str, ...]
    """Class names by number; () for STS-B, whose labels are scores from 0 to 5."""
    rows: int
    """Labelled rows of train and the split tested on."""
    own: str | None = None
    """A metric that stands for the set before accuracy does."""
    f1: bool = False
    """Whether F1 of the second class is reported too."""
    test_split: str = "validation"

    def info(self, spec: TaskSpec) -> TaskInfo:
        """Describe the task."""
        return TaskInfo(
            name=spec.name,
            kind="text_classification" if self.labels else "text_regression",
            metrics=self._metrics(),
            licence=LICENCE,
            source=f"{spec.data or HUB}:{self.subset}, test is {self.test_split}",
            rows=self.rows,
        )

    def files(self, spec: TaskSpec) -> Mapping[str, Path]:
        """Those of the folder that the study names, if any."""
        return _files(spec.data) if spec.data else {}

    def load(self, spec: TaskSpec, split_seed: int) -> TaskData:
        """Load the two splits, clean train, and cut valid from it."""
        tables = _files(spec.data) if spec.data else load_tables(f"{HUB}:{self.subset}")
        missing = [name for name in ("train", self.test_split) if name not in tables]
        if missing:
            raise ValueError(
                f"task: {spec.name} needs a split {missing[0]!r}; found {list(tables)}"
            )
        tested = self._rows(spec, tables[self.test_split])
        pool, removed = clean_beside(tested, self._rows(spec, tables["train"]), words_of)
        valid = max(1, len(pool) // 10) if spec.valid_rows is None else spec.valid_rows
        asked = spec.model_copy(update={"test_rows": 0, "valid_rows": valid})
        test = sampled(tested, spec.test_rows, "glue")
        splits = {**split_pool(pool, asked, split_seed), "test": test}
        check_disjoint(splits)
        return TaskData(self.info(spec), self.labels, splits, removed)

    def _metrics(self) -> dict[str, Direction]:
        if not self.labels:
            return dict(CORRELATION)
        own: dict[str, Direction] = {self.own: "maximize"} if self.own else {}
        return {**own, **CLASSIFICATION, **({"f1": "maximize"} if self.f1 else {})}

    def _rows(self, spec: TaskSpec, table: Any) -> list[Row]:
        if isinstance(table, Path):
            table = _columns(list(read_records(table)))
        names = list(getattr(table, "column_names", table))
        for column in (*self.columns, "label"):
            if column not in names:
                raise ValueError(f"task: {spec.name} needs a column {column!r}; found {names}")
        columns = [table[column] for column in ("label", *self.columns)]
        return [
            Row(str(texts[0]), self._label(spec, label), *map(str, texts[1:]))
            for label, *texts in zip(*columns, strict=True)
            if label not in HIDDEN
        ]

    def _label(self, spec: TaskSpec, label: Any) -> str:
        if not self.labels:
            return repr(float(label))
        if isinstance(label, str) and label.isdecimal():
            label = int(label)
        if isinstance(label, int) and 0 <= label < len(self.labels):
            return self.labels[label]
        if label in self.labels:
            return str(label)
        raise ValueError(
            f"task: {spec.name} has a label {label!r}; it must be 0 to {len(self.labels) - 1} or "
            f"one of {', '.join(self.labels)}"
        )


def _files(folder: str) -> dict[str, Path]:
    """The table files of a folder by their names, which are those of splits."""
    path = Path(folder).expanduser()
    files = tables_below(path)
    by_split = {split_of(file): file for file in files}
    for file in files:
        if (other := by_split[split_of(file)]) != file:
            raise ValueError(
                f"task: {file} and {other} are two files of one split: keep one of them in `data`"
            )
    if not by_split:
        raise ValueError(
            f"task: `data` must be a folder with one file a split (train.jsonl ...), a .jsonl, "
            f".csv or .parquet; {path} holds {sorted(file.name for file in path.glob('*'))}"
        )
    return by_split


def _columns(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name) for record in records] for name in names}


_ENTAILS = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")
GLUE = {
    "glue_sst2": Glue("sst2", ("sentence",), ("negative", "positive"), 68_221),
    "glue_mrpc": Glue(
        "mrpc", ("sentence1", "sentence2"), ("not_equivalent", "equivalent"), 4_076, f1=True
    ),
    "glue_cola": Glue("cola", ("sentence",), ("unacceptable", "acceptable"), 9_594, "matthews"),
    "glue_qnli": Glue("qnli", ("question", "sentence"), _ENTAILS, 110_206),
    "glue_rte": Glue("rte", ("sentence1", "sentence2"), _ENTAILS, 2_767),
    "glue_stsb": Glue("stsb", ("sentence1", "sentence2"), (), 7_249),
    "glue_mnli": Glue(
        "mnli", ("premise", "hypothesis"), _NLI, 402_517, test_split="validation_matched"
    ),
    "glue_qqp": Glue(
        "qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), 404_276, f1=True
    ),
}
