"""Images with a class."""

import io
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from studies.backbones.conversion import require
from studies.memory import free_memory
from studies.tasks.encoding import Example, Examples, spare_workers
from studies.tasks.kinds.prepared import Prepared, evaluating, outputs_of
from studies.tasks.metrics import Measured, named_classification_metrics
from studies.tasks.rows import Picture
from studies.tasks.spec import TaskSpec
from studies.tasks.task import TaskData

CROP_AREA = (0.5, 1.0)
"""Share of an image's area that a random crop keeps."""
MOST_KEPT = 2**31
"""Bytes of pixels that a process keeps, at most: each slot has a process."""
SHARE_KEPT = 1 / 32
"""Of the memory that is free, at most."""
AT_ONCE = 256
"""Images that are decoded together."""


@dataclass(frozen=True)
class Pictures(Examples):
    """Images as examples; they are decoded when a batch is made."""

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
    """One class for each image; the loss is cross-entropy.

    Pixels are made once for all trials of a process, where they find room and are not augmented:
    decoding takes longer than a small model's steps on a GPU.
    """

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
        self._kept: dict[str, Tensor | None] = {}
        self.train = self._splits["train"]
        self.slow_batches = self._augment or self._pixels_of("train") is None

    def collate(
        self, examples: Sequence[Example], lengths: Sequence[int] = ()
    ) -> dict[str, Tensor]:
        """(batch, 3, height, width) pixels and (batch,) labels, augmented where asked for."""
        kept = None if self._augment else self._pixels_of("train")
        if kept is None:
            return self._batch(examples, augment=self._augment)
        return {"pixel_values": kept[[e["index"] for e in examples]], "labels": _labels(examples)}

    def measure(
        self, model: nn.Module, split: str, batch_size: int, autocast: torch.dtype | None = None
    ) -> Measured:
        """The metrics that the task declares."""
        batches = self._in_order(split, batch_size)
        with evaluating(model, autocast) as device:
            outputs, labels = outputs_of(model, batches, device)
        return named_classification_metrics(self._names, outputs, labels)

    def _in_order(self, split: str, batch_size: int) -> Iterable[dict[str, Tensor]]:
        """The batches of a split, which nothing augments."""
        examples, kept = self._splits[split], self._pixels_of(split)
        if kept is None:
            return DataLoader(
                examples,
                batch_size,
                collate_fn=partial(self._batch, augment=False),
                num_workers=spare_workers(),
                generator=torch.Generator(),  # it would draw from the training's
            )
        labels = _labels([examples[place] for place in range(len(examples))])
        parts = zip(kept.split(batch_size), labels.split(batch_size), strict=True)
        return ({"pixel_values": pixels, "labels": own} for pixels, own in parts)

    def _pixels_of(self, split: str) -> Tensor | None:
        """(rows, 3, height, width) pixels that nothing augments; None where they find no room."""
        if split not in self._kept:
            self._kept[split] = self._decoded(self._splits[split])
        return self._kept[split]

    def _decoded(self, pictures: Pictures) -> Tensor | None:
        room = min(MOST_KEPT, int(SHARE_KEPT * free_memory()))
        room -= sum(kept.nbytes for kept in self._kept.values() if kept is not None)
        pixels: Tensor | None = None
        for start in range(0, len(pictures), AT_ONCE):
            end = min(start + AT_ONCE, len(pictures))
            part = self._pixels([pictures[place] for place in range(start, end)], augment=False)
            if pixels is None:
                if len(pictures) * part[0].nbytes > room:
                    return None
                pixels = part.new_empty((len(pictures), *part.shape[1:]))
            pixels[start:end] = part
        return pixels

    def _batch(self, examples: Sequence[Example], augment: bool) -> dict[str, Tensor]:
        return {"pixel_values": self._pixels(examples, augment), "labels": _labels(examples)}

    def _pixels(self, examples: Sequence[Example], augment: bool) -> Tensor:
        """(examples, 3, height, width), as the model's processor makes them."""
        from PIL import Image

        images = [Image.open(io.BytesIO(e["image"])).convert("RGB") for e in examples]
        if augment:
            # by the batch's rows: the same in every process, and another in every epoch
            draw = random.Random(str([e["index"] for e in examples]))
            images = [crop_and_flip(image, draw) for image in images]
        made = self._processor(images=images, return_tensors="pt", **self._size)
        pixels: Tensor = made["pixel_values"]
        return pixels


def _labels(examples: Sequence[Example]) -> Tensor:
    return torch.tensor([example["labels"] for example in examples])


def crop_and_flip(image: Any, draw: random.Random) -> Any:
    """A random square of the image, mirrored half the time, in the image's own size."""
    from PIL import Image

    width, height = image.size
    side = max(1, round((draw.uniform(*CROP_AREA) * width * height) ** 0.5))
    w, h = min(width, side), min(height, side)
    left, top = draw.randint(0, width - w), draw.randint(0, height - h)
    cut = image.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + w, top + h))
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else cut
