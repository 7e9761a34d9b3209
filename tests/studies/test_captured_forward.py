"""Evaluation that is replayed: the same logits, and when a pass is captured."""

from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from again import Again
from peft import get_peft_model
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification
from transformers.utils import ModelOutput

from adapters import BasisConfig
from adapters.training import capture
from studies.engine.trials.training import captured_forward as forward
from studies.engine.trials.training.captured_forward import CapturedForward
from studies.tasks.encoding import Encoded, Pad, eval_batches

pytestmark = pytest.mark.slow


class Graph(Again):
    """Of logits (4, 1)."""

    made: ClassVar[list[Again]] = []

    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        super().capture(work)
        self._values = torch.full((4, 1), torch.nan)
        return self._values


class Scores(nn.Module):
    def forward(self, x: Tensor) -> ModelOutput:
        return ModelOutput(logits=x.sum(1, keepdim=True))


def test_a_shape_that_comes_again_is_captured_and_gives_the_logits_of_each_batch() -> None:
    Graph.made.clear()
    model = CapturedForward(Scores(), Graph, pytest.fail)
    batches = [torch.randn(rows, 5) for rows in (4, 4, 4, 4, 2, 4, 4)]
    found = [model(x=batch).logits for batch in batches]  # kept: a replay must not change them
    for logits, batch in zip(found, batches, strict=True):
        torch.testing.assert_close(logits, batch.sum(1, keepdim=True))
    assert [graph.replays for graph in Graph.made] == [3]


def test_a_capture_that_fails_is_said_once_and_passes_go_on() -> None:
    class Broken(Graph):
        def capture(self, work: Callable[[], Tensor]) -> Tensor:
            raise RuntimeError("operation not permitted")

    notes: list[str] = []
    model = CapturedForward(Scores(), Broken, notes.append)
    for _ in range(8):
        torch.testing.assert_close(model(x=torch.ones(2, 3)).logits, torch.full((2, 1), 3.0))
    assert notes == [f"{forward.NOT_REPLAYED}: RuntimeError: operation not permitted"]


def test_the_mode_of_the_model_is_its_own() -> None:
    inner = Scores().eval()
    model = CapturedForward(inner, Graph, pytest.fail)
    assert not model.training
    model.train()
    assert inner.training


def test_one_fit_does_for_an_evaluation_and_is_made_of_the_numbers_of_now() -> None:
    torch.manual_seed(0)
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, vocab_size=11)  # fmt: skip
    options = {"target_modules": ["query"], "r": 2, "task_type": "SEQ_CLS"}
    model = get_peft_model(BertForSequenceClassification(config), BasisConfig(**options)).eval()
    [batch] = {b for m in model.modules() for b in getattr(m, "batches", {}).values()}
    ids = torch.arange(6).reshape(2, 3)

    def change() -> None:
        for name, parameter in model.named_parameters():
            if "basis_" in name:  # as a fused optimizer does: torch sees nothing of it
                parameter.data.copy_(torch.randn(parameter.shape))

    with torch.inference_mode():
        change()
        model(input_ids=ids)
        change()
        with capture.numbers_stay(model):
            before = batch.fits
            logits = [model(input_ids=ids).logits for _ in range(3)]
        assert batch.fits == before + 1
        assert torch.equal(logits[-1], model(input_ids=ids).logits)


@pytest.mark.parametrize("longest", [3, 8, 21, 24])
def test_batches_of_few_lengths(longest: int) -> None:
    class Tokenizer:
        padding_side, pad_token_id, pad_token_type_id = "right", 0, 0

    rows = [{"input_ids": [1] * n, "labels": 0} for n in range(1, longest + 1)]
    data, pad = Encoded(tuple(rows)), Pad(Tokenizer())  # type: ignore[arg-type]
    plain = list(eval_batches(data, pad, 2))
    few = list(eval_batches(data, pad, 2, few_lengths=True))
    assert [b["input_ids"].shape[1] for b in few] == [
        min(longest, -(-b["input_ids"].shape[1] // 8) * 8) for b in plain
    ]
    assert [b["input_ids"].sum() for b in few] == [b["input_ids"].sum() for b in plain]
