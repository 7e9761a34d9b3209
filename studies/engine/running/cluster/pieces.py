"""A trial's folder on one machine becomes that of another, in pieces that need little memory.

What grows (metrics, log) is sent as it grows; everything else arrives whole or not at all, and
result.json last.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PIECE_BYTES = 4 * 2**20
BATCH_BYTES = 8 * 2**20
"""About so much is on its way at once."""
GROWING = ("metrics.jsonl", "log.txt")
RESULT = "result.json"
STAYS = ("trial.json", RESULT)
"""What is not sent with the rest: known at home, and what comes last."""


@dataclass(frozen=True)
class Piece:
    """Part of a file, or word that a file or folder is complete."""

    name: str
    """POSIX path below the trial's folder."""
    start: int = 0
    content: bytes = b""
    complete: bool = False
    """Everything of the entry `name` was sent before; there is no content."""


class Outbox:
    """What of `folder` was sent, and what is to be sent next."""

    def __init__(self, folder: Path, known: Iterable[str] = ()) -> None:
        """`known` are checkpoints that the other machine has."""
        self._folder = folder
        self._lengths = dict.fromkeys(GROWING, 0)
        self._sent = set(known)
        """Checkpoints."""

    def news(self) -> Iterator[Piece]:
        """What came since the last call: whole lines, and checkpoints."""
        for name in GROWING:
            yield from self._grown(name)
        yield from self.new_checkpoints()

    def everything(self) -> Iterator[Piece]:
        """What a trial that ended leaves; checkpoints that were sent are not sent again."""
        yield from self.new_checkpoints()
        for path in sorted(self._folder.iterdir()):
            if path.name not in STAYS and not path.name.startswith((".", "checkpoint-")):
                yield from _entry(self._folder, path.name)
        if (self._folder / RESULT).is_file():
            yield from _entry(self._folder, RESULT)

    def new_checkpoints(self) -> Iterator[Piece]:
        """Those that the other machine does not have."""
        for name in self.checkpoints():
            if name not in self._sent:
                yield from self._checkpoint(name)

    def checkpoints(self) -> tuple[str, ...]:
        """Names of the complete checkpoints."""
        return tuple(sorted(path.name for path in self._folder.glob("checkpoint-*")))

    def _checkpoint(self, name: str) -> Iterator[Piece]:
        try:
            yield from _entry(self._folder, name)
            self._sent.add(name)
        except FileNotFoundError:  # a later one took its place meanwhile
            return

    def _grown(self, name: str) -> Iterator[Piece]:
        try:
            with (self._folder / name).open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._lengths[name]:  # begun again
                    self._lengths[name] = 0
                file.seek(self._lengths[name])
                content = file.read(PIECE_BYTES)
        except FileNotFoundError:
            return
        content = content[: content.rfind(b"\n") + 1]
        if content:
            yield Piece(name, self._lengths[name], content)
            self._lengths[name] += len(content)


def put(folder: Path, piece: Piece) -> None:
    """Write `piece`, which another machine's `Outbox` gave, below `folder`; in order.

    Raises:
        OSError: it cannot be written.
    """
    entry, _, below = piece.name.partition("/")
    path = folder / piece.name if entry in GROWING else folder / f".{entry}" / below
    if piece.complete:
        if entry not in GROWING:
            _replace(path, folder / entry)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "r+b" if piece.start and path.exists() else "wb"
    with path.open(mode) as file:
        file.seek(piece.start)
        file.write(piece.content)
        file.truncate()


def drop_half(folder: Path) -> None:
    """Remove what was on its way when a machine was lost."""
    for path in folder.glob(".checkpoint-*"):
        shutil.rmtree(path, ignore_errors=True)


def batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """`pieces` in lists of about `BATCH_BYTES`."""
    batch: list[Piece] = []
    for piece in pieces:
        batch.append(piece)
        if sum(len(each.content) for each in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _entry(folder: Path, name: str) -> Iterator[Piece]:
    """A file, or a folder with all files below it."""
    path = folder / name
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    for each in files:
        below = each.relative_to(folder).as_posix()
        with each.open("rb") as file:
            start = 0
            while (content := file.read(PIECE_BYTES)) or start == 0:
                yield Piece(below, start, content)
                start += len(content)
                if not content:
                    break
    yield Piece(name, complete=True)


def _replace(scratch: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    scratch.replace(target)  # the loop writes result.json anew, and that is synced
