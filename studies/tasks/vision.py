"""Image classification sets of the hub, or of a local folder with one folder a class.

`task.data` is then read as datasets' imagefolder: `train/<class>/*.png`, `test/<class>/*.png`.
Test is the set's own; valid is cut from train where the set has none. What test has too is left
out of both, what valid has too out of train. Rows are chosen by number before any image is read, so
a part of ImageNet does not need all of it in memory.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.backbones.head import Head
from studies.tasks.hub import load_tables, local_files
from studies.tasks.metrics import CLASSIFICATION
from studies.tasks.places import SPLITS
from studies.tasks.rows import Picture
from studies.tasks.spec import TaskSpec
from studies.tasks.splits import VALID_SHARE, apart_from, check_disjoint
from studies.tasks.task import HEADS, Task, TaskData, TaskInfo


@dataclass(frozen=True)
class HubImages(Task):
    """One data set."""

    hub: str
    image: str
    label: str
    rows: int
    licence: str
    prompts: tuple[str, ...] = ("a photo of a {}.",)
    """CLIP's prompt ensemble for this set."""

    def info(self, spec: TaskSpec) -> TaskInfo:
        """Describe the task."""
        return TaskInfo(
            name=spec.name,
            kind="image_classification",
            metrics=CLASSIFICATION,
            licence=self.licence,
            source=spec.data or self.hub,
            rows=self.rows,
        )

    def files(self, spec: TaskSpec) -> Mapping[str, Path]:
        """Those of the folder that the study names, if any."""
        return local_files(spec.data) if spec.data else {}

    def head(self, spec: TaskSpec, data: TaskData) -> Head:
        """A head over the classes; CLIP starts it from `task.prompts` or the set's own."""
        return Head(HEADS["image_classification"], data.labels, spec.prompts or self.prompts)

    def load(self, spec: TaskSpec, split_seed: int) -> TaskData:
        """Choose and read the images.

        Raises:
            ValueError: a split or column is missing, or there are too few rows, or none that no
                other split has.
        """
        image, label = ("image", "label") if spec.data else (self.image, self.label)
        tables = load_tables(spec.data or self.hub)
        named = {SPLITS.get(name, name): table for name, table in tables.items()}
        test = named.get("test", named.get("validation"))
        if "train" not in named or test is None:
            raise ValueError(
                f"task: {spec.name} needs splits train and test; {spec.data or self.hub} has "
                f"{list(tables)}"
            )
        for column in (image, label):
            if column not in test.column_names:
                raise ValueError(f"task: {spec.name} has no column {column!r}: {test.column_names}")
        names = tuple(test.features[label].names)
        draw = random.Random(split_seed)
        valid = named.get("validation") if "test" in named else None
        chosen = draw.sample(range(len(named["train"])), len(named["train"]))
        tested = _read(test, image, label, _pick(draw, len(test), spec.test_rows))
        if valid is None:
            count = spec.valid_rows or max(1, round(VALID_SHARE * len(chosen)))
            held_out = _read(named["train"], image, label, chosen[:count])
            chosen = chosen[count:]
        else:
            held_out = _read(valid, image, label, _pick(draw, len(valid), spec.valid_rows))
        count = len(chosen) if spec.train_rows is None else spec.train_rows
        if not 0 < count <= len(chosen):
            raise ValueError(
                f"task: {spec.name}: asked for train_rows {count}, but {len(chosen)} are left"
            )
        read = _read(named["train"], image, label, chosen[:count])
        held, free = (apart_from(tested, rows) for rows in (held_out, read))
        splits = {"train": tuple(apart_from(held, free)), "valid": tuple(held), "test": tested}
        for name, rows in splits.items():
            if not rows:
                raise ValueError(
                    f"task: no row of {name} is left of {spec.name}: each is also in another split"
                )
        check_disjoint(splits)
        removed = {
            "in_test": len(held_out) - len(held) + len(read) - len(free),
            "in_valid": len(free) - len(splits["train"]),
        }
        return TaskData(self.info(spec), names, splits, removed)


def _pick(draw: random.Random, size: int, count: int | None) -> list[int]:
    return draw.sample(range(size), size if count is None else min(count, size))


def _read(table: Any, image: str, label: str, places: Sequence[int]) -> tuple[Picture, ...]:
    """Encoded images, undecoded, with their class's name."""
    from datasets import Image

    names = table.features[label].names
    part = table.select(places).cast_column(image, Image(decode=False))
    rows = []
    for record in part:
        data = record[image]["bytes"]
        if data is None:
            data = Path(record[image]["path"]).read_bytes()
        rows.append(Picture(data, names[record[label]]))
    return tuple(rows)


_PHOTO = (
    "a photo of a {}.",
    "a blurry photo of a {}.",
    "a low contrast photo of a {}.",
    "a photo of a small {}.",
    "a photo of a big {}.",
    "a photo of the {}.",
)
VISION = {
    "cifar100": HubImages(
        "uoft-cs/cifar100", "img", "fine_label", 60_000, "unknown (see the card)", _PHOTO
    ),
    "flowers102": HubImages(
        "nkirschi/oxford-flowers",
        "image",
        "label",
        8_189,
        "unknown (see the card)",
        ("a photo of a {}, a type of flower.",),
    ),
    "pets": HubImages(
        "timm/oxford-iiit-pet",
        "image",
        "label",
        7_349,
        "CC BY-SA 4.0",
        ("a photo of a {}, a type of pet.",),
    ),
    "sun397": HubImages(
        "tanganke/sun397",
        "image",
        "label",
        39_700,
        "unknown (see the card)",
        ("a photo of a {}.", "a photo of the {}."),
    ),
    "imagenet": HubImages(
        "ILSVRC/imagenet-1k",
        "image",
        "label",
        1_331_167,
        "ImageNet terms of access (research only)",
        ("a photo of a {}.", "a bad photo of a {}.", "a photo of the large {}.", "art of the {}."),
    ),
}
