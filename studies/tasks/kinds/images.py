"""Images with a class."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from studies.backbones.conversion import require
from studies.tasks.encoding import Example, Examples, spare_workers
from studies.tasks.kinds.prepared import Prepared, evaluating, outputs_of
from studies.tasks.metrics import Measured, named_classification_metrics
from studies.tasks.rows import Picture
from studies.tasks.spec import TaskSpec
from studies.tasks.task import TaskData

CROP_AREA = (0.5, 1.0)
"""Share of an image's area that a random crop keeps."""


@dataclass(frozen=True)
class Pictures(Examples):
    """Images as examples; they are decoded, and augmented, when a batch is made."""

    rows: Sequence[Picture]
    classes: dict[str, int]

    @property
    def lengths(self) -> list[int]:
        """All the same: images are not padded."""
        return [1] * len(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        row = self.rows[index]
        return {"image": row.image, "labels": self.classes[row.label], "index": index}


class Images(Prepared):
    """One class for each image; the loss is cross-entropy."""

    slow_batches = True
    evaluates_plainly = True

    def __init__(self, spec: TaskSpec, data: TaskData, processor: Any) -> None:
        require(("PIL",), f"task: {spec.name} holds images, which", "packaged")
        self._names = tuple(data.info.metrics)
        self._processor, self._augment = processor, spec.augment
        self._size: dict[str, Any] = {}
        if spec.image_size is not None:
            side = {"height": spec.image_size, "width": spec.image_size}
            self._size = {"size": {"shortest_edge": spec.image_size}, "crop_size": side}
            if "shortest_edge" not in (getattr(processor, "size", None) or {}):
                self._size = {"size": side}
        classes = {label: place for place, label in enumerate(data.labels)}
        self._splits = {name: Pictures(data.rows(name, Picture), classes) for name in data.splits}
        self.train = self._splits["train"]

    def collate(
        self, examples: Sequence[Example], lengths: Sequence[int] = ()
    ) -> dict[str, Tensor]:
        """(batch, 3, height, width) pixels and (batch,) labels, augmented where asked for."""
        return self._batch(examples, augment=self._augment)

    def measure(
        self, model: nn.Module, split: str, batch_size: int, autocast: torch.dtype | None = None
    ) -> Measured:
        """The metrics that the task declares."""
        batches = DataLoader(
            self._splits[split],
            batch_size,
            collate_fn=partial(self._batch, augment=False),
            num_workers=spare_workers(),
            generator=torch.Generator(),  # it would draw from the training's
        )
        with evaluating(model, autocast) as device:
            outputs, labels = outputs_of(model, batches, device)
        return named_classification_metrics(self._names, outputs, labels)

    def _batch(self, examples: Sequence[Example], augment: bool) -> dict[str, Tensor]:
        from PIL import Image

        images = [Image.open(io.BytesIO(e["image"])).convert("RGB") for e in examples]
        if augment:
            # by the batch's rows: the same in every process, and another in every epoch
            draw = random.Random(str([e["index"] for e in examples]))
            images = [crop_and_flip(image, draw) for image in images]
        pixels = self._processor(images=images, return_tensors="pt", **self._size)["pixel_values"]
        return {"pixel_values": pixels, "labels": torch.tensor([e["labels"] for e in examples])}


def crop_and_flip(image: Any, draw: random.Random) -> Any:
    """A random square of the image, mirrored half the time, in the image's own size."""
    from PIL import Image

    width, height = image.size
    side = max(1, round((draw.uniform(*CROP_AREA) * width * height) ** 0.5))
    w, h = min(width, side), min(height, side)
    left, top = draw.randint(0, width - w), draw.randint(0, height - h)
    cut = image.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + w, top + h))
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else cut
