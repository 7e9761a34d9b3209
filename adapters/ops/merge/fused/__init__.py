"""`reference.py` in one pass over W or G: BA, phi and its slope live in registers only.

The only folder that imports Triton.
"""

from adapters.ops.merge.fused.gradients import merge_gradients
from adapters.ops.merge.fused.weight import merged_weight

__all__ = ["merge_gradients", "merged_weight"]
