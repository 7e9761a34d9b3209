"""Rows to examples, tokenised once, and examples to batches, padded to the longest of each."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from studies.tasks.rows import Row
from studies.tasks.token_cache import tokenise

Example = dict[str, Any]
IGNORED = -100
"""The label that a loss leaves out."""
MOST_WORKERS = 8
"""More processes than this wait for each other."""


class Examples(Dataset[Example], ABC):
    """Training examples with the length that decides which are batched together."""

    @property
    @abstractmethod
    def lengths(self) -> Sequence[int]:
        """Tokens of each example; all equal where nothing is padded."""

    @abstractmethod
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Encoded(Examples):
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
    pairs = [row.pair for row in rows if row.pair is not None]
    texts = [row.text for row in rows]
    tokens = tokenise(tokenizer, texts, pairs or None, truncation=True, max_length=max_length)
    return Encoded(
        tuple(
            {**{key: tokens[key][i] for key in tokens}, "labels": index[row.label]}
            for i, row in enumerate(rows)
        )
    )


def padded(
    rows: Sequence[Sequence[int]], fill: int, lengths: Sequence[int] = (), side: str = "right"
) -> Tensor:
    """(rows, length) int64, `fill` where a row has ended, or on the left has not begun.

    The length is the shortest of `lengths` that holds the longest row; without one, that row's own.
    """
    counts = np.fromiter(map(len, rows), np.int64, len(rows))
    longest = int(counts.max())
    length = min((n for n in lengths if n >= longest), default=longest)
    places = np.arange(length)
    real = places < counts[:, None] if side == "right" else places >= length - counts[:, None]
    filled = np.full((len(rows), length), fill, np.int64)
    filled[real] = np.fromiter(chain.from_iterable(rows), np.int64, int(counts.sum()))
    return torch.from_numpy(filled)


def real_tokens(rows: Sequence[Sequence[int]], side: str) -> Tensor:
    """The attention mask that goes with `padded`: (rows, length) int64, 1 for what is no fill."""
    return padded([[1] * len(row) for row in rows], 0, side=side)


class Pad:
    """Collates rows as their tokenizer pads them, without asking it again for each batch.

    `side` is that of the padding where it is not the tokenizer's own.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, side: str | None = None) -> None:
        self._side = side or tokenizer.padding_side
        self._fills = {
            "input_ids": tokenizer.pad_token_id,
            "attention_mask": 0,
            "token_type_ids": tokenizer.pad_token_type_id,
            "special_tokens_mask": 1,
            "labels": IGNORED,
        }

    def __call__(
        self, examples: Sequence[Example], lengths: Sequence[int] = ()
    ) -> dict[str, Tensor]:
        """(batch, length) for every field, (batch,) for one label a row; `lengths` as `padded`."""
        columns = {name: [example[name] for example in examples] for name in examples[0]}
        return {
            name: padded(column, self._fills[name], lengths, self._side)
            if isinstance(column[0], list)
            else torch.tensor(column)
            for name, column in columns.items()
        }


def eval_order(data: Encoded) -> list[int]:
    """The places of the rows as `eval_batches` takes them: shortest first."""
    counts = data.lengths
    return sorted(range(len(data)), key=counts.__getitem__)


def eval_batches(
    data: Encoded, pad: Pad, batch_size: int, *, few_lengths: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Batches for evaluation, shortest rows first; the metrics do not depend on the order.

    Each is padded to its longest row; with `few_lengths` to the next multiple of 8, if that is not
    longer than the longest row of all.
    """
    order, longest = eval_order(data), max(data.lengths, default=0)
    lengths = [*range(8, longest, 8), longest] if few_lengths else []
    for start in range(0, len(order), batch_size):
        yield pad([data[index] for index in order[start : start + batch_size]], lengths)


def spare_workers() -> int:
    """Processes that may make batches while a GPU trains: none on a CPU, whose cores do train."""
    return min(MOST_WORKERS, torch.get_num_threads()) if torch.cuda.is_available() else 0
