"""Trained adapters on the command line.

python -m studies.trained NAME ARM SEED             # where the adapter is
python -m studies.trained NAME ARM SEED --to FOLDER # a copy, which studies.trained.load takes
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from studies.commands import run
from studies.engine.records import ADAPTER
from studies.trained import copy, find


def main(arguments: Sequence[str] | None = None) -> int:
    """Find an adapter, and copy it where that is asked for; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.trained",
        description="Find or copy what a trial of a study with `keep: adapter` has trained.",
    )
    parser.add_argument("study", metavar="NAME", help="the study's name")
    parser.add_argument("arm", metavar="ARM", help="the arm's name, as in the report")
    parser.add_argument("seed", metavar="SEED", type=int)
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="copy it to this new folder")
    parser.add_argument("--profile", default="embedded", help="default: embedded")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="default: ./runs")
    parser.add_argument("--task", help="one of the study's `tasks`, where it has several")
    parser.add_argument("--key", help="of the trial, where an edited study has several")
    given = parser.parse_args(arguments)

    where = {"profile": given.profile, "runs_dir": given.runs}
    where |= {"task": given.task, "key": given.key}

    def command() -> None:
        folder = find(given.study, given.arm, given.seed, **where)
        print(copy(folder, given.to) if given.to is not None else folder / ADAPTER)

    try:
        return run(command)
    except OSError as error:  # a full disk, a folder that cannot be written
        sys.stderr.write(f"{error.filename or given.to}: {error.strerror or error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
