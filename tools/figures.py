"""Figures small enough to be kept in the repository.

A figure of matplotlib has a few dozen colours and their blends at edges: a palette holds these in a
third of the bytes, and what is still too large gets fewer pixels.
"""

import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

LARGEST = 60_000
"""Bytes that a committed figure may have."""
SCALES = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4)
COLOURS = (128, 48)


def shrink(file: Path, largest: int = LARGEST) -> None:
    """Rewrite the PNG `file` with at most `largest` bytes; a smaller one stays as it is.

    Raises:
        ValueError: it has more bytes even with the fewest pixels that stay legible.
    """
    if file.stat().st_size <= largest:
        return
    sizes = []
    for content in _forms(file):
        if len(content) <= largest:
            file.write_bytes(content)
            return
        sizes.append(len(content))
    raise ValueError(
        f"{file}: {min(sizes):,} bytes with the fewest pixels that stay legible, at most "
        f"{largest:,} are kept: leave it out, or draw fewer panels"
    )


def _forms(file: Path) -> Iterator[bytes]:
    """The figure as PNG, each time smaller and less fine."""
    with Image.open(file) as opened:
        image = Image.new("RGB", opened.size, "white")
        image.paste(opened, mask=opened.convert("RGBA").getchannel("A"))
    for scale in SCALES:
        size = (round(image.width * scale), round(image.height * scale))
        resized = image.resize(size, Image.Resampling.LANCZOS)
        for colours in COLOURS:
            out = io.BytesIO()
            # Not by the median cut, which gives rare colours, the small marks, to their neighbours.
            palette = resized.quantize(
                colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
            )
            palette.save(out, "PNG", optimize=True)
            yield out.getvalue()
