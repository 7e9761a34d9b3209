"""`--power`: what it plans with, what it shows, and what it refuses; nothing is trained."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from several import MIXED
from statsmodels.stats.power import TTestPower

from studies.engine.command import cli
from studies.engine.command.power_spread import of_results, stated
from studies.engine.definition.schema import load_study
from studies.engine.planning import runs
from studies.engine.planning.plan import plan
from studies.engine.records import Result, Trial, write_record
from studies.engine.verdicts.power import power_of_bound, seeds_needed, seeds_to_bound

STUDY = """\
name: s
question: Which?
adapter: {method: lora}
sweep: {adapter.r: [2, 4, 8]}
arms: [{name: base, set: {adapter.r: 16}}]
baseline: base
objective: {metric: test/accuracy, select_on: valid/accuracy}
seeds: [0, 1, 2, 3, 4]
"""
CLAIMS = """\
claims:
  - {claim: plain, arm: r=2, than: base, expect: higher}
  - {claim: fine, arm: r=2, than: base, expect: lower, resolution: 0.004}
  - {claim: alike, arm: r=4, than: base, expect: within, margin: 0.01}
  - {claim: no worse, arm: r=4, than: base, expect: not_lower, margin: 0.01}
"""
COUNTED = """\
claims:
  - {claim: rare, arm: r=2, metric: collapsed, than: 0.2, expect: lower}
  - {claim: rarer, arm: r=2, metric: collapsed, than: base, expect: lower}
  - {claim: never, arm: r=2, metric: collapsed, than: 0, expect: within, margin: 1.0e-9}
"""
OTHERS = """\
claims:
  - {claim: sum, contrast: {r=2: 1, r=4: 1, base: -2}, expect: higher}
  - {claim: slope, trend: {over: adapter.r}, expect: higher}
  - {claim: gain, arm: r=2, than: base, beyond: {arm: r=4, than: base}, expect: higher}
  - {claim: number, arm: r=2, than: 0.5, expect: higher}
  - {claim: share, arm: r=2, than: base, relative: true, margin: 0.1, expect: higher}
  - {claim: loss, arm: r=2, than: base, metric: test/loss, expect: lower}
  - {claim: size, arm: r=2, than: base, metric: cost/trainable_parameters, expect: lower}
"""
Values = Mapping[str, float]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def finish(
    text: str, value: Callable[[Trial], float], folder: str = "runs", **more: object
) -> list[Trial]:
    """The trials of the study `text`, each with `value` as its accuracy and half of it as loss."""
    Path("s.yaml").write_text(text)
    trials = plan(load_study("s.yaml", settings=[f"{k}={v}" for k, v in more.items()]))
    for trial in trials:
        y = value(trial)
        metrics = {"test/accuracy": y, "test/matthews": y, "test/loss": y / 2}
        write_record(
            runs.trial_dir(trial, Path(folder)) / "result.json",
            Result(key=trial.key, status="done", metrics=metrics),
        )
        write_record(runs.trial_dir(trial, Path(folder)) / "trial.json", trial)
    return trials


def drawn(trial: Trial) -> float:
    """Seeds that all arms share, arms, and what neither tells."""
    name = sum(map(ord, trial.arm + trial.task))
    noise = np.random.default_rng([trial.seed, name]).normal(0, 0.006)
    return 0.7 + 0.01 * trial.seed + noise


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["s.yaml", "--power", *arguments]) == cli.DONE
    return capsys.readouterr().out


def row(text: str, first: str) -> list[str]:
    (line,) = re.findall(rf"^│ *{re.escape(first)} .*$", text, re.MULTILINE)
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_stated_spread_tells_what_seeds_find(capsys) -> None:
    Path("s.yaml").write_text(STUDY + CLAIMS)
    text = told(capsys, "0.006")
    assert "0.006, as stated" in text and "95% interval" not in text
    assert "one-sided at 0.0125: the 5% of all verdicts over 4 claims" in text
    for n, name in ((5, "5 (this study)"), (10, "10"), (160, "160")):
        wanted = TTestPower().solve_power(None, n, 0.0125, 0.8, alternative="larger") * 0.006
        _, found, bound = row(text, name)
        assert float(found) == pytest.approx(wanted, abs=5e-5)
        share = [power_of_bound(n, (float(bound) + d) / 0.006, 0.0125) for d in (-5e-5, 5e-5)]
        assert share[0] <= 0.8 <= share[1]
    assert not Path("runs").exists()


def test_of_collapsed_runs_numbers_of_seeds_are_told_without_a_spread(capsys) -> None:
    Path("s.yaml").write_text(STUDY + COUNTED)
    text = told(capsys, "0.006")
    assert "decided with 19 seeds if none collapses" in row(text, "rare")[1]
    assert stats.binom.cdf(0, 19, 0.2) < 0.05 / 3 < stats.binom.cdf(0, 18, 0.2)
    assert "one arm alone collapses with 6 seeds" in row(text, "rarer")[1]
    assert 0.5**6 < 0.05 / 3 < 0.5**5
    assert "open if none collapses" in row(text, "never")[1]
    assert "over seeds alone" not in text
    assert "over seeds alone: claims that are" in told(capsys, "0.006", "--set", "keep=predictions")


def test_claims_tell_what_they_need(capsys) -> None:
    Path("s.yaml").write_text(STUDY + CLAIMS)
    text = told(capsys, "0.006")
    assert row(text, "plain")[3:] == ["—", "—"]
    bounded, found = seeds_to_bound(4 / 6, 0.0125), seeds_needed(4 / 6, 0.0125)
    assert row(text, "fine")[3:] == [f"bounded with {bounded}", f"confirmed with {found}"]
    _, _, bound, none, some = row(text, "alike")
    assert bound == f"±{row(text, '5 (this study)')[2]}" and some == "—"
    assert none == f"confirmed with {seeds_to_bound(10 / 6, 0.0125)}"
    assert row(text, "no worse")[3] == f"confirmed with {seeds_needed(10 / 6, 0.0125)}"


def test_a_claim_that_a_margin_refutes(capsys) -> None:
    claim = "claims: [{claim: far, arm: r=2, than: base, expect: higher, margin: 0.01}]\n"
    Path("s.yaml").write_text(STUDY + claim)
    text = told(capsys, "0.006")
    assert "over 1 claim (" in text
    assert row(text, "far")[3:] == [f"refuted with {seeds_needed(10 / 6, 0.05)}"]


def test_looks_have_their_share_of_the_level(capsys) -> None:
    growing = "{at_least: 5, at_most: 40, until: decided}"
    Path("s.yaml").write_text(STUDY.replace("[0, 1, 2, 3, 4]", growing) + CLAIMS)
    text = told(capsys, "0.006")
    for n, name, share in ((5, "5", 0.1), (20, "20", 0.3), (40, "40 (at most)", 0.4)):
        wanted = TTestPower().solve_power(None, n, 0.0125 * share, 0.8, alternative="larger")
        assert float(row(text, name)[3]) == pytest.approx(wanted * 0.006, abs=5e-5)
    assert row(text, "80")[3:] == ["", ""]
    at = {n: seeds_to_bound(10 / 6, 0.0125 * w) for n, w in ((5, 0.1), (10, 0.2), (20, 0.3))}
    look = next(n for n, needed in at.items() if needed <= n)
    assert row(text, "alike")[3] == f"confirmed at {look}"
    assert row(text, "fine")[3] == "bounded at 40"
    text = told(capsys, "0.012")
    assert row(text, "fine")[3] == f"bounded with {seeds_to_bound(4 / 12, 0.0125 * 0.4)}"


def test_without_claims_arms_are_compared_with_the_baseline(capsys) -> None:
    Path("s.yaml").write_text(STUDY)
    text = told(capsys, "0.006")
    assert "two-sided at 0.0167, as there are no claims: each arm against base" in text
    wanted = TTestPower().solve_power(None, 20, 0.05 / 3 / 2, 0.8, alternative="larger") * 0.006
    assert float(row(text, "20")[1]) == pytest.approx(wanted, abs=5e-5)
    assert "where nothing differs" not in text


def test_results_give_each_claim_its_own_spread(capsys) -> None:
    trials = finish(STUDY + CLAIMS, drawn)
    y = {(t.arm, t.seed): drawn(t) for t in trials}
    d = {arm: [y[arm, s] - y["base", s] for s in range(5)] for arm in ("r=2", "r=4", "r=8")}
    std = {arm: float(np.std(own, ddof=1)) for arm, own in d.items()}
    whole = np.sqrt(np.mean([s**2 for s in std.values()]))
    text = told(capsys)
    assert (
        f"paired difference: {whole:.3g}, pooled over the differences of 3 arms to base, 5" in text
    )
    freedom = 12**2 / (12 + 6 * 4 / 4)
    low, high = whole * np.sqrt(freedom / stats.chi2.ppf([0.975, 0.025], freedom))
    assert f"95% interval of it: {low:.3g} to {high:.3g}" in text
    low, high = std["r=2"] * np.sqrt(4 / stats.chi2.ppf([0.975, 0.025], 4))
    assert row(text, "plain")[1] == f"{std['r=2']:.3g} [{low:.2g}, {high:.2g}], 5 seeds"
    assert row(text, "alike")[1].startswith(f"{std['r=4']:.3g} [")


def test_a_pilot_has_other_seeds_and_another_folder(capsys) -> None:
    finish(STUDY + CLAIMS, drawn, "pilot", seeds="[100, 101, 102]")
    text = told(capsys, "pilot")
    assert "3 seeds" in text and "in pilot" in text and "5 (this study)" in text
    assert cli.main(["s.yaml", "--power"]) == cli.BAD_INPUT  # nothing in ./runs


def test_with_two_seeds_claims_have_the_pooled_spread(capsys) -> None:
    finish(STUDY + CLAIMS, drawn, seeds="[0, 1]")
    text = told(capsys)
    assert row(text, "plain")[1] == row(text, "alike")[1] and "pooled" in row(text, "plain")[1]


def test_what_was_edited_is_no_pilot(capsys) -> None:
    finish(STUDY + CLAIMS, drawn)
    Path("s.yaml").write_text(STUDY + CLAIMS + "train: {epochs: 7}\n")
    assert cli.main(["s.yaml", "--power"]) == cli.BAD_INPUT


def test_sums_of_arms_have_the_spread_that_their_weights_give() -> None:
    Path("s.yaml").write_text(STUDY + OTHERS)
    found = dict(zip(("sum", "slope", "gain"), stated(load_study("s.yaml"), 0.006).claims[:3],
                     strict=True))  # fmt: skip
    draw = np.random.default_rng(0).normal(0, 0.006 / np.sqrt(2), (200_000, 4))  # 2, 4, 8, 16
    sums = {
        "sum": draw[:, 0] + draw[:, 1] - 2 * draw[:, 3],
        "slope": np.polyfit([2, 4, 8, 16], draw.T, 1)[0],
        "gain": draw[:, 0] - draw[:, 1],
    }
    for name, values in sums.items():
        assert found[name].value == pytest.approx(values.std(), rel=0.01), name


def test_what_a_stated_spread_says_nothing_of(capsys) -> None:
    Path("s.yaml").write_text(STUDY + OTHERS)
    text = told(capsys, "0.006")
    assert "not known: 0.006 is of a difference of arms, not to a number" in row(text, "number")[1]
    assert "not to another arm, as a share" in row(text, "share")[1]
    assert row(text, "loss")[1] == "not known: 0.006 is of test/accuracy"
    assert row(text, "size")[1:] == ["not known: 0.006 is of test/accuracy", "—", "—"]
    finish(STUDY + OTHERS, drawn)
    text = told(capsys)
    own = [row(text, name)[1] for name in ("sum", "slope", "number", "share", "loss")]
    assert all(cell.endswith("5 seeds") for cell in own)
    assert row(text, "size")[1] == "not known: too few results"


def test_several_tasks_have_a_spread_each() -> None:
    names = ("glue_rte", "glue_cola")
    claims = "".join(
        f"  - {{claim: c, arm: low, than: lora, expect: higher{on}}}\n"
        for on in ("", *(f", task: {name}" for name in names))
    )
    text = f"{MIXED}name: s\nseeds: [0, 1, 2, 3]\nclaims:\n{claims}"
    trials = finish(text, drawn)
    study = load_study("s.yaml")
    y = {(t.task, t.arm, t.seed): drawn(t) for t in trials}
    d = {n: [y[n, "low", s] - y[n, "lora", s] for s in range(4)] for n in names}
    d = {"": np.mean(list(d.values()), axis=0), **d}
    wanted = [float(np.std(own, ddof=1)) for own in d.values()]
    found = of_results(study, trials, Path("runs"))
    assert [spread.value for spread in found.claims] == pytest.approx(wanted)
    assert found.whole.value == pytest.approx(wanted[0])
    assert "mean over tasks" in stated(study, 0.006).claims[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("0", "expected a finite number above 0, got 0"),
        ("-1", "expected a finite number above 0, got -1"),
        ("-0.006", "expected a finite number above 0"),
        ("nan", "expected a finite number above 0, got nan"),
        ("inf", "expected a finite number above 0"),
        ("nonsense", "a folder of runs, got 'nonsense'; the study stands before --power"),
        ("0,006", "expected a number above 0"),
        ("", "expected a number above 0"),
        ("s.yaml", "expected a number above 0"),
    ],
)
def test_what_is_no_spread_is_refused(given: str, message: str, capsys) -> None:
    Path("s.yaml").write_text(STUDY)
    with pytest.raises(SystemExit) as caught:
        cli.main(["s.yaml", "--power", given])
    assert caught.value.code == cli.BAD_INPUT
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("mode", ["--plan", "--report", "--export-plan=x", "--import=x"])
def test_power_is_a_mode_of_its_own(mode: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["s.yaml", "--power", "0.006", mode])
    assert caught.value.code == cli.BAD_INPUT
    assert "not allowed with" in capsys.readouterr().err


def test_results_that_tell_no_spread_are_refused_with_the_remedy(capsys) -> None:
    Path("s.yaml").write_text(STUDY)
    assert cli.main(["s.yaml", "--power"]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert "no two seeds that an arm and the baseline base have both finished" in error
    assert "--power 0.006" in error and "--set 'seeds=[5, 6, 7, 8, 9]' --runs pilot" in error
    finish(STUDY, drawn, seeds="[0]")
    assert cli.main(["s.yaml", "--power"]) == cli.BAD_INPUT
    assert "no two seeds" in capsys.readouterr().err
    finish(STUDY, lambda trial: 0.5 + 0.125 * trial.seed)
    assert cli.main(["s.yaml", "--power"]) == cli.BAD_INPUT
    assert "is the same for every seed" in capsys.readouterr().err


@pytest.mark.parametrize("spread", ["1e-300", "1e300"])
def test_spreads_beyond_reason_end_well(spread: str, capsys) -> None:
    Path("s.yaml").write_text(STUDY + CLAIMS)
    text = told(capsys, spread)
    needed = "bounded with 3" if spread == "1e-300" else "more than 100,000"
    assert row(text, "fine")[3].startswith(needed[:12])
