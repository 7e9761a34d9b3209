"""A matrix as a task: targets by their spectra, LoRA's optimum, and what is refused."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import save_file

import adapters
from studies import backbones, tasks
from studies.engine.definition import checks
from studies.engine.definition.schema import load_study
from studies.engine.definition.study import Study
from studies.engine.definition.train import Train
from studies.engine.errors import StudyError
from studies.engine.planning.plan import plan
from studies.engine.records import Result, Trial
from studies.engine.trials import keeping
from studies.engine.trials.training.schedule import unreached
from studies.engine.trials.trial import run_trial

pytestmark = pytest.mark.slow

SHAPE = (14, 10)
DRAWN = ["decaying", "flat", "high_frequency", "low_frequency", "low_rank", "random", "sparse"]


def target(name: str, seed: int = 0, **options: Any) -> np.ndarray:
    """The matrix of a seed, float64."""
    data = tasks.load({"name": f"matrix_{name}", "shape": list(SHAPE), **options}, seed)
    (row,) = data.splits["test"]
    assert all(data.splits[split] == (row,) for split in ("train", "valid"))
    return np.frombuffer(row.values, np.float32).reshape(row.shape).astype(float)


def trial(adapter: dict[str, Any], task: str = "random", seed: int = 3, **more: Any) -> Trial:
    train = {"epochs": 400.0, "learning_rate": 0.1, "max_grad_norm": None}
    config = {
        "backbone": {"name": more.pop("backbone", "zero_matrix")},
        "task": {"name": f"matrix_{task}", "shape": list(SHAPE)},
        "adapter": {"target_modules": "all", **adapter},
        "train": train | more.pop("train", {}),
        "split_seed": 0,
        **more,
    }
    kept = config.pop("keep", None)
    return Trial(study="s", profile="p", arm="a", seed=seed, config=config, keep=kept)


def done(given: Trial, folder: Path) -> Result:
    result = run_trial(given, folder)
    assert result.status == "done", result.failure
    return result


@pytest.mark.parametrize("name", DRAWN)
def test_targets_are_drawn_by_the_seed_and_as_large_as_asked(name: str) -> None:
    values = target(name)
    assert values.shape == SHAPE and np.mean(values**2) == pytest.approx(1, rel=1e-5)
    assert np.array_equal(values, target(name)) and not np.allclose(values, target(name, 1))
    np.testing.assert_allclose(target(name, scale=0.02), 0.02 * values, rtol=1e-5)


def test_a_result_describes_what_is_drawn_and_not_each_draw() -> None:
    def described(seed: int, **options: Any) -> dict[str, Any]:
        return tasks.describe(tasks.load({"name": "matrix_sparse", **options}, seed))

    assert described(0) == described(1) and "majority" not in described(0)
    assert described(0)["source"].endswith("; 64 x 64, scale 1, density 0.1")
    assert described(0)["hash"] != described(0, density=0.2)["hash"]


def test_spectra_are_what_the_names_say() -> None:
    flat, decaying = (scipy.linalg.svdvals(target(n)) for n in ("flat", "decaying"))
    np.testing.assert_allclose(flat, flat[0], rtol=1e-5)
    np.testing.assert_allclose(decaying / decaying[0], 1 / np.arange(1, 11), rtol=1e-4)
    steep = scipy.linalg.svdvals(target("decaying", decay=2.0))
    np.testing.assert_allclose(steep / steep[0], 1 / np.arange(1, 11) ** 2, rtol=1e-3)
    pure = scipy.linalg.svdvals(target("low_rank", rank=4, noise=0.0))
    assert pure[3] > 0.99 * pure[0] and pure[4] < 1e-5 * pure[0]
    noisy = scipy.linalg.svdvals(target("low_rank", rank=4, noise=0.2))
    assert 0.03 < (noisy[4:] ** 2).sum() / (noisy**2).sum() < 0.2
    assert np.count_nonzero(target("sparse", density=0.25)) == 35


@pytest.mark.parametrize(("name", "low", "high"), [("high", 1 / 4, 1 / 2), ("low", 0, 1 / 16)])
def test_waves_have_their_power_in_their_band(name: str, low: float, high: float) -> None:
    data = tasks.load({"name": f"matrix_{name}_frequency", "shape": [20, 256]}, 0)
    rows = np.frombuffer(data.splits["train"][0].values, np.float32).reshape(20, 256)
    power = np.abs(np.fft.rfft(rows * np.hanning(256), axis=1)) ** 2
    frequency = np.fft.rfftfreq(256)
    inside = (frequency > low - 0.01) & (frequency < high + 0.01)
    assert power[:, inside].sum() > 0.999 * power.sum()


@pytest.mark.parametrize("rank", [1, 3, 10])
def test_lora_comes_to_the_svd_and_not_beyond(rank: int, tmp_path: Path) -> None:
    adapter = {"method": "lora", "r": rank, "alpha": rank}
    metrics = done(trial(adapter), tmp_path).metrics
    s = scipy.linalg.svdvals(target("random", 3))
    bound = (s[rank:] ** 2).sum() / (s**2).sum()
    assert metrics["test/svd_bound"] == pytest.approx(bound, abs=1e-6)
    assert bound - 1e-6 <= metrics["test/error"] <= bound + 1e-3
    assert metrics["valid/error"] == metrics["test/error"]
    assert metrics["test/explained"] == 1 - metrics["test/error"]
    assert metrics["test/effective_rank"] <= rank + 1e-6
    p = s / s.sum()
    assert metrics["test/target_effective_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    assert metrics["test/target_stable_rank"] == pytest.approx((s**2).sum() / s[0] ** 2)


def test_the_metrics_are_those_of_the_weight_that_is_merged(tmp_path: Path) -> None:
    adapter = {"method": "basis", "r": 2, "basis": "sinc", "num_basis": 8}
    given = trial(adapter, backbone="random_matrix", keep=("adapter",))
    result = done(given, tmp_path)
    model, _ = keeping.load(tmp_path)
    before, _ = backbones.load("random_matrix", backbones.Head("matrix", shape=SHAPE))
    merged = adapters.merge_and_unload(model)
    update = (merged.layers[0].linear.weight - before.layers[0].linear.weight).detach()
    wanted = target("random", 3)
    error = np.sum((update.double().numpy() - wanted) ** 2) / np.sum(wanted**2)
    assert result.metrics["test/error"] == pytest.approx(error, rel=1e-4)
    s = scipy.linalg.svdvals(update.double().numpy())
    assert result.metrics["test/stable_rank"] == pytest.approx((s**2).sum() / s[0] ** 2, rel=1e-3)
    # phi has more numbers than two factors of rank 2: those of the bound are counted, too
    k = result.cost.trainable_parameters // sum(SHAPE)
    s = scipy.linalg.svdvals(wanted)
    bound = (s[k:] ** 2).sum() / (s**2).sum()
    assert result.metrics["test/svd_bound"] == pytest.approx(bound, abs=1e-6)


@pytest.mark.parametrize("method", adapters.list_methods())
def test_every_method_with_a_weight_update_is_trained_on_a_matrix(
    method: str, tmp_path: Path
) -> None:
    more = {"fourierft": {"n_frequency": 50, "scaling": 1.0}, "ia3": {"feedforward_modules": []}}
    adapter = {"method": method, "r": 2, "target_modules": "all", **more.get(method, {})}
    options = adapters.get_method(method).options()
    adapter = {k: v for k, v in adapter.items() if k == "method" or k in options}
    task = {"name": "matrix_random", "shape": list(SHAPE)}
    if method in ("aurora", "bitfit", "head_only"):
        with pytest.raises(ValueError, match=f"method '{method}' changes no weight"):
            checks.check_modules({"name": "random_matrix"}, task, adapter)
        return
    checks.check_modules({"name": "random_matrix"}, task, adapter)
    rate = 1.0 if method == "fourierft" else 0.01  # whose numbers are of the size of all entries
    train = {"epochs": 30.0, "learning_rate": rate}
    given = trial(adapter, backbone="random_matrix", train=train)
    metrics = done(given, tmp_path).metrics
    assert metrics["train/loss"] < 1 and metrics["test/error"] < 1.0


def test_methods_that_start_from_the_weight_are_refused_where_it_is_zero() -> None:
    refused = set()
    for method in adapters.list_methods():
        adapter = {"method": method, "target_modules": "all", "r": 2, "n_frequency": 50}
        adapter |= {"feedforward_modules": []}
        options = adapters.get_method(method).options()
        adapter = {k: v for k, v in adapter.items() if k == "method" or k in options}
        try:
            checks.check_modules({"name": "zero_matrix"}, {"name": "matrix_flat"}, adapter)
        except ValueError as error:
            refused |= {method} if "no gradient" in str(error) else set()
    assert refused == {"abba", "hira", "ia3", "lora_xs", "peanut", "pissa"}


def test_arms_are_matched_in_their_number_of_parameters(tmp_path: Path) -> None:
    lora = {"method": "lora", "r": 3, "target_modules": "all"}
    given = trial({"method": "abba"}, train={"epochs": 2.0}, match=lora)
    assert done(given, tmp_path).chosen["parameters"] == 2 * sum(SHAPE)  # of 3 and 4 times 24


def test_ranks_and_pruning_after_training(tmp_path: Path) -> None:
    after = {"spectra": True, "para": {"kept": [0.5]}}
    lora = {"method": "lora", "r": 4, "alpha": 4}
    metrics = done(trial(lora, after=after), tmp_path / "lora").metrics
    assert metrics["after/spectra/all/rank"] == 4
    s = scipy.linalg.svdvals(target("random", 3))
    best = (s[2:] ** 2).sum() / (s**2).sum()
    assert metrics["after/para_0.5/test/error"] == pytest.approx(best, abs=1e-3)
    full = done(trial({"method": "full"}, after={"spectra": True}), tmp_path / "full")
    assert full.metrics["after/spectra/all/rank"] == 10 and full.metrics["test/error"] < 1e-4


def test_a_difference_of_checkpoints(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    weights = [torch.randn(6, 5, generator=draw).bfloat16() for _ in range(2)]
    files = [str(tmp_path / f"{name}.safetensors") for name in ("before", "after")]
    for file, weight in zip(files, weights, strict=True):
        save_file({"a.weight": weight, "bias": torch.zeros(6)}, file)
    spec = {"name": "matrix_of_files", "files": files, "tensor": "a.weight"}

    def read(**more: Any) -> np.ndarray:
        (row,) = tasks.load({**spec, **more}).splits["train"]
        return np.frombuffer(row.values, np.float32).reshape(row.shape)

    wanted = (weights[1].float() - weights[0].float()).numpy()
    assert np.array_equal(read(), wanted)
    assert np.array_equal(read(files=files[:1], shape=[4, 3]), weights[0].float().numpy()[:4, :3])
    before = tasks.content(spec)
    save_file({"a.weight": 2 * weights[1], "bias": torch.zeros(6)}, files[1])
    assert tasks.content(spec) != before
    for more, message in (
        ({"tensor": "a.weigth"}, "has no `tensor`.* Did you mean 'a.weight'"),
        ({"tensor": "bias"}, r"'bias' must have the same two sides, has \[6\]"),
        ({"shape": [7, 5]}, r"at least \[7, 5\], has \[6, 5\]"),
        ({"files": [str(tmp_path / "none.safetensors")]}, "`files`: .* is no .safetensors file"),
        ({"files": [files[0], files[0]]}, "is 0 everywhere"),
        ({"files": None}, "needs `files`, one or two"),
    ):
        with pytest.raises(ValueError, match=message):
            tasks.load({**spec, **more})


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "matrix_flat", "rank": 2}, "`rank` means nothing to matrix_flat: it has `scale`"),
        ({"name": "matrix_low_rank", "rank": 65}, r"`rank` 65 is more than `shape` \[64, 64\] can"),
        ({"name": "matrix_random", "shape": [64]}, "task.shape"),
        ({"name": "matrix_random", "shape": [64, 1]}, "task.shape.1.*at least 2, got 1"),
        ({"name": "matrix_sparse", "density": 0}, "task.density: expected more than 0, got 0"),
        ({"name": "matrix_flatt"}, "Did you mean 'matrix_flat'"),
    ],
)
def test_bad_targets_are_refused(task: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tasks.check(task)


STUDY = """
question: Which matrices?
backbone: BACKBONE
task: TASK
adapter: {method: lora, r: 2, target_modules: all}
arms: [{name: a}, {name: b, adapter: OTHER}]
baseline: a
objective: {metric: test/error, direction: minimize, select_on: valid/error}
"""


@pytest.mark.parametrize(
    ("backbone", "task", "other", "message"),
    [
        ("minilm", "matrix_flat", "{r: 1}", "minilm is a model, and this task needs one linear"),
        (
            "{name: zero_matrix, quantization: 4bit}",
            "matrix_flat",
            "{r: 1}",
            "one linear layer, which has no quantization: leave it out",
        ),
        ("zero_matrix", "matrix_flat", "{method: aurora}", "'aurora' changes no weight"),
        (
            "zero_matrix",
            "matrix_flat",
            "{method: hira}",
            "'hira' has no gradient .*W, which is 0 in zero_matrix: set `backbone: random_matrix`",
        ),
        (
            "zero_matrix",
            "matrix_flat",
            "{target_modules: [query]}",
            r"`target_modules` 'query' matches no layer of MatrixModel",
        ),
        ("random_matrix", "matrix_flat", "{method: lora_xs, r: 65}", "`r` must be at most 64"),
        (
            "zero_matrix",
            "matrix_flat",
            "{method: kradapter, rows: 4}}, {name: c, adapter: {method: kradapter, rows: 9}",
            "`rows` must be 0 to 8, .* got 9",
        ),
        ("{name: random_matrx}", "matrix_flat", "{r: 1}", "Of a matrix: .*random_matrix"),
    ],
)
def test_studies_that_fit_no_matrix_are_refused_before_training(
    backbone: str, task: str, other: str, message: str, tmp_path: Path
) -> None:
    text = STUDY.replace("BACKBONE", backbone).replace("TASK", task).replace("OTHER", other)
    (tmp_path / "which.yaml").write_text(text)
    with pytest.raises(StudyError, match=message):
        load_study(tmp_path / "which.yaml")


def test_a_study_of_a_matrix_is_accepted(tmp_path: Path) -> None:
    text = STUDY.replace("BACKBONE", "zero_matrix").replace("TASK", "matrix_flat")
    (tmp_path / "which.yaml").write_text(text.replace("OTHER", "{method: kradapter}"))
    assert load_study(tmp_path / "which.yaml").backbone.name == "zero_matrix"
    assert checks.is_at_hand({"name": "zero_matrix"})
    with pytest.raises(ValueError, match="zero_matrix is one linear layer, and this task needs a"):
        checks.check_fit({"name": "sarcasm"}, {"name": "zero_matrix"})
    assert backbones.identity("zero_matrix") == {"name": "zero_matrix", "sha256": None}


def test_a_random_matrix_is_the_same_for_all_seeds_with_variance_one_over_in() -> None:
    head = backbones.Head("matrix", shape=(300, 400))
    torch.manual_seed(1)
    first = backbones.load("random_matrix", head)[0].layers[0].linear.weight
    torch.manual_seed(2)
    again = backbones.load("random_matrix", head)[0].layers[0].linear.weight
    assert torch.equal(first, again)
    assert first.std().item() == pytest.approx(1 / math.sqrt(400), rel=0.02)


def test_the_steps_of_a_matrix_are_known_beside_rows_of_a_profile(tmp_path: Path) -> None:
    text = STUDY.replace("BACKBONE", "zero_matrix").replace("OTHER", "{method: kradapter}")
    text = text.replace("task: TASK", "tasks: [matrix_flat, matrix_random]")
    text += "train: {epochs: 9, eval_every: EVERY}\n"
    text += "after: {spectra: {steps: [STEP]}, steps_to: 0.5}\n"

    def study(every: int, step: int) -> Study:
        given = text.replace("EVERY", str(every)).replace("STEP", str(step))
        (tmp_path / "which.yaml").write_text(given)
        return load_study(tmp_path / "which.yaml")

    assert len(study(3, 9).tasks) == 2
    with pytest.raises(StudyError, match=r"arm 'a' has 9 steps, got 10"):
        study(3, 10)
    with pytest.raises(StudyError, match=r"before the end: set train.eval_every, got 9 of 9 steps"):
        study(9, 9)
    more = study(3, 9).model_copy(update={"after": None, "train": Train(epochs=9, max_steps=20)})
    assert unreached(plan(more)) == [
        "a, b: train.epochs 9 ends training after 9 steps, before train.max_steps 20: raise "
        "train.epochs to go on"
    ]
