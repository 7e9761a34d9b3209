"""Tools read their command lines by argparse: without it `--help` is a file to write."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = [*(ROOT / "tools").glob("*.py"), *(ROOT / "bench").glob("*.py")]


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_a_tool_does_not_read_its_arguments_by_itself(path: Path) -> None:
    assert "sys.argv" not in path.read_text(encoding="utf-8")
