"""Numbers that say how many directions a matrix uses."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_BATCH_ENTRIES = 2**26
"""Entries that are decomposed in one batch."""


@torch.no_grad()
def singular_values(
    shapes: Sequence[tuple[int, int]], matrix: Callable[[int], Tensor]
) -> list[Tensor]:
    """All singular values of several matrices, falling, float64 on the CPU.

    Matrices of one shape are decomposed together, by their Gram matrices in float64: values below
    1e-8 of the largest are lost, which float32 updates do not hold anyway.

    Args:
        shapes: (rows, columns) of each.
        matrix: The matrix at a position, made when its turn comes.
    """
    spectra: dict[int, Tensor] = {}
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, shape in enumerate(shapes):
        groups[shape].append(i)
    for shape, indices in groups.items():
        room = max(1, _BATCH_ENTRIES // (min(shape) ** 2))
        for start in range(0, len(indices), room):
            chunk = indices[start : start + room]
            grams = torch.stack([_gram(matrix(i)) for i in chunk])
            values = torch.linalg.eigvalsh(grams).clamp_min(0).sqrt().flip(-1).cpu()
            spectra |= dict(zip(chunk, values, strict=True))
    return [spectra[i] for i in range(len(shapes))]


def _gram(matrix: Tensor) -> Tensor:
    wide = matrix.double() if matrix.shape[0] <= matrix.shape[1] else matrix.double().T
    return wide @ wide.T


def stable_rank(values: Tensor) -> float:
    r"""$\|M\|_F^2 / \|M\|_2^2 = \sum s_i^2 / s_1^2$ of falling singular values; 0 for M = 0.

    LR-LoRA eq. 5; between 1 and the rank.
    """
    top = values[0].square()
    return float(values.square().sum() / top) if top > 0 else 0.0


def numerical_rank(values: Tensor, shape: tuple[int, int]) -> int:
    r"""How many singular values of a (rows, columns) matrix, falling, are more than rounding.

    Those above $s_1\,\varepsilon \max(\text{rows}, \text{columns})$, as numpy and MATLAB count
    them, with the $\varepsilon$ of float32, in which updates are computed.
    """
    floor = values[0] * max(shape) * torch.finfo(torch.float32).eps
    return int((values > floor).sum())


def effective_rank(values: Tensor) -> float:
    r"""$\exp(-\sum p_i \ln p_i)$ with $p_i = s_i / \sum s_j$; 0 for M = 0.

    Reference: Roy & Vetterli, *The effective rank* (2007).
    """
    total = values.sum()
    if not total > 0:
        return 0.0
    p = values / total
    return float(torch.special.entr(p).sum().exp())
