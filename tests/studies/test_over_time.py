"""Spectra and phis at steps of the training: what they are, that it goes on as without them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refused import refusal

from studies.engine.command import cli
from studies.engine.definition.schema import load_study
from studies.engine.definition.sections import RANK_METRICS
from studies.engine.errors import StudyError
from studies.engine.trials.spectra_file import name_of, read_spectra, saved_steps
from studies.engine.trials.training.snapshots import Snapshots
from studies.engine.trials.trial import run_trial

pytestmark = pytest.mark.slow

BASIS = {
    "method": "basis", "basis": "sinc", "num_basis": 8, "start": "anchored", "dropout": 0.2
}  # fmt: skip
TRAIN = {"schedule": "constant", "warmup_ratio": 0.0, "eval_every": 3}


@pytest.fixture
def trial(make: Any) -> Any:
    """A trial with spectra after some steps; keys of its sections are replaced as by `make`."""

    def build(spectra: Any, **sections: Any) -> Any:
        made = make(**{"adapter": BASIS, "train": TRAIN, **sections})
        after = {} if spectra is None else {"after": {"spectra": spectra}}
        return made.model_copy(update={"config": made.config | after})

    return build


def below(metrics: dict[str, float], prefix: str) -> dict[str, float]:
    """What `metrics` says under `prefix`, by what follows; of the end, not of steps."""
    named = {n.removeprefix(prefix): v for n, v in metrics.items() if n.startswith(prefix)}
    return {name: value for name, value in named.items() if not name.startswith("step_")}


@pytest.mark.parametrize("method", ["basis", "lora", "dora", "dylora", "elalora"])
def test_a_step_has_the_numbers_of_a_training_that_ends_there(
    method: str, trial: Any, tmp_path: Path
) -> None:
    adapter = BASIS if method == "basis" else {"method": method}
    if method == "elalora":
        adapter |= {"interval": 2, "initial_steps": 1, "final_steps": 1}
    whole = run_trial(trial({"steps": [2, 3, 8]}, adapter=adapter), tmp_path / "whole")
    plain = run_trial(trial(None, adapter=adapter), tmp_path / "plain")
    assert plain.metrics == {n: v for n, v in whole.metrics.items() if not n.startswith("after/")}
    assert saved_steps(tmp_path / "whole") == [2, 3, 8]
    assert not (tmp_path / "plain" / name_of(None)).exists()
    last = below(whole.metrics, f"{RANK_METRICS}/step_8/")
    assert last == below(whole.metrics, f"{RANK_METRICS}/") and len(last) > 30
    if method in ("dylora", "elalora"):  # what they do depends on how many steps there are
        return
    short = trial(True, adapter=adapter, train={**TRAIN, "max_steps": 3})
    found = below(run_trial(short, tmp_path / "short").metrics, f"{RANK_METRICS}/")
    assert found == below(whole.metrics, f"{RANK_METRICS}/step_3/")
    assert found["all/stable_rank"] != last["all/stable_rank"]
    ours, theirs = read_spectra(tmp_path / "whole", 3), read_spectra(tmp_path / "short")
    assert ours is not None and theirs is not None
    for one, other in zip(ours.curves, theirs.curves, strict=True):
        assert one.y.equal(other.y) and one.numbers() == other.numbers()


def test_captured_steps_are_copied_too(trial: Any, tmp_path: Path, on_a_gpu: Any) -> None:
    found = run_trial(trial({"steps": [3, 8]}, train={}), tmp_path / "with")
    assert on_a_gpu.made and not any("not captured" in note for note in found.notes)
    plain = run_trial(trial(None, train={}), tmp_path / "without")
    assert plain.metrics == {n: v for n, v in found.metrics.items() if not n.startswith("after/")}
    metrics = found.metrics
    assert below(metrics, f"{RANK_METRICS}/step_8/") == below(metrics, f"{RANK_METRICS}/")
    assert below(metrics, f"{RANK_METRICS}/step_3/") != below(metrics, f"{RANK_METRICS}/")


def test_a_model_is_as_before_once_its_steps_were_looked_at() -> None:
    model = torch.nn.Linear(2, 2)
    snapshots, seen = Snapshots([1, 3]), []
    assert snapshots.wants(1) and not snapshots.wants(2)
    with torch.no_grad():
        for step in (1, 3, 5):
            model.weight.fill_(step)
            if snapshots.wants(step):
                snapshots.take(model, step)
    again = Snapshots([1, 3])
    again.load({str(step): tensors for step, tensors in snapshots.state().items()})
    with pytest.raises(RuntimeError, match="no room"), again.each(model) as steps:
        seen += [(step, float(model.weight[0, 0])) for step in steps]
        raise RuntimeError("no room")
    assert seen == [(1, 1.0), (3, 3.0)] and again.steps == [1, 3]
    assert bool((model.weight == 5).all())


def test_sizes_are_told_from_the_start_on(trial: Any, tmp_path: Path) -> None:
    found = run_trial(trial({"steps": [1]}), tmp_path).metrics
    start = found[f"{RANK_METRICS}/all/amplitude_norm_start"]
    assert start == found[f"{RANK_METRICS}/step_1/all/amplitude_norm_start"]
    for at in ("", "step_1/"):
        now, change = (found[f"{RANK_METRICS}/{at}all/amplitude_norm{e}"] for e in ("", "_change"))
        assert change == pytest.approx(now - start) and change != 0
    inside = read_spectra(tmp_path)
    assert inside is not None
    norms = [float(curve.parameters.amplitude.norm()) for curve in inside.curves]
    assert found[f"{RANK_METRICS}/all/amplitude_norm"] == pytest.approx(np.mean(norms))
    with np.load(tmp_path / name_of(1)) as file:
        assert file["amplitude_0"].shape == file["bandwidth_0"].shape == (8,)


def test_steps_that_a_training_did_not_have_are_named(trial: Any, tmp_path: Path) -> None:
    made = trial({"steps": [2, 4, 9]}, train={**TRAIN, "max_steps": 4})
    result = run_trial(made, tmp_path)
    assert result.failure is None and saved_steps(tmp_path) == [2, 4]
    assert "the training had 4 steps, so there is nothing after 9" in result.notes[0]


STUDY = """\
name: s
question: Which?
backbone: minilm
task: {name: movie_sentences, train_rows: 480}
adapter: {method: basis, basis: sinc, num_basis: 8}
train: {epochs: 2, batch_size: 16}
arms: [{name: phi}, {name: poly, set: {adapter.basis: polynomial}},
       {name: lora, adapter: {method: lora}}]
baseline: lora
objective: {metric: test/accuracy}
after: {spectra: {steps: [20, 60]}}
claims:
  - claim: it grows
    arm: phi
    metric: after/spectra/step_60/all/amplitude_norm
    than: phi
    than_metric: after/spectra/step_20/all/amplitude_norm
    expect: higher
"""


def test_a_study_with_steps_is_planned(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(STUDY)
    assert load_study(path).after.steps == (20, 60)
    assert cli.main([str(path), "--plan", "--runs", str(tmp_path / "runs")]) == cli.DONE


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[20, 60]", "[20, 60, 61]", "s.yaml:11: after.spectra.steps: the training of the arm "
         "'phi' has 60 steps, got 61"),
        ("[20, 60]", "[60, 20]", "expected steps that rise, each once, got 60, 20"),
        ("[20, 60]", "[0]", "after.spectra.steps[0]: expected at least 1, got 0"),
        ("[20, 60]", "[]", "after.spectra.steps: expected at least one value"),
        ("{steps: [20, 60]}", "yes please", "expected true, false or {steps: [...]}"),
        ("steps: [20", "step: [20", "Did you mean 'steps'?"),
        ("epochs: 2", "max_steps: 59", "has 59 steps, got 60"),
        ("{name: movie_sentences, train_rows: 480}\nadapter",
         "movie_sentences\nprofiles: {embedded: {task: {train_rows: 320}}}\nadapter",
         "has 40 steps, got 60"),
        ("step_20", "step_30", "Did you mean 'after/spectra/step_20/all/amplitude_norm' or "),
        ("arm: phi\n", "arm: lora\n", "the trials of the arm 'lora' report no"),
        ("step_60/all/amplitude_norm", "step_60/all/bandwidth_mean_slop", "Did you mean"),
    ],
)  # fmt: skip
def test_what_no_training_can_have_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert message in refusal(tmp_path, STUDY, old, new)


def test_a_claim_on_bandwidths_that_a_family_has_not_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    metric = STUDY.replace("amplitude_norm", "bandwidth_mean")
    path.write_text(metric)
    load_study(path)
    path.write_text(metric.replace("arm: phi", "arm: poly").replace("than: phi", "than: poly"))
    with pytest.raises(StudyError, match="the arm 'poly' report no 'after"):
        load_study(path)


def test_the_report_tells_sizes_and_times(fabricate: Any) -> None:
    fabricate.add("lora", [0.70, 0.72]).add("phi", [0.71, 0.73])
    for i, (trial, result, folder) in enumerate(fabricate.rows):
        more = {f"{RANK_METRICS}/{at}all/stable_rank": rank + trial.seed
                for at, rank in (("step_100/", 2.0), ("step_20/", 1.0), ("", 3.0))}  # fmt: skip
        if trial.arm == "phi":
            named = {"": 0.5, "_start": 0.25, "_change": 0.25, "_slope": 0.125}
            more |= {f"{RANK_METRICS}/all/amplitude_norm{end}": v for end, v in named.items()}
            more[f"{RANK_METRICS}/step_20/all/amplitude_norm"] = 0.375
        metrics = result.metrics | more
        fabricate.rows[i] = (trial, result.model_copy(update={"metrics": metrics}), folder)
    text = fabricate.report().markdown.read_text()
    assert "| phi | all | 0.25 → 0.5 | 0.125 | — → — | — | — → — | — |" in text
    rows = [line for line in text.splitlines() if line.startswith(("| lora | 20 |", "| phi | "))]
    assert "| lora | 20 | 1.5 | — | — | — |" in rows
    assert rows.index("| phi | 20 | 1.5 | — | 0.375 | — |") + 2 == rows.index(
        "| phi | end | 3.5 | — | 0.5 | — |"
    )
