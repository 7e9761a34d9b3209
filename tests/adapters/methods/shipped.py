"""What tests cannot derive of a method that ships: a new one has its line here alone."""

from typing import NamedTuple


class Facts(NamedTuple):
    """Worked out by hand."""

    numbers: int | None
    """Trained in one layer of 32 x 32 at rank 4, with the options of test_baselines.py.

    None where they depend on more than the layer.
    """
    dropout: str | None = None
    """What PEFT's configuration calls it; our own methods have it by our name."""


SHIPPED = {
    "abba": Facts(2 * 4 * 64),
    "adalora": Facts(6 * 65, "lora_dropout"),
    "aurora": Facts(4 * 64 + 16 + 4 * 8),
    "basis": Facts(None),
    "bitfit": Facts(None),
    "dora": Facts(4 * 64 + 32, "lora_dropout"),
    "dylora": Facts(4 * 64),
    "elalora": Facts(4 * 65),
    "fourierft": Facts(50),
    "full": Facts(None),
    "head_only": Facts(0),
    "hira": Facts(4 * 64, "hira_dropout"),
    "ia3": Facts(32),
    "kradapter": Facts(32 * (5 + 7)),
    "loha": Facts(2 * 4 * 64),
    "lora": Facts(4 * 64, "lora_dropout"),
    "lora_plus": Facts(4 * 64, "lora_dropout"),
    "lora_xs": Facts(16),
    "loran": Facts(4 * 64),
    "nola": Facts(16),
    "peanut": Facts(4 * 64),
    "pissa": Facts(4 * 64, "lora_dropout"),
    "randlora": Facts(8 * 36, "randlora_dropout"),
    "randlora_paper": Facts(8 * 36),
    "rslora": Facts(4 * 64, "lora_dropout"),
    "sine_lora": Facts(4 * 64),
    "vera": Facts(16 + 32, "vera_dropout"),
}
