"""Run PEFT's own tests with `BasisConfig` in LoRA's place, and count.

    pip install diffusers parameterized
    git clone --branch v0.21.2 https://github.com/huggingface/peft
    python -m tools.peft_tests peft --method lora     # once; rows that are known are not run again
    python -m tools.peft_tests peft --again

The clone must fit the installed PEFT: LoRA's own rows show it. No network is needed: the models
that the tests fetch are made here, tiny and random. What follows is handed to pytest (`-k merge`).
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
    given, options = parser.parse_known_args()
    tests = given.checkout.resolve() / "tests"
    if not (tests / "testing_common.py").exists():
        parser.error(f"{given.checkout} is no checkout of PEFT: it has no tests/testing_common.py")
    file = given.out.resolve()
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
    chosen = [str(tests / f"test_{word}.py") for word in given.files or FILES]
    quiet = ["-c", os.devnull, f"--rootdir={tests.parent}", "-q", "-rN", "--disable-warnings"]
    plugins = ["--tb=short", "-p", "no:xdist", "-p", "no:cacheprovider"]
    rows = Rows(given.method, results, file, given.again)
    pytest.main([*quiet, *plugins, *options, *chosen], plugins=[rows])
    text, failed = report(results.get("lora", {}), results.get("basis", {}))
    sys.stdout.write(text)
    return int(failed > 0)


def report(lora: Mapping[str, Any], basis: Mapping[str, Any]) -> tuple[str, int]:
    """Counts by test file and by what the rows are about, after each row that fails; how many."""
    from tools.peft_tests.rules import cannot, left_out

    counts: dict[tuple[str, str], Counter[str]] = {}
    lines = []
    for name, row in lora.items():
        ours = basis.get(name, {"outcome": "not run", "reason": ""})
        if row["outcome"] != "passed" or left_out(name) or "LoRA's own" in ours["reason"]:
            continue
        why = cannot(name, ours["reason"]) if ours["outcome"] == "failed" else ""
        outcome = "cannot hold" if why else ours["outcome"]
        here = counts.setdefault((name.partition("::")[0], row["kind"]), Counter())
        here.update(["lora", outcome])
        if outcome not in ("passed", "not run"):
            lines.append(f"{outcome} {name}: {f'{why}: ' if why else ''}{ours['reason']}")
    columns = ("lora", "passed", "cannot hold", "failed", "skipped", "not run")
    total = sum(counts.values(), Counter[str]())
    table = [["file", "rows about", "LoRA passes", "ours", *columns[2:]], ["---"] * 8]
    for key, count in [*sorted(counts.items()), (("all", ""), total)]:
        table.append([*key, *(str(count[column]) for column in columns)])
    lines += ["", *(f"| {' | '.join(cells)} |" for cells in table)]
    return "\n".join(lines) + "\n", total["failed"]


if __name__ == "__main__":
    sys.exit(main())
