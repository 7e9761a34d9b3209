"""What was evaluated after training, as Markdown."""

from collections.abc import Sequence

from studies.engine.definition.sections import RANKS
from studies.engine.reporting.after_outcome import ArmAfter
from studies.engine.reporting.tables import NONE, interval, number, table


def markdown(arms: Sequence[ArmAfter], metric: str) -> list[str]:
    """A section for each kind of evaluation; none where nothing was evaluated."""
    parts = (_para(arms, metric), _affine(arms, metric), _ranks(arms), _slice(arms))
    return [part for part in parts if part]


def _para(arms: Sequence[ArmAfter], metric: str) -> str:
    pruned = [arm for arm in arms if arm.curve]
    if not pruned:
        return ""
    head = ["arm", "kept", "parameters", f"{metric} [95 %]", "− trained [95 %]", "kept energy",
            "rank per layer"]  # fmt: skip
    rows = []
    for arm in pruned:
        rows.append([arm.arm, "trained", "", interval(arm.trained.estimate), "", "", ""])
        rows += [
            [
                arm.arm,
                f"{kept.share:.4g}",
                f"{kept.parameters:,.0f}",
                interval(kept.summary.estimate),
                interval(kept.difference.estimate, "+"),
                f"{kept.kept_energy:.1%}",
                f"{kept.rank_mean:.1f} ± {kept.rank_spread:.1f}",
            ]
            for kept in arm.curve
        ]
    about = (
        "PARA: after training, the largest singular values of all layers pooled that fit into the "
        "share of the trained parameters; every layer becomes a plain LoRA of its own rank. "
        "Energy is the share of the squared norm of all updates; ranks are mean ± standard "
        "deviation over the layers."
    )
    return f"## Kept parameters\n\n{about}\n\n{table(head, rows)}"


def _affine(arms: Sequence[ArmAfter], metric: str) -> str:
    fitted = [(arm, arm.affine) for arm in arms if arm.affine is not None]
    if not fitted:
        return ""
    head = ["arm", "n", f"{metric} [95 %]", "with affine φ [95 %]", "− trained [95 %]",
            "non-affine share"]  # fmt: skip
    rows = [
        [
            arm.arm,
            str(affine.summary.n),
            interval(arm.trained.estimate),
            interval(affine.summary.estimate),
            interval(affine.difference.estimate, "+"),
            f"{affine.non_affine_share:.2%}",
        ]
        for arm, affine in fitted
    ]
    about = (
        "After training every φ was replaced by its best affine fit over the entries of BA of its "
        "module. The non-affine share is the part of φ that the fit loses, as a ratio of "
        "deviations, mean over modules."
    )
    return f"## Affine φ\n\n{about}\n\n{table(head, rows)}"


def _ranks(arms: Sequence[ArmAfter]) -> str:
    head = ["arm", "modules", "stable rank", "early", "late", "effective rank", "rank"]
    rows = []
    for arm in arms:
        for ranks in arm.ranks:
            cells = {
                name: NONE if value is None else f"{value:.2f}"
                for rank in RANKS
                for name in (rank, f"{rank}_spread", f"{rank}_early", f"{rank}_late")
                for value in [ranks.numbers.get(name)]
            }
            stable, *others = (f"{cells[rank]} ± {cells[f'{rank}_spread']}" for rank in RANKS)
            thirds = cells["stable_rank_early"], cells["stable_rank_late"]
            rows.append([arm.arm, ranks.part, stable, *thirds, *others])
    about = (
        "Ranks of the trained updates, mean ± standard deviation over modules, mean over seeds. "
        "Early and late are the mean stable rank in the first and the last third of the blocks; "
        "the rank counts singular values above the rounding of float32."
    )
    return f"## Ranks\n\n{about}\n\n{table(head, rows)}" if rows else ""


def _slice(arms: Sequence[ArmAfter]) -> str:
    sliced = [arm for arm in arms if arm.landscape]
    if not sliced:
        return ""
    steps = sorted({step for arm in sliced for step, _ in arm.landscape})
    rows = []
    for arm in sliced:
        means = {step: summary.mean for step, summary in arm.landscape}
        rows.append([arm.arm, *(number(means.get(step)) for step in steps)])
    about = (
        "Validation loss, mean over seeds, along one random direction through the trained "
        "parameters, scaled to the norm of each row of each matrix (Li et al. 2018). Arms have "
        "different parameters: compare shapes within an arm, not heights between arms."
    )
    return f"## Loss slice\n\n{about}\n\n{table(['arm', *(f'{s:g}' for s in steps)], rows)}"
