r"""Verdicts at several looks at the same study, whose errors together stay those of one.

The looks are fixed before the run: at look $k$ of $K$ the first $n_k$ seeds are there, and a claim
may err with the share $w_k = 2k / (K (K + 1))$ of its level, $\sum_k w_k = 1$. A word whose
one-sided p at look $k$ is at most $w_k$ times the level of its claim is given. That level is
$\alpha / m$ of $m$ claims, and, as in Holm's step-down, $\alpha / (m - r)$ once $r$ of them are
confirmed or refuted: a claim whose direction is clear had next to no chance of being wrong, and its
share is free. One that is bounded keeps its share, which it may well have spent: a true difference
of 0 is bounded nearly always, and might have been called positive before.

All of it is done look by look with what is known there: a verdict that was given stays, and a level
that others have freed may decide a claim on an earlier look's data. See docs/statistics.md for why
the total error is 5 %.

References: Holm, *A simple sequentially rejective multiple test procedure* (1979); Lan & DeMets,
*Discrete sequential boundaries for clinical trials* (1983), of error that is spent look by look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from studies.engine.reporting.statistics import ALPHA

Word = Literal["confirmed", "refuted", "bounded", "not decided"]
PValues = Mapping[Word, float]
"""Word to the one-sided p of its being wrong."""

DIRECTED: tuple[Word, ...] = ("confirmed", "refuted")
"""What is said before "bounded", as it says more."""


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

    def passing(now: int, *words: Word) -> dict[int, Decision]:
        still = (i for i in range(len(tests)) if i not in given)
        tried = ((i, _passing(tests[i][: now + 1], words, share, level)) for i in still)
        return {i: decision for i, decision in tried if decision is not None}

    for now in range(looks):
        while found := passing(now, *DIRECTED):
            given |= found
            freed = sum(decision.word in DIRECTED for decision in given.values())
            level = ALPHA / max(len(tests) - freed, 1)
        given |= passing(now, "bounded")
    return [given.get(i) or _open(own, share, level) for i, own in enumerate(tests)]


def _passing(
    own: Sequence[PValues | None], words: Sequence[Word], share: list[float], level: float
) -> Decision | None:
    """What decides a claim at `level`: of several looks the last, which knows most."""
    for k in reversed(range(len(own))):
        for word in words:
            if (p := own[k]) is not None and p.get(word, 1.0) <= level * share[k]:
                return Decision(word, k, level * share[k])
    return None


def _open(own: Sequence[PValues | None], share: list[float], level: float) -> Decision:
    last = max((k for k, p in enumerate(own) if p is not None), default=None)
    return Decision("not decided", last, level * share[-1 if last is None else last])
