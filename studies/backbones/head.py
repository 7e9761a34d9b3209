"""What a task needs on top of a backbone. Tasks say it, backbones build it; neither needs torch."""

from dataclasses import dataclass
from typing import Literal

HeadKind = Literal["text_classes", "text_score", "language_model", "image_classes", "matrix"]


@dataclass(frozen=True)
class Head:
    """The output that the model must have."""

    kind: HeadKind
    """text_classes and image_classes: an untrained linear layer over `labels`; text_score: one
    number, trained by squared error; language_model: next-token logits over the vocabulary; matrix:
    what one linear layer adds to its output."""
    labels: tuple[str, ...] = ()
    """Class names in the order of the outputs."""
    prompts: tuple[str, ...] = ()
    """image_classes with a CLIP backbone: templates with `{}` for a class's name; their averaged
    text embeddings start the head."""

    shape: tuple[int, int] | None = None
    """matrix: (out, in) of the layer."""
