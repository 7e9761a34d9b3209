"""Profiles say what is the paper's and what is ours, and what they say of its counts is so."""

import pytest

from studies.engine.definition import schema
from studies.engine.planning.plan import plan

PAPER = [name for name in schema.list_profiles() if name.startswith("paper")]
OURS = [name for name in schema.list_profiles() if name not in PAPER]


def header(profile: str) -> str:
    """The comments above the first key."""
    lines = (schema.PROFILES / f"{profile}.yaml").read_text(encoding="utf-8").splitlines()
    first_key = next(n for n, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.removeprefix("#").strip() for line in lines[:first_key])


@pytest.mark.parametrize("profile", PAPER)
def test_a_profile_of_the_paper_says_what_is_the_papers_and_what_is_ours(profile: str) -> None:
    said = header(profile)
    ours = said.partition("Ours, where its text is lost")[2]
    assert "The paper's: " in said.partition("Ours, ")[0]
    for key in ("learning_rate", "alpha", "target_modules", "not set"):
        assert f" {key} " in ours, key


@pytest.mark.parametrize("profile", OURS)
def test_another_profile_says_that_it_is_ours(profile: str) -> None:
    assert "All is ours, nothing the paper's." in header(profile)


@pytest.mark.parametrize("profile", PAPER)
def test_adapters_have_twice_the_papers_factor(profile: str) -> None:
    trial = plan(schema.load_study(schema.PROFILES.parent / "grid_size.yaml", profile))[0]
    assert trial.config["adapter"]["alpha"] == 2 * trial.config["adapter"]["r"]


# In and out features of the adapted projections, layers, parameters of the model in millions.
QWEN2 = ([(896, 896), (896, 128), (896, 128), (896, 4864), (4864, 896)], 24, 494.0)
PHI3 = ([(3072, 9216), (3072, 16384), (8192, 3072)], 32, 3821.1)
LLAMA3 = ([(4096, 4096), (4096, 1024), (4096, 1024), (4096, 14336), (14336, 4096)], 32, 8030.3)


@pytest.mark.parametrize(
    ("profile", "model", "percent"),
    [
        ("paper", QWEN2, "1.18"),
        ("paper_15k", QWEN2, "1.18"),
        ("paper_phi3", PHI3, "0.57"),
        ("paper_llama3", LLAMA3, "0.35"),
    ],
)
def test_table_6_counts_rank_16_without_o(profile: str, model, percent: str) -> None:
    projections, layers, millions = model
    adapter = 16 * layers * sum(map(sum, projections)) / 1e6
    assert f"{100 * adapter / (millions + adapter):.2f}" == percent
    assert f"the {percent} % of parameters in table 6 (rank 16)" in header(profile)


@pytest.mark.parametrize(
    ("profile", "width", "layers"), [("paper_glue", 768, 12), ("paper_glue_large", 1024, 24)]
)
def test_table_2_counts_rank_4_in_all_projections(profile: str, width: int, layers: int) -> None:
    adapter = 4 * layers * (4 * 2 * width + 2 * 5 * width) / 1e6
    assert f"the {adapter:.1f}M parameters of table 2" in header(profile)
