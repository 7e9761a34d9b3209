"""Matrices to approximate: drawn with a spectrum that is known, or read from checkpoints.

What a method can represent, without a model: see Albert et al., *Towards Higher Effective Rank in
Parameter-efficient Fine-tuning using Khatri-Rao Product* (arXiv 2508.00230), section 4, whose
targets are such; code: PaulAlbert31/KRAdapter, approximate_weight.py.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studies.backbones.head import Head
from studies.sections import unlike
from studies.tasks.rows import Matrix
from studies.tasks.spec import TaskSpec
from studies.tasks.task import Direction, Task, TaskData, TaskInfo

METRICS: dict[str, Direction] = {
    "error": "minimize",
    "explained": "maximize",
    "svd_bound": "minimize",
    "stable_rank": "maximize",
    "effective_rank": "maximize",
    "target_stable_rank": "maximize",
    "target_effective_rank": "maximize",
}
"""error: of the update, squared, as a share of the target's squared norm; explained: 1 less it;
svd_bound: the least error of LoRA's two factors with as many trained numbers; ranks: of the update
and of the target. A higher rank is neither better nor worse."""
OPTIONS = ("scale", "decay", "rank", "noise", "density", "files", "tensor")
"""Those of `TaskSpec` that mean something to a few of these tasks alone."""

Values = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int], TaskSpec], Values]


class MatrixTask(Task):
    """One target, the same in all splits: nothing is held out but by the seed that draws it."""

    def head(self, spec: TaskSpec, data: TaskData) -> Head:
        """A linear layer of the target's shape."""
        (row,) = data.rows("train", Matrix)
        return Head("matrix", shape=row.shape)


@dataclass(frozen=True)
class DrawnMatrix(MatrixTask):
    """A target that each seed draws anew; the root mean square of its entries is `scale`."""

    name: str
    source: str
    draw: Draw
    options: tuple[str, ...] = ()

    def info(self, spec: TaskSpec) -> TaskInfo:
        """Describe the task.

        Raises:
            ValueError: an option of another target is given, or a rank that the shape has not.
        """
        own = ("scale", *self.options)
        _refuse_others(spec, own)
        shape = spec.shape or DEFAULT
        if spec.rank is not None and spec.rank > min(shape):
            raise ValueError(
                f"task: `rank` {spec.rank} is more than `shape` {list(shape)} can have"
            )
        given = ((name, getattr(spec, name)) for name in own)
        options = ", ".join(f"{name} {value:g}" for name, value in given if value is not None)
        source = f"{self.source}; {shape[0]} x {shape[1]}, {options}"
        return _info(spec, "none needed: drawn by the trial's seed", source)

    def load(self, spec: TaskSpec, split_seed: int) -> TaskData:
        """Draw the target; `split_seed` is the trial's seed."""
        shape = spec.shape or DEFAULT
        values = self.draw(np.random.default_rng(split_seed), shape, spec)
        size = spec.scale * math.sqrt(values.size) / np.linalg.norm(values)
        return _data(self.info(spec), values * size)


class MatrixOfFiles(MatrixTask):
    """A weight out of a checkpoint, or what the second of two checkpoints has more."""

    def info(self, spec: TaskSpec) -> TaskInfo:
        """Describe the task.

        Raises:
            ValueError: no file, or one without such a tensor; tensors that differ in shape.
        """
        _refuse_others(spec, ("files", "tensor"))
        if spec.files is not None:
            self._shape(spec)
        files = " and ".join(spec.files or ("`task.files`",))
        source = f"tensor {spec.tensor or '`task.tensor`'} of {files}"
        return _info(spec, "that of the files", source)

    def files(self, spec: TaskSpec) -> Mapping[str, Path]:
        """The one or two files."""
        return {str(place): Path(name).expanduser() for place, name in enumerate(spec.files or ())}

    def is_local(self, spec: TaskSpec) -> bool:
        """They are read before any trial."""
        return True

    def load(self, spec: TaskSpec, split_seed: int) -> TaskData:
        """Read the tensors; every seed has the same target.

        Raises:
            ValueError: as `info`, or the two files have the same weight.
        """
        from safetensors import safe_open

        out, n_in = self._shape(spec)
        read = []
        for file in self.files(spec).values():
            with safe_open(file, framework="pt") as tensors:  # numpy knows no bfloat16
                read.append(tensors.get_tensor(spec.tensor)[:out, :n_in].double().numpy())
        values = read[-1] - read[0] if len(read) == 2 else read[0]
        if not np.isfinite(values).all() or not values.any():
            what = "is 0 everywhere" if not values.any() else "holds numbers that are not finite"
            raise ValueError(
                f"task: tensor {spec.tensor!r} of {', '.join(spec.files or ())} {what}"
            )
        return _data(self.info(spec), values)

    def _shape(self, spec: TaskSpec) -> tuple[int, int]:
        """(out, in) of the target."""
        from safetensors import SafetensorError, safe_open

        if not spec.files or spec.tensor is None:
            raise ValueError("task: matrix_of_files needs `files`, one or two .safetensors, and "
                             "`tensor`, the name of a weight in them")  # fmt: skip
        shapes: set[tuple[int, ...]] = set()
        for file in self.files(spec).values():
            try:
                with safe_open(file, framework="numpy") as tensors:
                    if spec.tensor not in tensors.keys():
                        raise ValueError(
                            unlike(
                                f"task: {file} has no `tensor`", spec.tensor, tensors.keys(), "Has"
                            )
                        )
                    shapes.add(tuple(tensors.get_slice(spec.tensor).get_shape()))
            except (OSError, SafetensorError) as error:
                raise ValueError(
                    f"task: `files`: {file} is no .safetensors file: {error}"
                ) from error
        shape = max(shapes)
        wanted = spec.shape or shape
        if len(shapes) > 1 or len(shape) != 2 or wanted[0] > shape[0] or wanted[1] > shape[1]:
            least = f", at least {list(wanted)}" if spec.shape else ""
            sizes = " and ".join(str(list(each)) for each in sorted(shapes))
            raise ValueError(
                f"task: tensor {spec.tensor!r} must have the same two sides{least}, has {sizes}"
            )
        return wanted[0], wanted[1]


DEFAULT = (64, 64)
"""(out, in) where `task.shape` says none."""


def _refuse_others(spec: TaskSpec, own: tuple[str, ...]) -> None:
    """Raise ValueError for an option that means nothing to this target."""
    for option in OPTIONS:
        if option in spec.model_fields_set and option not in own:
            options = ", ".join(f"`{name}`" for name in own)
            raise ValueError(f"task: `{option}` means nothing to {spec.name}: it has {options}")


def _info(spec: TaskSpec, licence: str, source: str) -> TaskInfo:
    return TaskInfo(spec.name, "matrix", METRICS, licence, source, rows=1, drawn=True)


def _data(info: TaskInfo, values: Values) -> TaskData:
    row = Matrix(values.astype(np.float32).tobytes(), (values.shape[0], values.shape[1]))
    return TaskData(info, (), dict.fromkeys(("train", "valid", "test"), (row,)))


def _with_values(rng: np.random.Generator, shape: tuple[int, int], values: Values) -> Values:
    """A matrix with these singular values, and singular vectors that are uniformly distributed."""
    u, v = (np.linalg.qr(rng.standard_normal((side, len(values))))[0] for side in shape)
    product: Values = (u * values) @ v.T
    return product


def _random(rng: np.random.Generator, shape: tuple[int, int], spec: TaskSpec) -> Values:
    return rng.standard_normal(shape)


def _flat(rng: np.random.Generator, shape: tuple[int, int], spec: TaskSpec) -> Values:
    return _with_values(rng, shape, np.ones(min(shape)))


def _decaying(rng: np.random.Generator, shape: tuple[int, int], spec: TaskSpec) -> Values:
    return _with_values(rng, shape, np.arange(1.0, min(shape) + 1) ** -spec.decay)


def _low_rank(rng: np.random.Generator, shape: tuple[int, int], spec: TaskSpec) -> Values:
    rank = spec.rank or math.ceil(min(shape) / 4)
    signal = _with_values(rng, shape, np.ones(rank))
    noise = rng.standard_normal(shape)
    signal, noise = (part / np.linalg.norm(part) for part in (signal, noise))
    return math.sqrt(1 - spec.noise) * signal + math.sqrt(spec.noise) * noise


def _sparse(rng: np.random.Generator, shape: tuple[int, int], spec: TaskSpec) -> Values:
    count = max(1, round(spec.density * math.prod(shape)))
    values = np.zeros(math.prod(shape))
    values[rng.permutation(values.size)[:count]] = rng.standard_normal(count)
    return values.reshape(shape)


def _waves(low: float, high: float) -> Draw:
    """Rows that are sums of three waves, of frequencies from `low` to `high` a column."""

    def draw(rng: np.random.Generator, shape: tuple[int, int], spec: TaskSpec) -> Values:
        frequency = rng.uniform(low, high, (shape[0], 3, 1))
        phase = rng.uniform(0, 2 * np.pi, (shape[0], 3, 1))
        values: Values = np.cos(2 * np.pi * frequency * np.arange(shape[1]) + phase).sum(axis=1)
        return values

    return draw


DRAWN: Mapping[str, DrawnMatrix] = {
    task.name: task
    for task in (
        DrawnMatrix("matrix_random", "entries are independent and normal", _random),
        DrawnMatrix("matrix_flat", "all singular values are equal", _flat),
        DrawnMatrix(
            "matrix_decaying", "singular value i is i to the power of -decay", _decaying, ("decay",)
        ),
        DrawnMatrix(
            "matrix_low_rank",
            "`rank` equal singular values, and noise that is `noise` of the squared norm",
            _low_rank,
            ("rank", "noise"),
        ),
        DrawnMatrix(
            "matrix_sparse",
            "`density` of the entries are normal, the others 0",
            _sparse,
            ("density",),
        ),
        DrawnMatrix(
            "matrix_high_frequency",
            "rows of three waves with 1/4 to 1/2 periods a column",
            _waves(1 / 4, 1 / 2),
        ),
        DrawnMatrix(
            "matrix_low_frequency",
            "rows of three waves with 0 to 1/16 periods a column",
            _waves(0, 1 / 16),
        ),
    )
}
