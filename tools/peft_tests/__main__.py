"""Run PEFT's own tests with `BasisConfig` in LoRA's place, and count.

    pip install diffusers parameterized
    git clone --branch v0.21.2 https://github.com/huggingface/peft
    python -m tools.peft_tests peft --method lora     # once; rows that are known are not run again
    python -m tools.peft_tests peft --again

The clone must fit the installed PEFT: LoRA's own rows show it. No network is needed: the models
that the tests fetch are made here, tiny and random. What follows is handed to pytest (`-k merge`).
What came out is in docs/peft_tests.md.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def main() -> int:
    """Run and count; 0 if no row fails that LoRA passes and that can hold for us."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.peft_tests",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkout", type=Path, help="PEFT's repository, of the version installed")
    parser.add_argument("--method", choices=("lora", "basis"), default="basis")
    parser.add_argument("--out", type=Path, default=Path("peft_tests.json"), help="the results")
    parser.add_argument("--again", action="store_true", help="run rows that are known, too")
    parser.add_argument("--files", nargs="+", metavar="WORD", help="such as custom_models, config")
    args, options = parser.parse_known_args()
    tests = args.checkout.resolve() / "tests"
    if not (tests / "testing_common.py").exists():
        parser.error(f"{args.checkout} is no checkout of PEFT: it has no tests/testing_common.py")
    file = args.out.resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    os.environ |= {"HF_HOME": str(file.parent / "hub"), "HF_HUB_OFFLINE": "1"}

    import pytest  # these read the environment
    import torch

    from tools.peft_tests.models import make_cache
    from tools.peft_tests.plugin import Rows
    from tools.peft_tests.rules import FILES

    torch.set_num_threads(1)
    make_cache(file.parent / "hub" / "hub")
    chosen = [str(tests / f"test_{word}.py") for word in args.files or FILES]
    quiet = ["-c", os.devnull, f"--rootdir={tests.parent}", "-q", "-rN", "--disable-warnings"]
    plugins = ["--tb=short", "-p", "no:xdist", "-p", "no:cacheprovider"]
    rows = Rows(args.method, results, file, args.again)
    pytest.main([*quiet, *plugins, *options, *chosen], plugins=[rows])
    text, failed = report(results.get("lora", {}), results.get("basis", {}))
    sys.stdout.write(text)
    return int(failed > 0)


COLUMNS = ("LoRA passes", "count", "passed", "names", "cannot hold", "failed", "skipped", "not run")
"""Rows that count say something about other methods than LoRA too."""


def report(lora: Mapping[str, Any], basis: Mapping[str, Any]) -> tuple[str, int]:
    """Each row that fails, then counts by file and by reason, and shares; how many failed."""
    from studies.engine.reporting.tables import table
    from tools.peft_tests.rules import cannot, exclusion_reason

    counts: dict[str, Counter[str]] = {}
    reasons: Counter[tuple[str, str]] = Counter()
    lines = []
    for name in (name for name, row in lora.items() if row["outcome"] == "passed"):
        ours = basis.get(name, {"outcome": "not run", "reason": ""})
        here = counts.setdefault(name.partition("::")[0].removeprefix("tests/"), Counter())
        here["LoRA passes"] += 1
        if exclusion_reason(name) or "LoRA's own" in ours["reason"]:
            continue
        outcome, why = ours["outcome"], ""
        if outcome == "failed":
            outcome, why = cannot(name, ours["reason"]) or ("failed", "")
        here.update(["count", outcome])
        if why:
            reasons[outcome, why] += 1
        elif outcome not in ("passed", "not run"):
            lines.append(f"{outcome} {name}: {ours['reason']}")
    total = sum(counts.values(), Counter[str]())
    counts = dict(sorted(counts.items())) | {"all": total}
    rows = [[file, *(str(here[column]) for column in COLUMNS)] for file, here in counts.items()]
    named = [[*key, str(n)] for key, n in sorted(reasons.items())]
    lines += ["", table(["file", *COLUMNS], rows), ""]
    lines += ["", table(["", "reason", "rows"], named), ""]
    for what, names in (("the rows that count", 0), ("those, without names", total["names"])):
        out_of = total["count"] - names
        share = 100 * total["passed"] / max(out_of, 1)
        lines.append(f"{total['passed']} of {out_of} ({what}): {share:.1f} %")
    return "\n".join(lines) + "\n", total["failed"]


if __name__ == "__main__":
    sys.exit(main())
