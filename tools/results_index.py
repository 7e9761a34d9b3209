"""The index of committed results: every study with its verdicts, made from report.json alone.

    python -m tools.results_index                  # write results/INDEX.md anew
    python -m tools.results_index --add runs       # first copy the reports below `runs`

A committed result is the folder `results/<study>/<profile>/` with report.md, report.json, its
figures as small PNG files, and trials.tar.xz, which says what each trial was and found and which
`run_study.py --import` takes; no checkpoints, no logs.
"""

import argparse
import json
import shutil
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.engine.labels import duration
from tools import figures
from tools.pages import table_row

RESULTS = Path(__file__).resolve().parents[1] / "results"
WORDS = ("confirmed", "refuted", "bounded", "not decided")
COUNTS = ("arms × seeds", "done", "failed", *WORDS, "decided", "time")
COPIED_FILES = ("report.md", "report.json", "*.png")
TRIALS = "trials.tar.xz"
"""What the trials of a report were and found, so that the study can go on from there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the index; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.results_index",
        description="Write the index of committed results.",
    )
    parser.add_argument("--add", type=Path, metavar="RUNS", help="copy the reports of a run folder")
    parser.add_argument("--results", type=Path, default=RESULTS, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.add is not None:
        added = add_reports(args.add, args.results)
        if not added:
            sys.stderr.write(f"{args.add}: no STUDY/PROFILE/report/report.json below it\n")
            return 2
        sys.stdout.write("".join(f"added {folder}\n" for folder in added))
    reports = read_reports(args.results)
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "INDEX.md").write_text(index(reports, args.results), encoding="utf-8")
    sys.stdout.write(f"{args.results / 'INDEX.md'}: {len(reports)} reports\n")
    return 0


def add_reports(runs_dir: Path, results: Path) -> list[Path]:
    """Copy each report of `runs_dir` to `results`, in place of an earlier one."""
    added = []
    for source in sorted(runs_dir.glob("*/*/report/report.json")):
        target = results / source.parts[-4] / source.parts[-3]
        staged = target.with_name(f".{target.name}")  # what was there stays until this is whole
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        for pattern in COPIED_FILES:
            for file in sorted(source.parent.glob(pattern)):
                copied = Path(shutil.copyfile(file, staged / file.name))
                if copied.suffix == ".png":
                    _shrink(copied, staged / "report.md")
        pack_trials(source.parents[1], staged / TRIALS)
        shutil.rmtree(target, ignore_errors=True)
        staged.rename(target)
        added.append(target)
    return added


def _shrink(figure: Path, report: Path) -> None:
    """Make `figure` small; one that stays too large is left out of `report`, and said to be."""
    try:
        figures.shrink(figure)
    except ValueError as error:
        figure.unlink()
        shown, instead = (
            f"![{figure.name}]({figure.name})",
            f"({figure.name} is left out: too large)",
        )
        text = report.read_text(encoding="utf-8").replace(shown, instead)
        report.write_text(text, encoding="utf-8")
        sys.stderr.write(f"left out: {error}\n")


def pack_trials(study_runs: Path, archive: Path) -> None:
    """Write trial.json and result.json of each finished trial; the same trials give the same bytes.

    Args:
        study_runs: RUNS/STUDY/PROFILE.
        archive: What is written.
    """
    with tarfile.open(archive, "w:xz") as packed:
        for result in sorted(study_runs.glob("**/trials/*/result.json")):
            for file in (result.with_name("trial.json"), result):
                entry = tarfile.TarInfo(file.relative_to(study_runs).as_posix())
                entry.size = file.stat().st_size
                with file.open("rb") as content:
                    packed.addfile(entry, content)


def read_reports(results: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Folder relative to `results` and content of each report, by study and profile.

    Claims of arms that have no trial are under `untested` and not under `claims`.

    Raises:
        ValueError: a report.json is not JSON; the message names it.
    """
    reports = []
    for file in sorted(results.glob("*/*/report.json")):
        try:
            report = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is no report: {error}") from error
        known = {arm["arm"] for arm in report.get("arms", ())}
        untested = [c for c in report["claims"] if not known.issuperset(c.get("arms", ()))]
        tested = [claim for claim in report["claims"] if claim not in untested]
        report |= {"claims": tested, "untested": untested}
        reports.append((file.parent.relative_to(results).as_posix(), report))
    return reports


def time_of_trials(archive: Path) -> tuple[float, int]:
    """Seconds that the trials of `archive` took, added up, and how many ran at once at most."""
    seconds, at_once = 0.0, 1
    with tarfile.open(archive) as packed:
        for entry in packed:
            content = packed.extractfile(entry) if entry.name.endswith("result.json") else None
            if content is not None:
                result = json.load(content)
                seconds += result["seconds"]
                at_once = max(at_once, result["environment"].get("trials_at_once") or 1)
    return seconds, at_once


def index(reports: Sequence[tuple[str, Mapping[str, Any]]], results: Path = RESULTS) -> str:
    """The index of `reports`, whose folders are in `results`, as Markdown."""
    lines = [
        "# Results",
        "",
        "Made by `python -m tools.results_index` from the reports in this folder; not "
        "to be edited by hand. Each study is repeated by "
        "`python run_study.py studies/STUDY.yaml --profile PROFILE`. Its time is that of all its "
        "trials, of tuning too, added up, and how many of them ran at once on one or two GPUs. "
        "Of older reports it is not known.",
        "",
        *_shares(reports),
        "",
        table_row(["study", "question", *COUNTS]),
        f"| --- | --- |{' ---: |' * len(COUNTS)}",
    ]
    for folder, report in reports:
        words = [claim["word"] for claim in report["claims"]]
        seeds = max((len(arm["seeds"]) for arm in report["arms"]), default=0)
        size = f"{len(report['arms'])} × {seeds}"
        tables, tasks = [report], report.get("tasks", {})
        if tasks and not any(arm["keys"] for arm in report["arms"]):  # means, which no trial has
            size, tables = f"{size} × {len(tasks)}", list(tasks.values())
        count = sum(len(arm["seeds"]) for each in tables for arm in each["arms"])
        counts = [words.count(word) for word in WORDS]
        decided = f"{sum(counts[:-1])} of {sum(counts)}"
        time, archive = "—", results / folder / TRIALS
        if archive.is_file():
            seconds, at_once = time_of_trials(archive)
            time = f"{duration(seconds)}, {at_once} at once"
        name = f"[{report['study']} ({report['profile']})]({folder}/report.md)"
        cells = [name, report["question"], size, str(count),
                  str(len(report["failed"])), *map(str, counts), decided, time]  # fmt: skip
        lines.append(table_row(cells))
    for folder, report in reports:
        lines += ["", f"## [{report['study']} ({report['profile']})]({folder}/report.md)", ""]
        lines += [f"{report['question']}", "", *_verdicts(report), *_facts(report)]
    return "\n".join(lines) + "\n"


def _shares(reports: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """How many claims are decided, on GPUs and on CPUs."""
    lines = []
    for where, on_cpu in (("On GPUs", False), ("On CPU cores", True)):
        words = [
            claim["word"]
            for _, report in reports
            if all(str(each.get("device")).startswith("cpu") for each in report["environments"])
            == on_cpu
            for claim in report["claims"]
        ]
        if words:
            decided = len(words) - words.count("not decided")
            share = f"{decided} of {len(words)} claims are decided ({decided / len(words):.0%})"
            lines.append(f"- {where} {share}.")
    return lines


def _verdicts(report: Mapping[str, Any]) -> list[str]:
    lines = [f"- **{c['word']}**: {c['claim']} — {_interval(c)}" for c in report["claims"]]
    lines += [f"- not tested: {c['claim']} — {c['note']}" for c in report.get("untested", ())]
    lines = lines or ["- no claim was written before the run"]
    if report.get("claims_changed"):
        lines.append("- the claims were changed after results were there")
    if report.get("looks_changed"):
        lines.append("- the looks at the claims were changed after results were there")
    if seeds := report.get("seeds_added"):
        lines.append(f"- seeds added after results were there: {', '.join(map(str, seeds))}")
    if count := report.get("published_known"):
        out = len(report["published_left_out"])
        lines.append(f"- paper's difference outside our 95 % interval: {out} of {count} arms")
    return lines


def difference(claim: Mapping[str, Any]) -> str:
    """The number that a claim is about, with its interval, or why there is none."""
    if claim["low"] is None:
        return str(claim["note"])
    of = "median " if claim.get("statistic") == "median" else ""
    return f"{of}{claim['difference']:+z.4f} [{claim['low']:+z.4f}, {claim['high']:+z.4f}]"


def _interval(claim: Mapping[str, Any]) -> str:
    sentence = difference(claim)
    if claim["low"] is not None:
        sentence += f" at {claim['level']:.1%}, {claim['n']} seeds"
    return "; ".join(filter(None, (sentence, claim.get("finding"))))


def _facts(report: Mapping[str, Any]) -> list[str]:
    sources = sorted({str(data["source"]) for data in report["data"] if "source" in data})
    devices = sorted({str(each.get("device")) for each in report["environments"]})
    commits = sorted({str(each["commit"])[:12] for each in report["environments"]
                      if each.get("commit")})  # fmt: skip
    facts = {"data": sources, "device": devices, "commit": commits}
    return [f"- {name}: {', '.join(values)}" for name, values in facts.items() if values]


if __name__ == "__main__":
    sys.exit(main())
