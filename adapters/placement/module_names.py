"""What the name of a module says: its block, its stack of blocks, its kind.

Transformers keep their blocks in numbered lists, so the first number in a name is the block:
`encoder.layer.3.attention.self.query` is block 3 of the stack `encoder.layer`, of the kind
`encoder.layer.attention.self.query`.
"""

from typing import NamedTuple

IN_PEFT = "base_model.model."
"""What PEFT puts before the names of a model's modules, on the adapted model and in files."""


class Block(NamedTuple):
    """A numbered block of a model."""

    stack: str
    """The name of the list that holds it."""
    index: int  # type: ignore[assignment]  # hides the method of tuples, which blocks have no use for

    @property
    def name(self) -> str:
        """The name of the block itself."""
        return f"{self.stack}.{self.index}" if self.stack else str(self.index)


def block_of(name: str) -> Block | None:
    """The block that the module `name` lies in, or None outside all blocks."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdigit():
            return Block(".".join(parts[:i]), int(part))
    return None


def kind_of(name: str) -> str:
    """The name without numbers: the same for the same module of every block."""
    return ".".join(part for part in name.split(".") if not part.isdigit())


def short_kind(name: str) -> str:
    """The kind below the block, such as `attention.self.query`, for tables and figures."""
    block = block_of(name)
    below = name if block is None else name.removeprefix(f"{block.name}.")
    return kind_of(below)


def last_blocks(names: list[str]) -> dict[str, int]:
    """For each stack that the modules `names` lie in, the highest index of their blocks."""
    last: dict[str, int] = {}
    for block in map(block_of, names):
        if block is not None:
            last[block.stack] = max(last.get(block.stack, 0), block.index)
    return last


def depths(names: list[str]) -> dict[str, float]:
    """For each module, where its block stands among the adapted blocks of its stack: 0 to 1.

    Modules outside all blocks, and those of a stack with a single block, are at 0.
    """
    last = last_blocks(names)
    blocks = {name: block_of(name) for name in names}
    return {
        name: 0.0 if block is None else block.index / max(last[block.stack], 1)
        for name, block in blocks.items()
    }
