"""What arms look like inside: kept beside the result, read back whole, drawn in the report."""

from pathlib import Path

import numpy as np
import pytest
import torch

import adapters
from adapters.spectrum import phi_curves, spectra
from studies import backbones
from studies.engine.definition.schema import load_study
from studies.engine.definition.sections import SPECTRA
from studies.engine.planning.plan import plan
from studies.engine.reporting.report import draft
from studies.engine.trials.spectra_file import read_spectra, write_spectra
from studies.engine.trials.trial import run_trial

STUDY = """\
name: s
question: What do they look like inside?
backbone: {{name: {bert}}}
task: {{name: {csv}, train_rows: 64, valid_rows: 40, test_rows: 60}}
adapter: {{method: basis, basis: sinc, num_basis: 8, target_modules: [query, value], r: 3}}
train: {{max_steps: 3}}
seeds: [0]
arms:
  - {{name: lora, adapter: {{method: lora}}}}
  - {{name: phi}}
  - {{name: ia3, adapter: {{method: ia3}}}}
  - {{name: bitfit, adapter: {{method: bitfit}}}}
baseline: lora
objective: {{metric: test/accuracy, select_on: valid/accuracy}}
after: {{spectra: true}}
"""


@pytest.mark.parametrize("method", ["basis", "lora"])
def test_what_is_read_is_what_was_kept(method: str, tiny_bert: Path, tmp_path: Path) -> None:
    model, _ = backbones.load(str(tiny_bert), backbones.Head("text_classes", ("a", "b")))
    model = adapters.attach(model, {"method": method, "r": 3, "target_modules": ["query"]})
    for name, parameter in model.named_parameters():
        if name.endswith("_B.default") or "lora_B" in name:
            torch.nn.init.normal_(parameter)
    write_spectra(model, tmp_path)
    found = read_spectra(tmp_path)
    assert found is not None
    for got, want in zip(found.modules, spectra(model), strict=True):
        assert (got.name, got.kind, got.block, got.shape) == (
            *(want.name, want.kind, want.block, want.shape),
        )
        torch.testing.assert_close(got.values, want.values, rtol=1e-6, atol=1e-6)
        assert got.numbers() == pytest.approx(want.numbers(), rel=1e-5)
    assert len(found.curves) == (2 if method == "basis" else 0)
    for curve, exact in zip(found.curves, phi_curves(model, count=101), strict=False):
        torch.testing.assert_close(curve.y, exact.y, rtol=1e-6, atol=1e-9)
        assert curve.used == exact.used


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_file_that_is_not_whole_is_no_file(tiny_bert: Path, tmp_path: Path, keep: int) -> None:
    assert read_spectra(tmp_path) is None
    model, _ = backbones.load(str(tiny_bert), backbones.Head("text_classes", ("a", "b")))
    write_spectra(adapters.attach(model, {"method": "lora", "target_modules": ["key"]}), tmp_path)
    file = tmp_path / SPECTRA
    whole = file.read_bytes()
    for damaged in (whole[:keep], whole[:60] + b"\xff" * 30 + whole[90:]):
        file.write_bytes(damaged)
        assert read_spectra(tmp_path) is None


@pytest.mark.slow
def test_the_report_draws_them(tiny_bert: Path, tiny_csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(STUDY.format(bert=tiny_bert, csv=tiny_csv))
    study = load_study(path)
    trials = plan(study)
    pairs = [(trial, run_trial(trial, tmp_path / "trials" / trial.key)) for trial in trials]
    assert all(result.status == "done" for _, result in pairs)
    kept = {trial.arm for trial in trials if (tmp_path / "trials" / trial.key / SPECTRA).is_file()}
    assert kept == {"lora", "phi", "ia3"}, "bitfit changes no matrix"
    measured = {
        trial.arm: {name for name in result.metrics if name.startswith("after/")}
        for trial, result in pairs
    }
    names = study.after.names(["accuracy"])
    of_attention = {name for name in names if "/mlp/" not in name}  # query and value alone
    assert measured["phi"] == of_attention and measured["bitfit"] == set()
    of_ranks = {name for name in study.after.names(["accuracy"], phi=False)} & of_attention
    assert measured["lora"] == measured["ia3"] == of_ranks < of_attention
    lora = next(result for trial, result in pairs if trial.arm == "lora")
    assert lora.metrics["after/spectra/all/rank"] <= 3
    report = draft(study, tmp_path / "trials", pairs).write(tmp_path / "report")
    names = {figure.stem for figure in report.figures if figure.suffix == ".png"}
    assert names >= {"stable_rank", "spectra", "utilization", "phi"}
    text = report.markdown.read_text()
    assert "stable_rank.png" in text
    numbers = {name: f"{value:.2f}" for name, value in lora.metrics.items()}
    stable, early, late, effective, rank = (
        numbers[f"after/spectra/attention/{name}"]
        for name in (
            "stable_rank",
            "stable_rank_early",
            "stable_rank_late",
            "effective_rank",
            "rank",
        )
    )
    row = f"| lora | attention | {stable} ± "
    assert row in text
    assert f"| {early} | {late} | {effective} ± " in text[text.index(row) :].splitlines()[0]
    assert f"| {rank} ± " in text[text.index(row) :].splitlines()[0]
    sizes = [
        np.prod(module.shape) for module in read_spectra(tmp_path / "trials" / trials[0].key)[0]
    ]
    assert sizes == [32 * 32] * 4
