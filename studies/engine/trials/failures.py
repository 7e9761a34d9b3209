"""What an exception means for the record of a trial."""

import errno
import re

import torch

from studies.archives import ArchiveError
from studies.engine.errors import ChangedError, StudyError
from studies.engine.records import Failure

LONGEST = 600
"""Characters of a failure's message; the whole traceback is in the trial's log."""


NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What a RuntimeError says where memory is used up: the CPU's allocator, CUDA, cuBLAS."""


class NotFinite(Exception):
    """Training left the finite numbers; the message names what and at which step."""


class DoesNotFit(Exception):
    """The rows of one forward and backward pass do not fit into memory."""


def failure_of(error: BaseException) -> Failure:
    """The record for `error`, its message on one line."""
    message = _one_line(error)
    if isinstance(error, ChangedError):
        return Failure(kind="changed", message=message)
    if isinstance(error, NotFinite):
        return Failure(kind="not_finite", message=message)
    if is_out_of_memory(error):
        # batches are made smaller without being asked
        advice = "Lower task.max_length or the slots, or set backbone.gradient_checkpointing"
        return Failure(kind="out_of_memory", message=f"{message}. {advice}")
    # libraries in Rust and C++ (tokenizers, safetensors) give only the text
    if any(
        (isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT))
        or "No space left on device" in str(e)
        for e in _chain(error)
    ):
        return Failure(
            kind="disk_full", message=f"{message}. Free space below --runs, then --retry-failed"
        )
    return Failure(kind="exception", message=message)


def _chain(error: BaseException) -> list[BaseException]:
    """`error` and what it was raised from."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    return chain


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, says that memory is used up."""
    return any(
        isinstance(e, MemoryError | torch.OutOfMemoryError | DoesNotFit)
        or (isinstance(e, RuntimeError) and any(words in str(e) for words in NO_MEMORY))
        for e in _chain(error)
    )


def _one_line(error: BaseException) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    own = isinstance(error, NotFinite | DoesNotFit | StudyError | ArchiveError)
    line = text if own else f"{type(error).__name__}: {text}".removesuffix(": ")
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
