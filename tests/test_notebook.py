"""The notebook of examples/ runs from its first cell to its last, in a process of its own.

Its cells are executed as one script: a kernel would bring 100 MB of packages for one test. A cell
that begins with `%%writefile NAME` writes that file.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from python_path import environment

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "family_to_figure.ipynb"
WRITES = "%%writefile "
MOST_BYTES = 150_000


def script() -> str:
    """The cells as Python, with three seeds of five; what the last ones show is printed."""
    parts = []
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"]).replace("range(10, 15)", "range(10, 13)")
        if cell["cell_type"] == "code" and source.startswith(WRITES):
            first, _, text = source.partition("\n")
            name = first.removeprefix(WRITES)
            parts.append(f"open({name!r}, 'w').write({text!r})")
        elif cell["cell_type"] == "code":
            parts.append(source)
    shown = (
        "print(found.claims[['verdict', 'n']]); print(found.plot('comparison')._repr_png_()[:4])"
    )
    return "\n".join([*parts, shown])


@pytest.mark.slow
def test_from_a_family_to_a_figure(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script()],
        cwd=tmp_path,
        env=environment(HF_HUB_OFFLINE="1"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "48 passed, 0 failed" in done.stdout
    assert "[9/9] done" in done.stdout and "confirmed" in done.stdout
    assert "b'\\x89PNG'" in done.stdout
    assert (tmp_path / "runs/sparse_matrix/embedded/report/comparison.png").is_file()


def test_it_is_small_and_names_no_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES and '"image/png"' in text
    for place in ("/home/", "/tmp/", "/Users/", "/root/", "sqlite:"):
        assert place not in text
