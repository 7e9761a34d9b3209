"""Evaluation replayed from CUDA graphs, one graph for each shape of its batches.

What trained the model has changed the numbers before, and will after: graphs live as long as one
evaluation.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from adapters.training import capture
from studies.engine.trials.training import cuda_graph
from studies.engine.trials.training.cuda_graph import CudaGraph

PLAINLY = 3
"""Batches of a shape before it is captured: that costs about as much as two of them."""
NOT_REPLAYED = "evaluation is not replayed from CUDA graphs"
"""How a note begins that says why."""


@dataclass(frozen=True, eq=False)
class _Capture:
    graph: CudaGraph
    inputs: dict[str, Tensor]
    logits: Tensor


class CapturedForward(nn.Module):
    """`model`, whose numbers stay, for an evaluation that gives it tensors and reads its logits.

    `new_graph` makes graphs that share their memory; `note` gets what a reader should know.
    """

    def __init__(
        self, model: nn.Module, new_graph: Callable[[], CudaGraph], note: Callable[[str], None]
    ) -> None:
        super().__init__()
        self.model, self.training = model, model.training
        self._new_graph, self._note = new_graph, note
        self._captures: dict[Hashable, _Capture] = {}
        self._seen: Counter[Hashable] = Counter()
        self._given_up = False

    def forward(self, **inputs: Tensor) -> ModelOutput:
        """The model's output; of a replay the logits alone."""
        shape = tuple((name, tuple(t.shape), t.dtype) for name, t in sorted(inputs.items()))
        self._seen[shape] += 1
        if shape not in self._captures and self._seen[shape] > PLAINLY and not self._given_up:
            self._capture(shape, inputs)
        capture = self._captures.get(shape)
        if capture is None:
            output: ModelOutput = self.model(**inputs)
            return output
        for name, place in capture.inputs.items():
            place.copy_(inputs[name], non_blocking=True)
        capture.graph.replay()
        return ModelOutput(logits=capture.logits.clone())

    def _capture(self, shape: Hashable, inputs: dict[str, Tensor]) -> None:
        own = {name: tensor.clone() for name, tensor in inputs.items()}
        graph = self._new_graph()
        try:
            logits = graph.capture(lambda: self.model(**own).logits)
        except Exception as error:
            self._given_up = True
            self._captures.clear()
            self._note(f"{NOT_REPLAYED}: {type(error).__name__}: {error}")
        else:
            self._captures[shape] = _Capture(graph, own, logits)


@contextmanager
def captured_forward(model: nn.Module, note: Callable[[str], None]) -> Iterator[nn.Module]:
    """What to evaluate in the place of `model`, whose numbers stay as they are within.

    The model itself where it is not on one GPU alone, or is to be deterministic: a replay may
    differ from a pass by rounding.
    """
    new_pool = cuda_graph.pool_maker(next(model.parameters()).device)
    alone = cuda_graph.on_one_gpu() and not torch.are_deterministic_algorithms_enabled()
    if new_pool is None or not alone:
        yield model
        return
    with cuda_graph.own_stream(), capture.numbers_stay(model):
        yield CapturedForward(model, new_pool(), note)
