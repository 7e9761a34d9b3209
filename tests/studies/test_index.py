"""The index of results: what it copies, and that it says what the reports say."""

import json
from pathlib import Path

import pytest
from PIL import Image

from studies.engine.command.importing import import_results, opened
from studies.engine.definition.study import ClaimRule
from studies.engine.planning import runs
from tools import figures
from tools import results_index as index


@pytest.fixture
def runs_dir(grid_study) -> Path:
    grid_study.study.claims = (
        ClaimRule(claim="it fails | surely", arm="paper-start", than="lora", expect="lower"),
        ClaimRule(claim="it wins", arm="paper-start", than="lora", expect="higher"),
        ClaimRule(claim="no seed", arm="absent", than="lora", expect="higher"),
    )
    grid_study.report()
    return grid_study.runs_dir


@pytest.mark.slow
def test_reports_are_copied_without_anything_else_and_indexed(runs_dir: Path, tmp_path) -> None:
    results = tmp_path / "results"
    arguments = ["--add", str(runs_dir), "--results", str(results)]
    assert index.main(arguments) == 0
    folder = results / "grid_size" / "embedded"
    names = {path.name for path in folder.iterdir()}
    figures_of_all = {"comparison.png", "learning.png"}
    assert names == {"report.md", "report.json", "trials.tar.xz", *figures_of_all}
    text = (results / "INDEX.md").read_text()
    link = "[grid_size (embedded)](grid_size/embedded/report.md)"
    counts = "5 × 3 | 14 | 1 | 1 | 1 | 0 | 0 | 2 of 2"
    assert f"| {link} | Does the number of basis functions matter? | {counts} |" in text
    [verdict] = [line for line in text.splitlines() if line.startswith("- **confirmed**")]
    claim = json.loads((folder / "report.json").read_text())["claims"][0]
    assert f"{claim['difference']:+.4f} [{claim['low']:+.4f}, {claim['high']:+.4f}]" in verdict
    assert "- not tested: no seed — no interval: no finished seed in common" in text
    found = json.loads((folder / "report.json").read_text())
    found["claims"][2]["finding"] = "open at 3 of at most 6 seeds"
    told = index.index([("f", found)])
    assert "no seed — no interval: no finished seed in common; open at 3 of at most 6 seeds" in told
    (folder / "stale.png").write_text("")
    assert index.main(arguments) == 0
    assert not (folder / "stale.png").exists() and (results / "INDEX.md").read_text() == text


@pytest.mark.slow
def test_what_was_there_stays_where_trials_cannot_be_packed(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "grid_size" / "embedded"
    folder.mkdir(parents=True)
    (folder / "report.md").write_text("earlier")

    def full(*_: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(index, "pack_trials", full)
    with pytest.raises(OSError, match="No space"):
        index.main(["--add", str(runs_dir), "--results", str(tmp_path)])
    assert (folder / "report.md").read_text() == "earlier"


def test_a_difference_of_nothing_has_no_minus() -> None:
    claim = {"low": -0.00001, "difference": -0.00002, "high": 0.1}
    assert index.difference(claim) == "+0.0000 [+0.0000, +0.1000]"


@pytest.mark.slow
def test_a_study_goes_on_from_the_trials_beside_its_report(
    runs_dir: Path, grid_study, tmp_path: Path
) -> None:
    assert index.main(["--add", str(runs_dir), "--results", str(tmp_path)]) == 0
    archive = tmp_path / "grid_size" / "embedded" / index.TRIALS
    before = archive.read_bytes()
    every = [result for _, result in grid_study.pairs if result is not None]
    assert index.time_of_trials(archive) == (pytest.approx(sum(r.seconds for r in every)), 1)
    assert index.main(["--add", str(runs_dir), "--results", str(tmp_path)]) == 0
    assert archive.read_bytes() == before
    trials = [trial for trial, _ in grid_study.pairs]
    with opened(archive) as folder:
        found = import_results(grid_study.study, trials, folder, tmp_path / "anew")
    assert found.refused == found.strangers == []
    for trial, result in grid_study.pairs:
        if result is not None:
            assert runs.result_of(trial, tmp_path / "anew") == result


@pytest.mark.slow
def test_figures_are_copied_small(runs_dir: Path, tmp_path: Path) -> None:
    drawn = runs_dir / "grid_size" / "embedded" / "report" / "learning.png"
    Image.effect_noise((400, 400), 60).save(drawn)
    before = drawn.stat().st_size
    assert before > figures.LARGEST
    assert index.main(["--add", str(runs_dir), "--results", str(tmp_path)]) == 0
    copy = tmp_path / "grid_size" / "embedded" / "learning.png"
    assert copy.stat().st_size <= figures.LARGEST and drawn.stat().st_size == before


@pytest.mark.slow
def test_a_figure_that_stays_too_large_is_left_out_with_a_word(
    runs_dir: Path, tmp_path: Path, capsys
) -> None:
    drawn = runs_dir / "grid_size" / "embedded" / "report" / "learning.png"
    Image.effect_noise((2000, 2000), 60).save(drawn)
    assert index.main(["--add", str(runs_dir), "--results", str(tmp_path)]) == 0
    folder = tmp_path / "grid_size" / "embedded"
    text = (folder / "report.md").read_text()
    assert not (folder / "learning.png").exists() and "![learning.png]" not in text
    assert "learning.png is left out" in text and "![comparison.png]" in text
    assert "left out" in capsys.readouterr().err


def test_a_folder_without_reports_is_refused(tmp_path: Path, capsys) -> None:
    assert index.main(["--add", str(tmp_path), "--results", str(tmp_path / "r")]) == 2
    assert "no STUDY/PROFILE/report/report.json" in capsys.readouterr().err


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s" / "embedded" / "report.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"s/embedded/report\.json is no report"):
        index.read_reports(tmp_path)


def test_the_committed_index_is_the_one_of_the_committed_reports() -> None:
    if not index.RESULTS.is_dir():
        pytest.skip("no results are committed")
    text = (index.RESULTS / "INDEX.md").read_text(encoding="utf-8")
    assert text == index.index(index.read_reports(index.RESULTS))


def test_trials_of_several_tasks_are_counted() -> None:
    report = json.loads((index.RESULTS / "approximation/embedded/report.json").read_text())
    text = index.index([("approximation/embedded", report)])
    assert "| 9 × 5 × 5 | 225 | 0 |" in text
    assert "- On CPU cores 10 of 10 claims are decided (100%).\n" in text and "GPUs 1" not in text


def test_a_claim_about_a_median_says_so() -> None:
    report = json.loads((index.RESULTS / "typical_run/gpu/report.json").read_text())
    verdicts = [line for line in index.index([("f", report)]).splitlines() if " at 99." in line]
    assert verdicts and all(
        (" — median " in line) == (claim["statistic"] == "median")
        for line, claim in zip(verdicts, report["claims"], strict=True)
    )
