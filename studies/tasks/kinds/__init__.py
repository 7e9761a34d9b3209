"""How each kind of task is fed to a model and measured. Needs torch, so it is imported late."""

from collections.abc import Callable, Mapping
from typing import Any

from studies.tasks.kinds.images import Images
from studies.tasks.kinds.instruction import Instruction
from studies.tasks.kinds.matrix import Approximation
from studies.tasks.kinds.multiple_choice import MultipleChoice
from studies.tasks.kinds.prepared import Prepared
from studies.tasks.kinds.text import TextClassification, TextRegression
from studies.tasks.spec import TaskSpec
from studies.tasks.task import Kind, TaskData

KINDS: Mapping[Kind, Callable[[TaskSpec, TaskData, Any], Prepared]] = {
    "text_classification": TextClassification,
    "text_regression": TextRegression,
    "multiple_choice": MultipleChoice,
    "instruction": Instruction,
    "image_classification": Images,
    "matrix": Approximation,
}

"""What makes rows ready for a model that takes what a processor, or tokenizer, gives."""

__all__ = ["KINDS", "Prepared"]
