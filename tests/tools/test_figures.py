"""Committed figures are small, and stay what they show."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import figures, results_index

COMMITTED = sorted(results_index.RESULTS.rglob("*.png"))


def test_the_committed_results_are_small() -> None:
    sizes = {str(file): file.stat().st_size for file in COMMITTED}
    assert sizes and not {name: n for name, n in sizes.items() if n > figures.LARGEST}
    everything = [file for file in results_index.RESULTS.rglob("*") if file.is_file()]
    assert sum(sizes.values()) < 8_000_000
    with_trials = sum(file.stat().st_size for file in everything)
    assert with_trials < 16_000_000


def test_the_figures_that_reports_show_are_there() -> None:
    shown = {
        str(report.parent / line.split("](")[1].rstrip(")"))
        for report in results_index.RESULTS.rglob("report.md")
        for line in report.read_text().splitlines()
        if line.startswith("![")
    }
    assert shown == set(map(str, COMMITTED))


def _noisy(file: Path, width: int) -> int:
    """Write bars whose colours are blended at random, which PNG packs badly; its bytes."""
    rng = np.random.default_rng(0)
    bars = np.repeat([[200, 30, 30], [30, 160, 60]], width // 2, axis=0)[None]
    pixels = np.clip(bars + rng.integers(-9, 10, (width, width, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).convert("RGBA").save(file)
    return file.stat().st_size


def test_a_large_figure_keeps_its_colours_in_fewer_bytes(tmp_path: Path) -> None:
    file = tmp_path / "bars.png"
    before = _noisy(file, 300)
    figures.shrink(file, before // 4)
    assert file.stat().st_size <= before // 4
    with Image.open(file) as small:
        assert small.mode == "P" and 0.4 * 300 <= small.width == small.height
        pixels = np.asarray(small.convert("RGB"), float)
    middle = pixels.shape[1] // 2
    assert np.allclose(pixels[:, : middle - 2].mean((0, 1)), (200, 30, 30), atol=4)
    assert np.allclose(pixels[:, middle + 2 :].mean((0, 1)), (30, 160, 60), atol=4)


def test_a_few_marks_keep_their_colour(tmp_path: Path) -> None:
    file = tmp_path / "bars.png"
    _noisy(file, 300)
    with Image.open(file) as drawn:
        drawn.paste((0, 90, 200, 255), (10, 10, 13, 13))
        drawn.save(file)
    figures.shrink(file, file.stat().st_size // 3)
    with Image.open(file) as small:
        middle = np.asarray(small.convert("RGB"), float)[round(11 * small.width / 300)]
    blue = middle[round(11 * len(middle) / 300)]
    assert np.allclose(blue, (0, 90, 200), atol=25)


def test_a_small_figure_stays_and_one_that_stays_large_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bars.png"
    before = _noisy(file, 100)
    content = file.read_bytes()
    figures.shrink(file, before)
    assert file.read_bytes() == content
    with pytest.raises(ValueError, match=r"bars\.png: [\d,]+ bytes .* at most 100 are kept"):
        figures.shrink(file, 100)
    assert file.read_bytes() == content
