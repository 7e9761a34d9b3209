"""Whether what runs now is being captured in a CUDA graph, where nobody may wait for the device."""

import torch
from torch import Tensor


def is_captured(tensor: Tensor | None = None) -> bool:
    """Whether the GPU's current stream is captured, and `tensor`, where one is given, is there."""
    if tensor is not None and not tensor.is_cuda:
        return False
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
