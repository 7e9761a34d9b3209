"""Texts or pairs of texts with a class or a score."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from studies.tasks.encoding import Encoded, Example, Pad, encode, eval_batches, eval_order
from studies.tasks.kinds.prepared import Outputs, Prepared, evaluating, outputs_of
from studies.tasks.metrics import Measured, correlation_metrics, named_classification_metrics
from studies.tasks.rows import Row
from studies.tasks.spec import TaskSpec
from studies.tasks.task import TaskData


class TextClassification(Prepared):
    """One class for each text; the loss is cross-entropy."""

    evaluates_plainly = True

    def __init__(self, spec: TaskSpec, data: TaskData, tokenizer: PreTrainedTokenizerBase) -> None:
        self._names = tuple(data.info.metrics)
        self._pad = Pad(tokenizer)
        self._splits = {name: self._encode(spec, data, name, tokenizer) for name in data.splits}
        self.train = self._splits["train"]

    def collate(
        self, examples: Sequence[Example], lengths: Sequence[int] = ()
    ) -> dict[str, Tensor]:
        """(batch, length) tokens and mask, (batch,) labels."""
        return self._pad(examples, lengths)

    def measure(
        self, model: nn.Module, split: str, batch_size: int, autocast: torch.dtype | None = None
    ) -> Measured:
        """The metrics that the task declares."""
        data = self._splits[split]
        with evaluating(model, autocast) as device:
            few = device.type == "cuda"
            batches = eval_batches(data, self._pad, batch_size, few_lengths=few)
            scored = self._scored(*outputs_of(model, batches, device))
        places = np.argsort(eval_order(data))  # metrics stay sums in the order of the batches
        by_row = {name: tuple(rows[places] for rows in own) for name, own in scored.by_row.items()}
        return Measured(scored.metrics, by_row)

    def _encode(
        self, spec: TaskSpec, data: TaskData, split: str, tokenizer: PreTrainedTokenizerBase
    ) -> Encoded:
        return encode(data.rows(split, Row), data.labels, tokenizer, spec.max_length)

    def _scored(self, outputs: np.ndarray, labels: np.ndarray) -> Measured:
        return named_classification_metrics(self._names, outputs, labels)


class TextRegression(TextClassification):
    """One number for each text; the loss is the squared error."""

    def loss(self, outputs: Outputs, labels: Tensor, items: Tensor | int) -> Tensor:
        """Squared error in float32, averaged over the step's rows."""
        total = functional.mse_loss(outputs.logits[:, 0].float(), labels.float(), reduction="sum")
        return total / items

    def _encode(
        self, spec: TaskSpec, data: TaskData, split: str, tokenizer: PreTrainedTokenizerBase
    ) -> Encoded:
        rows = data.rows(split, Row)
        scores = sorted({row.label for row in rows})
        plain = encode(rows, scores, tokenizer, spec.max_length)
        return Encoded(
            tuple(
                {**example, "labels": float(scores[example["labels"]])}
                for example in plain.examples
            )
        )

    def _scored(self, outputs: np.ndarray, labels: np.ndarray) -> Measured:
        return correlation_metrics(outputs[:, 0], labels)
