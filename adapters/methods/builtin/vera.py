"""VeRA: trained diagonals between random matrices that all layers share."""

from peft import VeraConfig

from adapters.methods.registry import Method, register_method

LARGEST_RANK = 1024
"""The largest of the paper's experiments; a rank beyond the width adds cost more than capacity."""

register_method(
    Method(
        "vera",
        VeraConfig,
        renamed={"dropout": "vera_dropout"},
        ignored=frozenset({"alpha"}),
        defaults={"save_projection": False},
        sizes=lambda smallest_side: range(1, LARGEST_RANK + 1),
        formula="diag(b) B diag(d) A; A, B random and shared",
        source="Kopiczko et al., arXiv 2310.11454; PEFT",
        note="r here is 256 to 1024 in the paper, far above LoRA's: set it, or match parameters; "
        "A and B are drawn anew when loading, not saved",
    )
)
