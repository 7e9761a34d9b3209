"""CUDA graphs as torch makes them, and the stream that they are captured on."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from studies.engine.trials.ranks import ranks


class CudaGraph:
    """A graph on the current stream, which must not be the default one.

    What came before has run on the same stream: a graph that autograd has kept would otherwise draw
    the default stream into the capture, which that does not allow.
    """

    failures: ClassVar[int] = 0
    """Captures of this process that failed; after one, torch may keep what is freed (2.11)."""

    def __init__(self, pool: Any) -> None:
        self._pool, self._graph = pool, torch.cuda.CUDAGraph()

    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        """Capture `work` without doing it; each replay writes its result anew to this tensor."""
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        state = generator.get_state()
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(
                self._graph,
                pool=self._pool,
                stream=stream,
                capture_error_mode="thread_local",  # other threads may pin memory meanwhile
            ):
                return work()
        except BaseException:
            CudaGraph.failures += 1
            # a capture that fails may leave the generator waiting for its end: take a fresh one
            fresh = torch.Generator(generator.device)
            fresh.set_state(state)
            generator.graphsafe_set_state(fresh.graphsafe_get_state())
            raise

    def replay(self) -> None:
        """Do it once more, on the current stream."""
        self._graph.replay()


def pool_maker(device: torch.device) -> Callable[[], Callable[[], CudaGraph]] | None:
    """Makes makers of graphs; those of one maker share memory, as they are never replayed at once.

    None on a CPU, which has no such graphs.
    """
    if device.type != "cuda":
        return None
    return lambda: functools.partial(CudaGraph, torch.cuda.graph_pool_handle())


@functools.cache
def _stream(device: int) -> torch.cuda.Stream:
    """One for all trials of a process: cuBLAS has a workspace for each that it ever saw."""
    return torch.cuda.Stream(device)


@contextmanager
def own_stream() -> Iterator[None]:
    """What runs inside is on one stream beside the default one; both wait for each other."""
    default, own = torch.cuda.current_stream(), _stream(torch.cuda.current_device())
    if default != torch.cuda.default_stream():  # it is on one already
        yield
        return
    torch.cuda.empty_cache()  # what is free on one stream is not on another
    own.wait_stream(default)
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        default.wait_stream(own)


def on_one_gpu() -> bool:
    """Whether this trial trains on a GPU, alone: its batches have few shapes, captured or not."""
    return torch.cuda.is_available() and ranks().count == 1
