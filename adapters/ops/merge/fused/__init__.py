"""`reference.py` in one pass over W or G: BA, phi and its slope live in registers only.

Triton is imported here and in `dense_gradient/fused.py` only.
"""

from adapters.ops.merge.fused.gradients import merge_gradients
from adapters.ops.merge.fused.weight import merged_weight

__all__ = ["merge_gradients", "merged_weight"]
