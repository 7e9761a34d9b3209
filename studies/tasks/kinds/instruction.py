"""Instructions with responses: trained on the response, measured by the loss on held-out ones."""

import math

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from studies.tasks.encoding import IGNORED, Encoded
from studies.tasks.kinds.prepared import evaluating, run_on
from studies.tasks.kinds.tokens import TrainedOnLessons, lessons
from studies.tasks.metrics import Measured
from studies.tasks.rows import Exchange
from studies.tasks.spec import TaskSpec
from studies.tasks.task import TaskData


class Instruction(TrainedOnLessons):
    """Exchanges for a language model."""

    def __init__(self, spec: TaskSpec, data: TaskData, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer)
        self._splits: dict[str, Encoded] = {
            name: lessons(
                [(row.prompt, row.response) for row in data.rows(name, Exchange)],
                tokenizer,
                max_length=spec.max_length,
                train_on_inputs=data.info.train_on_inputs and name == "train",
                end=True,
            )
            for name in data.splits
        }
        self.train = self._splits["train"]

    def measure(
        self, model: nn.Module, split: str, batch_size: int, autocast: torch.dtype | None = None
    ) -> Measured:
        """Mean loss of a response's token in nats, and its exponential: no means over rows."""
        data = self._splits[split]
        order = sorted(range(len(data)), key=data.lengths.__getitem__, reverse=True)
        parts = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
        batches = (self._pad([data[place] for place in places]) for places in parts)
        total = count = 0.0
        with evaluating(model, autocast) as device:
            for outputs, labels in run_on(model, batches, device):
                total += float(self.loss(outputs, labels, 1))
                count += int((labels[:, 1:] != IGNORED).sum())
        loss = total / max(1.0, count)
        return Measured({"loss": loss, "perplexity": math.exp(min(loss, 700.0))}, {})
