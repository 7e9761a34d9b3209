"""Rows to batches: tokenised once, grouped by length, padded to the longest of the batch."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from studies.tasks import Row
from studies.tasks.token_cache import tokenise

if TYPE_CHECKING:
    from studies.tasks.kinds.prepared import Examples

Example = dict[str, Any]
WINDOW = 8
"""Batches whose rows are sorted together: long enough to save padding, short enough to mix."""


@dataclass(frozen=True)
class Encoded(Dataset[Example]):
    """Tokenised rows with their class indices."""

    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(example["input_ids"]) for example in self.examples]


def encode(
    rows: Sequence[Row],
    labels: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Encoded:
    """Tokenise `rows`, cut to `max_length` tokens; `labels` gives the class indices."""
    index = {label: place for place, label in enumerate(labels)}
    texts, pairs = [row.text for row in rows], None
    if rows and rows[0].pair is not None:
        pairs = [row.pair for row in rows]
    tokens = tokenise(tokenizer, texts, pairs, truncation=True, max_length=max_length)
    return Encoded(
        tuple(
            {**{key: tokens[key][i] for key in tokens}, "labels": index[row.label]}
            for i, row in enumerate(rows)
        )
    )


class LengthGrouped(Sampler[list[int]]):
    """Batches of rows of like length, in an order drawn anew each epoch from `seed` alone."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self.epoch = 0
        """The epoch that is drawn next."""

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        draw = random.Random(f"{self._seed}:{self.epoch}")
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
        yield from batches


@dataclass(frozen=True)
class Pad:
    """Collates rows: every field is padded to the longest row on the tokenizer's side."""

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """(batch, longest) for every field, (batch,) for the labels."""
        rest = [{k: v for k, v in example.items() if k != "labels"} for example in examples]
        batch = dict(self.tokenizer.pad(rest, return_tensors="pt"))
        batch["labels"] = torch.tensor([example["labels"] for example in examples])
        return batch


MOST_WORKERS = 8
"""More processes than this wait for each other."""


class TimedLoader(DataLoader[Example]):
    """A loader that knows how long its batches took."""

    seconds = 0.0
    """Spent in making batches so far: while it runs, a GPU has nothing new to do."""

    def __iter__(self) -> Iterator[Any]:
        batches = super().__iter__()
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.seconds += time.perf_counter() - began
            if batch is None:
                return
            yield batch


def train_loader(
    data: "Examples",
    collate: Callable[[Sequence[Example]], dict[str, Tensor]],
    batch_size: int,
    seed: int,
    workers: int = 0,
) -> TimedLoader:
    """Batches for training, pinned where there is a GPU; iterating again is the next epoch.

    `workers` processes make batches ahead; the batches are the same however many there are.
    """
    sampler = LengthGrouped(data.lengths, batch_size, seed)
    return TimedLoader(
        data,
        batch_sampler=sampler,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        num_workers=workers,
    )


def spare_workers() -> int:
    """Processes that may make batches while a GPU trains: none on a CPU, whose cores do train."""
    return min(MOST_WORKERS, torch.get_num_threads()) if torch.cuda.is_available() else 0


def eval_batches(data: Encoded, pad: Pad, batch_size: int) -> Iterator[dict[str, Tensor]]:
    """Batches for evaluation, shortest rows first; the metrics do not depend on the order."""
    order = sorted(range(len(data)), key=data.lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        yield pad([data[index] for index in order[start : start + batch_size]])
