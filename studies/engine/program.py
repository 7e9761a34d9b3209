"""How this program was started: a message tells one to run what was run."""

import os
import sys
from pathlib import Path


def program() -> str:
    """`python run_study.py`, `basis-zoo-study` or `python -m studies`."""
    name = Path(sys.argv[0]).name
    if name == "run_study.py":
        return f"python {os.path.relpath(sys.argv[0])}"
    return name if name.startswith("basis-zoo-study") else "python -m studies"
