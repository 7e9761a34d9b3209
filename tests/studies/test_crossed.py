"""The error over seeds and test rows: by hand, against statsmodels, and how often it covers."""

import warnings

import numpy as np
import pandas
import pytest
import statsmodels.formula.api
from scipy import stats

from studies.engine.verdicts.crossed import crossed
from studies.engine.verdicts.statistics import Measured


def made(
    draw: np.random.Generator, seeds: int, rows: int, spreads: tuple[float, float, float]
) -> np.ndarray:
    """(S, R) numbers around 0 with the spreads of seeds, of rows and of what is left."""
    of_seeds, of_rows, left = spreads
    d = draw.normal(size=(seeds, 1)) * of_seeds + draw.normal(size=rows) * of_rows
    return d + draw.normal(size=(seeds, rows)) * left


def test_a_small_table_by_hand() -> None:
    d = np.array([[1.0, 2.0, 6.0], [3.0, 4.0, 2.0]])
    rest = np.array([[-1.0, -1.0, 2.0], [1.0, 1.0, -2.0]])
    m_e, m_r = (rest**2).sum() / 2, 2 * 1.0
    assert (m_e, m_r) == (6.0, 2.0)
    found = crossed([d])
    # both components are 0: what is left alone makes the error, M_e / (S R)
    freedom = 1 / (1 / 1 + 1 / 2 + 1 / 2)
    assert found == Measured(3.0, pytest.approx(1.0), pytest.approx(freedom), 0.0)
    e = np.array([[1.0, 5.0, 9.5], [2.0, 6.0, 10.0]])
    columns, cells = e.mean(axis=0), e - e.mean(axis=0) - e.mean(axis=1)[:, None] + e.mean()
    m_s = 3 * ((e.mean(axis=1) - e.mean()) ** 2).sum()
    m_r, m_e = 2 * ((columns - e.mean()) ** 2).sum() / 2, (cells**2).sum() / 2
    v = m_s + m_r - m_e
    freedom = v**2 / (m_s**2 + m_r**2 / 2 + m_e**2 / 2)
    assert crossed([e]) == Measured(
        pytest.approx(e.mean()),
        pytest.approx((v / 6) ** 0.5),
        pytest.approx(freedom),
        pytest.approx((m_r - m_e) / 6),
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_error_is_that_of_a_mixed_model(seed: int) -> None:
    d = made(np.random.default_rng(seed), 6, 12, (1.0, 1.5, 0.7)) + 0.3
    s, r = np.indices(d.shape)
    frame = pandas.DataFrame({"d": d.ravel(), "s": s.ravel(), "r": r.ravel(), "all": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = statsmodels.formula.api.mixedlm(
            "d ~ 1", frame, groups="all", vc_formula={"s": "0 + C(s)", "r": "0 + C(r)"}
        ).fit(reml=True)
    assert min(fitted.vcomp) > 0.05  # else restricted likelihood is not the analysis of variance
    found = crossed([d])
    assert found.mean == pytest.approx(float(fitted.params["Intercept"]))
    assert found.error == pytest.approx(float(fitted.bse["Intercept"]), rel=2e-3)


def test_it_is_never_surer_than_the_seeds_alone_and_without_rows_it_is_their_test() -> None:
    draw = np.random.default_rng(4)
    for spreads in ((0.0, 0.0, 1.0), (1.0, 0.0, 1.0), (0.1, 2.0, 1.0), (0.05, 0.1, 1.0)):
        for _ in range(20):
            d = made(draw, 5, 80, spreads)
            alone = d.mean(axis=1).std(ddof=1) / 5**0.5
            assert crossed([d]).error >= alone * (1 - 1e-12)
    d = draw.normal(size=(7, 1)) + np.zeros((7, 50))  # all rows alike
    found = crossed([d])
    assert found.error == pytest.approx(d[:, 0].std(ddof=1) / 7**0.5)
    assert found.freedom == pytest.approx(6) and found.of_rows == 0.0


def test_sets_of_rows_are_summed() -> None:
    draw = np.random.default_rng(5)
    a, b = made(draw, 4, 30, (1.0, 1.0, 1.0)), made(draw, 4, 50, (1.0, 2.0, 1.0))
    once, twice, halves = crossed([a]), crossed([a / 2, a / 2]), crossed([a / 2, b / 2])
    assert once.mean == pytest.approx(twice.mean) and twice.error < once.error  # rows are others
    assert halves.mean == pytest.approx((a.mean() + b.mean()) / 2)
    of_seeds = (a.mean(axis=1) / 2 + b.mean(axis=1) / 2).var(ddof=1) / 4
    rows = sum(crossed([x / 2]).of_rows for x in (a, b))
    assert halves.error**2 == pytest.approx(of_seeds + rows)
    assert halves.of_rows == pytest.approx(rows)


def test_no_spread_is_no_error_and_too_little_is_refused() -> None:
    same = np.full((3, 4), 0.1)
    assert crossed([same]).error == 0.0
    noise = same + 1e-16 * np.arange(4)
    assert crossed([noise]).error == 0.0 and crossed([noise - 0.1], size=0.1).error == 0.0
    for few in (np.zeros((1, 5)), np.zeros((5, 1))):
        with pytest.raises(ValueError, match="two seeds and two rows"):
            crossed([few])


@pytest.mark.parametrize(
    "spreads",
    [(0.0, 0.0, 1.0), (0.1, 0.0, 1.0), (0.1, 0.3, 1.0), (0.02, 0.5, 1.0), (0.3, 0.0, 0.1)],
    ids=str,
)
def test_intervals_cover_as_often_as_they_say(spreads: tuple[float, float, float]) -> None:
    draw, hit, times = np.random.default_rng(6), 0, 1500
    alone = 0
    for _ in range(times):
        d = made(draw, 5, 100, spreads)
        found = crossed([d])
        hit += abs(found.mean) <= stats.t.ppf(0.975, found.freedom) * found.error
        own = d.mean(axis=1)
        alone += abs(own.mean()) <= stats.t.ppf(0.975, 4) * own.std(ddof=1) / 5**0.5
    assert hit / times >= 0.94  # three standard errors below 0.95 are 0.933
    if spreads == (0.02, 0.5, 1.0):
        assert alone / times < 0.9  # what seeds alone cannot see


def test_intervals_cover_for_right_and_wrong_answers() -> None:
    """Differences of two arms' hits: three values, rows of all difficulties."""
    draw, hit, times = np.random.default_rng(7), 0, 600
    for _ in range(times):
        ease = draw.normal(size=200) * 1.5
        arms = [
            (draw.normal(size=(5, 200)) + ease + 0.2 * draw.normal(size=(5, 1)) + own > 0)
            for own in (0.3 * draw.normal(size=200), 0.3 * draw.normal(size=200))
        ]
        found = crossed([arms[0].astype(float) - arms[1]])
        hit += abs(found.mean) <= stats.t.ppf(0.975, found.freedom) * found.error
    assert hit / times >= 0.93
