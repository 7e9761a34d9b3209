"""`python -m adapters list | check`."""

import argparse
import sys
from pathlib import Path

from basis_zoo.user_module import load_module


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 1 when a check fails, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="python -m adapters", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the table of forms")
    check = commands.add_parser("check", help="check a form against the contract")
    check.add_argument("form", help="a registered name, or a Python file that registers one")
    check.add_argument("--basis", default="sinc", help="the family of phi; default: sinc")
    args = parser.parse_args(arguments)
    try:
        return _list() if args.command == "list" else _check(args.form, args.basis)
    except (ValueError, FileNotFoundError) as error:
        print(f"adapters {args.command}: {error}", file=sys.stderr)
        return 2


def _list() -> int:
    from adapters.forms import get_form_class, list_forms

    wide = max(map(len, list_forms()))
    for name in list_forms():
        form = get_form_class(name)
        merge = "" if form.mergeable else "  cannot be merged"
        print(f"{name:{wide}}  {form.formula}{merge}")
    return 0


def _check(name_or_file: str, basis: str) -> int:
    from adapters.form_conformance import run_checks
    from adapters.forms import get_form_class, list_forms
    from basis_zoo.conformance import format_outcomes

    names = [name_or_file]
    if name_or_file.endswith(".py"):
        module = load_module(Path(name_or_file))
        names = [n for n in list_forms() if get_form_class(n).__module__ == module.__name__]
        if not names:
            raise ValueError(f"{name_or_file} registers no form: decorate one by @register_form")
    failed = False
    for name in names:
        outcomes = run_checks(name, basis=basis)
        failed |= not all(outcome.passed for outcome in outcomes)
        print(f"{name}: {get_form_class(name).formula}\n{format_outcomes(outcomes)}\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
