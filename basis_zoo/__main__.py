"""`python -m basis_zoo list | check | gallery | accuracy`."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basis_zoo.user_module import load_module

if TYPE_CHECKING:  # torch is imported by what a command needs it for: `--help` answers at once
    from basis_zoo.basis import Basis


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 1 when a check fails, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="python -m basis_zoo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the table of families, grids and starts")
    check = commands.add_parser("check", help="check a family against the contract and its claims")
    check.add_argument("family", help="a registered name, or a Python file that registers one")
    check.add_argument("--uniform-only", action="store_true", help="leave other grids out")
    gallery = commands.add_parser("gallery", help="one page with every family, to look at")
    gallery.add_argument("family", nargs="?", help="this one alone: a registered name, or a Python "
                         "file that registers one or several")  # fmt: skip
    gallery.add_argument("--out", type=Path, help="folder of the page; default: a temporary one")
    gallery.add_argument(
        "--mosaic",
        type=Path,
        metavar="FILE",
        help="write one picture of all families; the page only with --out",
    )
    accuracy = commands.add_parser("accuracy", help="errors against numpy and scipy, as Markdown")
    accuracy.add_argument("--out", type=Path, help="file to write; without it, printed")
    args = parser.parse_args(arguments)
    try:
        return _COMMANDS[args.command](args)
    except (ValueError, FileNotFoundError) as error:
        print(f"basis_zoo {args.command}: {error}", file=sys.stderr)
        return 2


def _list(args: argparse.Namespace) -> int:
    from basis_zoo.listing import format_table

    print(format_table())
    return 0


def _check(args: argparse.Namespace) -> int:
    from basis_zoo.conformance import format_outcomes, run_checks, undeclared

    failed = False
    for basis in _families(args.family):
        outcomes = run_checks(basis, all_grids=not args.uniform_only)
        failed |= not all(o.passed for o in outcomes)
        print(f"{basis}\n{format_outcomes(outcomes)}")
        missing = undeclared(basis)
        print(f"not declared, so not checked: {', '.join(missing)}\n" if missing else "")
    return int(failed)


def _families(name_or_file: str) -> "list[Basis]":
    """Every variant of the family, or of all families that the file registers."""
    from basis_zoo.basis import get_basis_class

    classes = [get_basis_class(name) for name in _names(name_or_file)]
    return [_variant(cls, options) for cls in classes for options in cls.variants]


def _names(name_or_file: str) -> list[str]:
    """The family's name, or those of all families that the file registers."""
    from basis_zoo.basis import get_basis_class, list_bases

    if not name_or_file.endswith(".py"):
        get_basis_class(name_or_file)  # refuses an unknown one
        return [name_or_file]
    module = load_module(Path(name_or_file))
    names = [n for n in list_bases() if get_basis_class(n).__module__ == module.__name__]
    if not names:
        raise ValueError(f"{name_or_file} registers no family: use @register_basis")
    return names


def _variant(cls: "type[Basis]", options: dict[str, Any]) -> "Basis":
    try:
        return cls(**options)
    except TypeError as error:  # a method that every family must have is missing
        raise ValueError(f"{cls.__qualname__} cannot be made: {error}") from error


def _gallery(args: argparse.Namespace) -> int:
    from basis_zoo.gallery import write_gallery, write_mosaic  # needs matplotlib

    names = None if args.family is None else _names(args.family)
    if args.mosaic:
        print(write_mosaic(args.mosaic))
    if args.out or not args.mosaic:
        folder = args.out or Path(tempfile.mkdtemp(prefix="basis-zoo-gallery-"))
        print(write_gallery(folder, names, lambda text: print(text, file=sys.stderr, flush=True)))
    return 0


def _accuracy(args: argparse.Namespace) -> int:
    from basis_zoo.accuracy import accuracy_page  # needs scipy

    page = accuracy_page()
    if args.out:
        args.out.write_text(page)
        print(args.out)
    else:
        print(page)
    return 0


_COMMANDS = {"list": _list, "check": _check, "gallery": _gallery, "accuracy": _accuracy}

if __name__ == "__main__":
    sys.exit(main())
