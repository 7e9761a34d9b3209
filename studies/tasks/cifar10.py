"""The test images of CIFAR-10: 10,000 photographs of 32 x 32 pixels, ten classes of 1,000.

Krizhevsky, *Learning multiple layers of features from tiny images*, 2009. The archive has the test
set alone, so train and valid are cut from it too: figures are not comparable with published ones.
"""

import base64
from collections.abc import Sequence
from pathlib import Path

from studies.tasks.bigbench import BIGBENCH, LICENCE, choices_of, examples
from studies.tasks.packaged import PackagedTask
from studies.tasks.rows import AnyRow, Picture


class Cifar10(PackagedTask):
    """One image, ten classes."""

    name = "cifar10"
    kind = "image_classification"
    archives = (BIGBENCH,)
    licence = LICENCE
    source = "cifar10_classification/base64: the test set of CIFAR-10, split anew"
    labels = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    rows = 10_000
    default_rows = (2_000, 500, 2_000)

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """Every image; the archive has them sorted by class."""
        rows: list[AnyRow] = []
        for example in examples(folders[0], "base64"):
            choices, gold = choices_of(example)
            rows.append(Picture(base64.b64decode(example["input"]), choices[gold]))
        return rows
