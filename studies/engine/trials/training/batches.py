"""Batches for training: rows of like length together, in an order drawn anew each epoch."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from studies.tasks.encoding import Example, Examples

WINDOW = 8
"""Batches whose rows are sorted together: long enough to save padding, short enough to mix."""


LENGTHS = 5
"""Of batches where they are to have few: each is a CUDA graph of its own."""


class LengthGrouped(Sampler[list[int]]):
    """Batches of rows of like length, in an order drawn anew each epoch from `seed` alone."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self.epoch = 0
        """The epoch that is drawn next."""
        self.seen = 0
        """How many of its first batches are left out."""

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        draw = random.Random(f"{self._seed}:{self.epoch}")
        seen, self.seen = self.seen, 0
        self.epoch += 1
        order = list(range(len(self._lengths)))
        draw.shuffle(order)
        size, window = self._batch_size, self._batch_size * WINDOW
        sorted_windows = [
            index
            for start in range(0, len(order), window)
            for index in sorted(order[start : start + window], key=self._lengths.__getitem__)
        ]
        batches = [sorted_windows[i : i + size] for i in range(0, len(order), size)]
        draw.shuffle(batches)
        yield from batches[seen:]


class TimedLoader(DataLoader[Example]):
    """A loader that knows how long its batches took."""

    seconds = 0.0
    """Spent in making batches so far: while it runs, a GPU has nothing new to do."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]  # torch names its own class
        return self._timed(super().__iter__())  # which draws a random number, now

    def _timed(self, batches: Iterator[Any]) -> Iterator[dict[str, Tensor]]:
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.seconds += time.perf_counter() - began
            if batch is None:
                return
            yield batch


def few_lengths(lengths: Sequence[int]) -> tuple[int, ...]:
    """At most `LENGTHS` lengths that rows may be padded to, each fit for as many rows more.

    They are multiples of 8, but for the last, which is that of the longest row.
    """
    ordered = sorted(lengths)
    ends = (len(ordered) * (i + 1) // LENGTHS - 1 for i in range(LENGTHS))
    wanted = (ordered[max(0, end)] for end in ends)
    return tuple(sorted({min(-(-length // 8) * 8, ordered[-1]) for length in wanted}))


def train_loader(
    data: Examples,
    collate: Callable[..., dict[str, Tensor]],
    batch_size: int,
    seed: int,
    workers: int = 0,
    lengths: Sequence[int] = (),
) -> TimedLoader:
    """Batches for training, pinned where there is a GPU; iterating again is the next epoch.

    The order depends on `seed` alone; `workers` are processes that make the same batches ahead.
    Rows are padded to one of `lengths`; without these, to the longest row of their batch.
    """
    sampler = LengthGrouped(data.lengths, batch_size, seed)
    return TimedLoader(
        data,
        batch_sampler=sampler,
        collate_fn=partial(collate, lengths=lengths) if lengths else collate,
        pin_memory=torch.cuda.is_available(),
        num_workers=workers,
    )
