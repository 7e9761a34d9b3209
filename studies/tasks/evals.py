"""The archive of OpenAI's evals, read and never installed, and the task that is in it whole."""

import json
from collections.abc import Sequence
from pathlib import Path

from studies.archives import Archive, Member
from studies.tasks.packaged import PackagedTask
from studies.tasks.rows import AnyRow, Row

ROOT = "evals/registry/data"

EVALS = Archive(
    package="evals",
    version="3.0.1.post1",
    filename="evals-3.0.1.post1-py3-none-any.whl",
    size=46_322_659,
    sha256="0abcb2051303500784b1641a6e4f6b813ed43ad64f879a37d344a6774eb8eb78",
    members=(
        Member(
            (f"{ROOT}/sarcasm/samples.jsonl",),
            "sarcasm.jsonl",
            6_906_270,
            "4cb34ff4d2718da62368440ffe8dece7ece39a46b0fe4d172fdd8a76bc420f46",
        ),
        Member(
            (f"{ROOT}/theory_of_mind/socialiqa/test.jsonl",),
            "social_iqa.jsonl",
            534_549,
            "33e5a7e1f8270934fcff115f18ca51aede77987d1225cf3ac718a22fb1715714",
        ),
    ),
)


class Sarcasm(PackagedTask):
    """Headlines of The Onion (sarcastic) and HuffPost (not).

    Misra & Arora, *Sarcasm detection using news headlines dataset*, AI Open 2023. The classes are
    nearly even (52.4% are not sarcastic).
    """

    name = "sarcasm"
    kind = "text_classification"
    archives = (EVALS,)
    licence = "not stated for this set (evals is MIT); the original set has its own terms"
    source = "sarcasm/samples.jsonl"
    labels = ("serious", "sarcastic")
    rows = 28_496
    default_rows = (2_000, 1_000, 4_000)

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """Every headline; duplicates are removed later."""
        text = (folders[0] / "sarcasm.jsonl").read_text(encoding="utf-8")
        samples = (json.loads(line) for line in text.split("\n") if line)
        return [Row(s["input"][1]["content"], self.labels[int(s["ideal"])]) for s in samples]
