r"""Made-up studies with known differences: how often verdicts are wrong, and what seeds they cost.

    python -m tools.looks_simulation docs/statistics.md      # write its tables anew: ten minutes

The judge is a twin of `studies.engine.verdicts.looks.decide` over arrays of studies, which a test
holds equal to it; claims are `higher` with margin 0 and a resolution of half a point. Beside the
rule that is used stand others, each given by the one-sided levels of its looks:

- *boundaries* spend the same shares, but know how looks correlate (Lan & DeMets, Biometrika 1983;
  recursion of Armitage, McPherson & Rowe, JRSS A 1969). The sum $s$ of the first $n_k$ seeds, of
  studies not decided before, has the density $f_k(s) = \int_{u < c_{k-1}} f_{k-1}(u)\,
  \varphi(s - u;\, n_k - n_{k-1})\, du$, and $c_k$ leaves $w_k a$ of it above. A t test takes the
  normal test's level $1 - \Phi(c_k / \sqrt{n_k})$;
- *anytime* looks after every seed: of the effects $\delta \sim N(0, g)$ in spreads the likelihood
  ratio of the t statistic, $\sqrt{1 / (1 + n g)}\, \bigl[(1 + t^2 / \nu) / (1 + t^2 / (\nu (1 +
  n g)))\bigr]^{n / 2}$, $\nu = n - 1$, is a test martingale (Wang & Ramdas, arXiv 2310.03722); one
  side at level $a$ is the crossing of $1 / 2a$ there.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from studies.engine.reporting.tables import table
from studies.engine.verdicts.looks import shares
from studies.engine.verdicts.statistics import ALPHA
from studies.files import write_text
from tools.pages import replaced

Array = NDArray[Any]
RESOLUTION = 0.005
DROP = 0.2
"""What a collapsed run loses: 20 points, as from 70 % to the chance of one in two."""
LOOKS = (5, 10, 20, 40)
EACH = tuple(range(5, 41))
BEGIN, END = "<!-- simulation -->", "<!-- end of simulation -->"


@dataclass(frozen=True)
class Design:
    """When a study looks, and the one-sided levels of these looks for a claim's level."""

    name: str
    sizes: tuple[int, ...]
    levels: Callable[[float], Array]


def independent_levels(sizes: Sequence[int], share: Sequence[float]) -> Callable[[float], Array]:
    """Each look's share of the level, as if looks knew nothing of each other."""
    return lambda level: level * np.array(share)


def boundaries(sizes: Sequence[int], share: Sequence[float]) -> Callable[[float], Array]:
    """The levels that together spend the shares where looks correlate as sums of normals do."""

    def levels(level: float, points: int = 801) -> Array:
        bounds = [level * share[0]]
        n = sizes[0]
        s = np.linspace(-8, stats.norm.isf(bounds[0]), points) * np.sqrt(n)
        density = stats.norm.pdf(s, scale=np.sqrt(n))
        for w, size in zip(share[1:], sizes[1:], strict=True):
            step = np.sqrt(size - n)
            weight = density * _simpson(s)
            low, high = 0.0, 10.0 * np.sqrt(size)
            for _ in range(60):
                c = (low + high) / 2
                more = weight @ stats.norm.sf((c - s) / step) > level * w
                low, high = (c, high) if more else (low, c)
            new = np.linspace(-8 * np.sqrt(size), low, points)
            density = stats.norm.pdf((new[:, None] - s) / step) @ weight / step
            n, s = size, new
            bounds.append(float(stats.norm.sf(low / np.sqrt(size))))
        return np.array(bounds)

    return levels


def _simpson(x: Array) -> Array:
    weight = np.full(len(x), 2.0)
    weight[1::2], weight[[0, -1]] = 4.0, 1.0
    return np.asarray(weight * (x[1] - x[0]) / 3)


def anytime(sizes: Sequence[int], g: float = 1.0) -> Callable[[float], Array]:
    """The levels at which the mixture's likelihood ratio is 1 / (2 level): 0 where none is."""
    n = np.array(sizes, float)
    wide = 1 + n * g

    def levels(level: float) -> Array:
        root = (np.sqrt(wide) / (2 * level)) ** (2 / n)
        ratio = np.where(root < wide, (root - 1) / np.where(root < wide, 1 - root / wide, 1), 1e9)
        return np.where(root < wide, special.stdtr(n - 1, -np.sqrt((n - 1) * ratio)), 0.0)

    return levels


OURS = Design("**5, 10, 20, 40**", LOOKS, independent_levels(LOOKS, shares(4)))
DESIGNS = (
    Design("5 seeds", (5,), independent_levels((5,), [1.0])),
    Design("40 seeds", (40,), independent_levels((40,), [1.0])),
    OURS,
    Design("with boundaries", LOOKS, boundaries(LOOKS, shares(4))),
    Design("anytime, each seed", EACH, anytime(EACH)),
)
SPENDING = {
    "0.25, 0.25, 0.25, 0.25": [0.25] * 4,
    "**0.1, 0.2, 0.3, 0.4**": shares(4),
    "0.125, 0.125, 0.25, 0.5": [0.125, 0.125, 0.25, 0.5],
    "0.05, 0.15, 0.3, 0.5": [0.05, 0.15, 0.3, 0.5],
}


@dataclass(frozen=True)
class World:
    """How made-up studies come about; differences and spreads as shares, 0.01 for a point."""

    differences: tuple[float, ...] = (0.0, 0.0, 0.0)
    """The true difference of each claim, before runs collapse."""
    spread: float = 0.006
    """Standard deviation of a difference from seed to seed."""
    noise: str = "normal"
    arms: str = "shared"
    """shared: claims have one baseline; chain: each arm is compared with the one before; apart:
    no arm is in two claims; opposed: of each two claims the second is nearly minus the first."""
    resolution: float | None = RESOLUTION
    collapsed: tuple[float, float] = (0.0, 0.0)
    """Share of collapsed runs of the arm and of what it is compared with."""

    @property
    def truth(self) -> Array:
        """The true mean differences."""
        arm, base = self.collapsed
        return np.array(self.differences) - DROP * (arm - base)

    def draw(self, rng: np.random.Generator, studies: int, seeds: int) -> Array:
        """Differences, (studies, claims, seeds)."""
        claims = len(self.differences)
        arm, base = (self._runs(rng, (studies, claims, seeds), share) for share in self.collapsed)
        if self.arms == "shared":
            base = base[:, :1]
        elif self.arms == "chain":
            base = np.concatenate([base[:, :1], arm[:, :-1]], 1)
        differences = arm - base
        if self.arms == "opposed":
            differences[:, 1::2] = 0.436 * differences[:, 1::2] - 0.9 * differences[:, 0:-1:2]
        return np.asarray(differences + np.array(self.differences)[:, None])

    def _runs(self, rng: np.random.Generator, shape: tuple[int, ...], share: float) -> Array:
        scale = self.spread / np.sqrt(2)
        if self.noise == "t3":
            values = rng.standard_t(3, shape) * scale / np.sqrt(3)
        else:
            values = rng.normal(0, scale, shape)
        return np.asarray(values - DROP * (rng.random(shape) < share))


def p_values(d: Array, sizes: Sequence[int], resolution: float | None = RESOLUTION) -> Array:
    """One-sided p of confirmed, refuted, bounded and clear: (studies, claims, looks, 4)."""
    n = np.array(sizes, float)
    mean = np.cumsum(d, -1)[..., n.astype(int) - 1] / n
    square = np.cumsum(d**2, -1)[..., n.astype(int) - 1] / n
    error = np.sqrt(np.maximum(square - mean**2, 1e-300) / (n - 1))
    r = resolution or 0.0
    above = [special.stdtr(n - 1, (center - mean) / error) for center in (-r, 0, r)]
    below = [special.stdtr(n - 1, (mean - center) / error) for center in (-r, 0, r)]
    bounded = np.maximum(above[0], below[2])
    return np.stack([above[1], below[1], bounded, np.minimum(above[2], below[0])], -1)


def decide(p: Array, levels: Callable[[float], Array]) -> tuple[Array, Array]:
    """The word of each claim, 0 to 2 as in `p_values` or -1, and the look at which it was given."""
    studies, claims, looks, _ = p.shape
    word, when = np.full((studies, claims), -1), np.full((studies, claims), looks - 1)
    of = np.array([levels(ALPHA / (claims - freed)) for freed in range(claims)])
    freed = np.zeros(studies, int)

    def passed(now: int, word: int) -> Array:
        limits = of[np.minimum(freed, claims - 1)]
        return np.asarray(p[:, :, : now + 1, word] <= limits[:, None, : now + 1])

    def give(now: int, words: Sequence[int]) -> None:
        each = np.stack([passed(now, v) for v in words], -1)
        latest = each[:, :, ::-1].reshape(studies, claims, -1)
        new = latest.any(-1) & (word < 0)
        word[new] = np.array(words)[latest.argmax(-1) % len(words)][new]
        when[new] = now

    for now in range(looks):
        before = freed - 1
        while (before != freed).any():
            give(now, (0, 1))
            before, freed = freed, ((word >= 0) & passed(now, 3).any(-1)).sum(1)
        give(now, (2,))
    return word, when


@dataclass(frozen=True)
class Outcome:
    """What many studies of one world came to."""

    wrong: int
    """Studies with a wrong verdict."""
    studies: int
    words: Array
    """Share of claims that are confirmed, refuted, bounded."""
    seeds: float
    """Seeds of a claim on average."""

    @property
    def upper(self) -> float:
        """Upper end of the 95 % interval of the share of wrong studies (Clopper-Pearson)."""
        return float(stats.beta.ppf(0.975, self.wrong + 1, self.studies - self.wrong))

    def cells(self) -> list[str]:
        """The parts of a row."""
        share = f"{self.wrong / self.studies:.1%} (≤ {self.upper:.1%})"
        words = " / ".join(f"{each:.0%}" for each in self.words)
        return [share, words, f"{self.seeds:.1f}"]


def simulate(world: World, design: Design, studies: int, seed: int = 0) -> Outcome:
    """Judge `studies` made-up studies of `world` by `design`."""
    d = world.draw(np.random.default_rng(seed), studies, max(*design.sizes, 2))
    word, when = decide(p_values(d, design.sizes, world.resolution), design.levels)
    truth = world.truth
    wrong = (word == 0) & (truth <= 0) | (word == 1) & (truth > 0)
    wrong |= (word == 2) & (np.abs(truth) >= RESOLUTION)
    shares_ = np.array([(word == each).mean() for each in range(3)])
    return Outcome(
        int(wrong.any(1).sum()), studies, shares_, float(np.array(design.sizes)[when].mean())
    )


def tables(studies: int) -> Iterator[str]:
    """The tables of docs/statistics.md."""
    head = ["wrong studies", "confirmed / refuted / bounded", "seeds"]
    yield "Three claims against one baseline, normal noise:"
    rows = []
    for spread in (0.006, 0.012):
        for d in (0.0, RESOLUTION / 2, RESOLUTION, 2 * RESOLUTION):
            world = World((d,) * 3, spread)
            for design in DESIGNS:
                outcome = simulate(world, design, studies)
                rows.append([f"{spread:.1%}", f"{d:.2%}", design.name, *outcome.cells()])
    yield table(["spread", "true difference", "seeds, looks", *head], rows)
    yield "How the error is spent over the looks 5, 10, 20, 40; three claims, one baseline:"
    rows = []
    for name, share in SPENDING.items():
        design = Design(name, LOOKS, independent_levels(LOOKS, share))
        row = [name]
        for spread in (0.006, 0.012):
            for d in (0.0, RESOLUTION, 2 * RESOLUTION):
                outcome = simulate(World((d,) * 3, spread), design, studies)
                row.append(f"{outcome.words.sum():.0%}, {outcome.seeds:.1f}")
        rows.append(row)
    cells = [f"{s:.1%}, {d:.1%}" for s in (0.006, 0.012) for d in (0, RESOLUTION, 2 * RESOLUTION)]
    yield table(["shares; spread, difference:", *cells], rows)
    yield "Other numbers of claims, other arms, other noise; the looks 5, 10, 20, 40:"
    rows = []
    for name, world in others().items():
        rows.append([name, *simulate(world, OURS, studies).cells()])
    yield table(["studies", *head], rows)
    yield "The same with one look at 40 seeds, where Holm's step-down has no looks to share with:"
    rows = []
    for name, world in others().items():
        rows.append([name, *simulate(world, DESIGNS[1], studies).cells()])
    yield table(["studies", *head], rows)


def others() -> dict[str, World]:
    """Worlds beside the plain ones, by what is told of them."""
    near, half = 1e-9, RESOLUTION / 2
    mixed = (0.0, 2 * RESOLUTION, half, 0.0, -2 * RESOLUTION, RESOLUTION, 0.0, half, 0.0, 0.02)
    return {
        "1 claim, no difference": World((0.0,)),
        "10 claims, no difference": World((0.0,) * 10),
        "10 claims, no difference, spread 1.2 points": World((0.0,) * 10, 0.012),
        "10 claims with differences of −1 to 2 points": World(mixed),
        "10 claims, each arm with the one before, no difference": World((0.0,) * 10, arms="chain"),
        "10 claims at the resolution": World((RESOLUTION,) * 10),
        "2 claims without resolution, a hair above and below 0": World(
            (near, -near), resolution=None
        ),
        "the same, nearly opposed, both above": World(
            (near, near), arms="opposed", resolution=None
        ),
        "3 claims, t noise of 3 degrees, no difference": World(noise="t3"),
        "3 claims, t noise, twice the resolution": World((2 * RESOLUTION,) * 3, noise="t3"),
        "3 claims, 5 % of all runs collapse, no difference": World(collapsed=(0.05, 0.05)),
        "3 claims, 5 % of all runs collapse, 1 point": World((0.01,) * 3, collapsed=(0.05, 0.05)),
        "1 claim, 1 point, 2 % of the arm's runs collapse": World((0.01,), collapsed=(0.02, 0.0)),
        "1 claim, 1 point, 10 % of the arm's runs collapse": World((0.01,), collapsed=(0.1, 0.0)),
        "1 claim, 1 point, 30 % of the arm's runs collapse": World((0.01,), collapsed=(0.3, 0.0)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables into the page; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.looks_simulation", description="Simulate verdicts."
    )
    parser.add_argument("page", type=Path, help="file with the lines that the tables stand between")
    parser.add_argument("--studies", type=int, default=20_000)
    args = parser.parse_args(arguments)
    text = args.page.read_text(encoding="utf-8")
    body = "\n\n".join(tables(args.studies))
    write_text(args.page, replaced(text, BEGIN, f"\n\n{body}\n\n", END))
    sys.stdout.write(f"{args.page}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
