r"""Verdicts at several looks at the same study, whose errors together stay those of one.

The looks are fixed before the run. At look $k$ of $K$ a claim may err with the share
$w_k = 2k / (K (K + 1))$ of its level, $\sum_k w_k = 1$. That level is $\alpha / (m - r)$ of $m$
claims, as in Holm's step-down, once $r$ of them are clear: their interval lies beyond the margin
and the resolution. All of it is done look by look with what is known there: a verdict that was
given stays, and a level that others have freed may decide a claim on an earlier look's data.
docs/statistics.md says why the total error is 5 %, and why a bounded claim frees nothing.

References: Holm, *A simple sequentially rejective multiple test procedure* (1979); Lan & DeMets,
*Discrete sequential boundaries for clinical trials* (1983), of error that is spent look by look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from studies.engine.verdicts.statistics import ALPHA

Word = Literal["confirmed", "refuted", "bounded", "not decided"]
DIRECTED: tuple[Word, ...] = ("confirmed", "refuted")
"""What is said before "bounded", as it says more."""


@dataclass(frozen=True)
class Test:
    """What one look says of a claim."""

    p: Mapping[Word, float]
    """Word to the one-sided p of its being wrong."""
    clear: float
    """The p that the number lies beyond the margin and the resolution, on either side."""


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


def decide(tests: Sequence[Sequence[Test | None]], looks: int) -> list[Decision]:
    """A decision for each claim, by its tests at each of the `looks`; None where it had none.

    A claim without any test counts among those that share the error: it may have one later.
    """
    share = shares(looks)
    given: dict[int, Decision] = {}
    level = ALPHA / max(len(tests), 1)
    for now in range(looks):
        seen = [own[: now + 1] for own in tests]
        freed = -1
        while freed != (freed := sum(_is_clear(seen[i], share, level) for i in given)):
            level = ALPHA / max(len(tests) - freed, 1)
            given |= _passing(seen, given, DIRECTED, share, level)
        given |= _passing(seen, given, ("bounded",), share, level)
    return [given.get(i) or _open(own, share, level) for i, own in enumerate(tests)]


def _is_clear(own: Sequence[Test | None], share: list[float], level: float) -> bool:
    known = zip(own, share, strict=False)
    return any(test is not None and test.clear <= level * w for test, w in known)


def _passing(
    tests: Sequence[Sequence[Test | None]],
    given: Mapping[int, Decision],
    words: Sequence[Word],
    share: list[float],
    level: float,
) -> dict[int, Decision]:
    """What claims that are not `given` are decided by: of several looks the last knows most."""
    decisions = {}
    for i, own in enumerate(tests):
        for k, test in enumerate(own) if i not in given else ():
            for word in words:
                if test is not None and test.p.get(word, 1.0) <= level * share[k]:
                    decisions[i] = Decision(word, k, level * share[k])
    return decisions


def _open(own: Sequence[Test | None], share: list[float], level: float) -> Decision:
    last = max((k for k, test in enumerate(own) if test is not None), default=None)
    return Decision("not decided", last, level * share[-1 if last is None else last])
