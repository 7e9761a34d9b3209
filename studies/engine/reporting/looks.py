r"""Verdicts at several looks at the same study, whose errors together stay those of one.

The looks are fixed before the run: at look $k$ of $K$ the first $n_k$ seeds are there, and a claim
may err with the share $w_k = 2k / (K (K + 1))$ of its level, $\sum_k w_k = 1$. With $p_{kv}$ the
one-sided p of the word $v$ at look $k$, the sequential p of a claim is

$$P = \min_{k, v} \; p_{kv} / w_k,$$

and Holm's step-down compares the $P$ of the claims that are open with $\alpha / (\text{how many are
open})$. It is done anew at each look, in order, with what that look and those before it have found:
a verdict that was given stays, and a level that other verdicts have freed may decide a claim on an
earlier look's data. See docs/statistics.md for why all of it errs in 5 % of studies.

References: Holm, *A simple sequentially rejective multiple test procedure* (1979); Lan & DeMets,
*Discrete sequential boundaries for clinical trials* (1983), of the error spent look by look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from studies.engine.reporting.statistics import ALPHA

Word = Literal["confirmed", "refuted", "bounded", "not decided"]
PValues = Mapping[Word, float]
"""Word to the one-sided p of its being wrong, the word that says most first."""


@dataclass(frozen=True)
class Decision:
    """What the looks say of one claim."""

    word: Word
    look: int | None
    """Index of the look that decides it; of an open claim the last there was, None without one."""
    level: float
    """The one-sided level of the claim at that look: its share of the error."""


def shares(looks: int) -> list[float]:
    """The share of the error that each look may spend, rising with the look."""
    return [2 * (k + 1) / (looks * (looks + 1)) for k in range(looks)]


def decide(tests: Sequence[Sequence[PValues | None]], looks: int) -> list[Decision]:
    """A decision for each claim, by its p at each of the `looks`; None where it had no such look.

    A claim without any test counts among those that share the error: it may have one later.
    """
    share = shares(looks)
    given: dict[int, Decision] = {}
    level = ALPHA / max(len(tests), 1)
    for now in range(looks):
        while len(given) < len(tests):
            level = ALPHA / (len(tests) - len(given))
            still = [i for i in range(len(tests)) if i not in given]
            found = {i: d for i in still if (d := _passing(tests[i][: now + 1], share, level))}
            if not found:
                break
            given |= found
    return [given.get(i) or _open(own, share, level) for i, own in enumerate(tests)]


def _passing(own: Sequence[PValues | None], share: list[float], level: float) -> Decision | None:
    """What decides a claim at `level`: of several looks the last, which knows most."""
    for k in reversed(range(len(own))):
        for word, p in (own[k] or {}).items():
            if p <= level * share[k]:
                return Decision(word, k, level * share[k])
    return None


def _open(own: Sequence[PValues | None], share: list[float], level: float) -> Decision:
    last = max((k for k, p in enumerate(own) if p is not None), default=None)
    return Decision("not decided", last, level * share[-1 if last is None else last])
