"""Questions with choices: trained on the right answer's tokens, answered by likelihood or in words.

The choice of the largest log-likelihood is the answer, either of the sum over its tokens or of the
sum divided by the number of its characters (which is what lm-eval calls acc and acc_norm). A task
says which of the two is its `accuracy`; both are always reported.
"""

import re
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from studies.tasks.kinds.generation import generate
from studies.tasks.kinds.prepared import evaluating
from studies.tasks.kinds.scoring import log_likelihoods
from studies.tasks.kinds.tokens import TrainedOnLessons, encode_pairs, lessons
from studies.tasks.metrics import Measured, Rows
from studies.tasks.rows import Item
from studies.tasks.spec import TaskSpec
from studies.tasks.task import TaskData


class MultipleChoice(TrainedOnLessons):
    """Items for a language model."""

    def __init__(self, spec: TaskSpec, data: TaskData, tokenizer: PreTrainedTokenizerBase) -> None:
        self._spec, self._info, self._tokenizer = spec, data.info, tokenizer
        self._splits = {name: data.rows(name, Item) for name in data.splits}
        super().__init__(tokenizer)
        self.train = lessons(
            [item.lesson for item in self._splits["train"]],
            tokenizer,
            max_length=spec.max_length,
            train_on_inputs=data.info.train_on_inputs,
            end=data.info.answers_end,
        )

    def measure(
        self, model: nn.Module, split: str, batch_size: int, autocast: torch.dtype | None = None
    ) -> Measured:
        """Accuracies by likelihood, by generation or both, and the right answers' mean loss."""
        items, measured = self._splits[split], dict[str, Rows]()
        right: list[bool] = []
        with evaluating(model, autocast) as device:
            if self._spec.evaluate != "generation":
                sums = self._likelihoods(model, items, batch_size, device)
                rules = {"sum": chosen_by_sum(sums), "normalised": chosen_normalised(sums, items)}
                for rule, choices in rules.items():
                    measured[f"accuracy_{rule}"] = _rows(_hits(items, choices), items)
                right = _hits(items, rules[self._info.scoring])
                measured["loss"] = (np.array(_losses(items, sums)),)
            if self._spec.evaluate != "loglikelihood":
                answers = self.answers(model, items, batch_size, device)
                given = [extract(a, i.names) for a, i in zip(answers, items, strict=True)]
                measured["unparsed"] = (np.array([choice is None for choice in given]),)
                generated = _hits(items, given)
                measured["accuracy_generated"] = _rows(generated, items)
                right = right or generated
        parts = {
            f"accuracy_{part}": (hits,) for part, hits in _by_part(right, items).items() if part
        }
        by_row = {"accuracy": _rows(right, items), **parts, **measured}
        return Measured({name: _mean(rows) for name, rows in by_row.items()}, by_row)

    def answers(
        self, model: nn.Module, items: Sequence[Item], batch_size: int, device: torch.device
    ) -> list[str]:
        """What the model writes after each item's prompt."""
        return generate(
            model,
            self._tokenizer,
            [item.question for item in items],
            batch_size=batch_size,
            max_length=self._spec.max_length,
            max_new_tokens=self._spec.max_new_tokens,
            beams=self._spec.beams,
            device=device,
        )

    def _likelihoods(
        self, model: nn.Module, items: Sequence[Item], batch_size: int, device: torch.device
    ) -> list[list[float]]:
        pairs = [option for item in items for option in item.options]
        flat = iter(
            log_likelihoods(
                model,
                encode_pairs(pairs, self._tokenizer),
                batch_size=batch_size,
                max_length=self._spec.max_length,
                pad_token=self._tokenizer.pad_token_id,
                device=device,
            )
        )
        return [[next(flat) for _ in item.options] for item in items]


def chosen_by_sum(sums: Sequence[Sequence[float]]) -> list[int]:
    """The place of the largest sum for each item."""
    return [max(range(len(values)), key=values.__getitem__) for values in sums]


def chosen_normalised(sums: Sequence[Sequence[float]], items: Sequence[Item]) -> list[int]:
    """The place of the largest sum divided by the choice's number of characters."""
    scaled = [
        [v / max(1, len(text.strip())) for v, (_, text) in zip(values, item.options, strict=True)]
        for values, item in zip(sums, items, strict=True)
    ]
    return chosen_by_sum(scaled)


def _losses(items: Sequence[Item], sums: Sequence[Sequence[float]]) -> list[float]:
    """Minus the log-likelihood of the right choice, for each character, in nats."""
    return [
        -values[item.gold] / max(1, len(item.options[item.gold][1].strip()))
        for item, values in zip(items, sums, strict=True)
    ]


def _hits(items: Sequence[Item], choices: Sequence[int | None]) -> list[bool]:
    return [choice == item.gold for choice, item in zip(choices, items, strict=True)]


def _by_part(hits: Sequence[bool], items: Sequence[Item]) -> dict[str, NDArray[Any]]:
    parts: dict[str, list[bool]] = defaultdict(list)
    for hit, item in zip(hits, items, strict=True):
        parts[item.part].append(hit)
    return {part: np.array(values) for part, values in parts.items()}


def _rows(hits: Sequence[bool], items: Sequence[Item]) -> Rows:
    return tuple(_by_part(hits, items).values())


def _mean(rows: Rows) -> float:
    """The unweighted mean over the parts."""
    return statistics.fmean(statistics.fmean(part.tolist()) for part in rows)


def extract(answer: str, choices: Sequence[str]) -> int | None:
    """The place of the choice that occurs first in `answer` as whole words, or None.

    Where two begin at one place ("answer1", "answer12") the longer one is meant. Case is ignored.
    LLM-Adapters takes the first match of a fixed word list in the text after the last
    `### Response:` instead, and counts no match as wrong.
    """
    matches: list[tuple[int, int, int]] = []
    text = answer.rpartition("### Response:")[2]
    for place, choice in enumerate(choices):
        pattern = rf"(?<!\w){re.escape(choice.strip())}(?!\w)"
        match = re.search(pattern, text, re.IGNORECASE) if choice.strip() else None
        if match is not None:
            matches.append((match.start(), -len(choice), place))
    return min(matches)[2] if matches else None
