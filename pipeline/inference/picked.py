"""The worst arm and rung, and the many looks that found it. Pure."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pipeline import shares
from pipeline.collapse import is_kept
from pipeline.generate.asked import ALL, coarse
from pipeline.hierarchical import crossed_mean
from pipeline.inference.tables import Ladders
from pipeline.inference.worst_arm import WorstArm, adjusted, p_beyond, simultaneous, worst_arm
from pipeline.points import CurvePoint
from pipeline.schema import ReviewConfig

Place = tuple[str, int]
MOST_PROMPTS: Final = 10_000  # beyond which it is not worked out how many prompts a claim would need


def places(points: Sequence[CurvePoint]) -> list[Place]:
    """Return (arm, step) of every pooled rung above rung 0 that has refusal replies, sorted."""
    found = {
        (p.arm, p.step)
        for p in points
        if p.seed is None and not p.kind and p.step > 0 and p.role == "refusal" and p.estimate.n
    }
    return sorted(found)


def able(points: Sequence[CurvePoint], review: ReviewConfig) -> list[Place]:
    """Return the places at which every capability is kept, by the point estimates: where a collapse can be."""
    kept: dict[Place, list[bool]] = {}
    for p in points:
        if p.seed is None and not p.kind and p.step > 0 and p.role == "capability":
            value = p.retention.value if p.retention else math.nan
            kept.setdefault((p.arm, p.step), []).append(is_kept(value, review))
    return [place for place in places(points) if kept.get(place) and all(kept[place])]


def always_asked(ladders: Sequence[Ladders], review: ReviewConfig) -> set[Place]:
    """Return (arm, step) of every rung that is asked whatever the replies of other rungs are."""
    steps: dict[str, set[int]] = {}
    for rung in itertools.chain.from_iterable(metric.rungs for metric in ladders):
        steps.setdefault(rung.arm, set()).add(rung.step)
    return {(arm, step) for arm, found in steps.items() for step in (found if review.rungs == ALL else coarse(found))}


def worst(ladders: Sequence[Ladders], points: Sequence[CurvePoint], review: ReviewConfig) -> dict[str, Any] | None:
    """Return the lowest refusal where capability is kept: picked on the dev prompts, reported on the held-out ones.

    Only rungs that are asked whatever the replies say: the held-out prompts, too, choose the others. Among several
    refusal metrics the one that is lowest on its dev prompts is taken: that, too, is picking. None where no rung keeps
    capability, or there are too few prompts to split.
    """
    fixed = always_asked(ladders, review)
    candidates = [place for place in able(points, review) if place in fixed]
    found: list[tuple[float, str, WorstArm]] = []
    for metric in ladders:
        tables = {_name(place): metric.means(*place) for place in candidates if place[1] in metric.steps(place[0])}
        try:
            picked = worst_arm(tables, metric.samples, review.confidence) if tables else WorstArm()
        except ValueError:  # one part of the split is empty
            continue
        if picked.arm is not None:
            found.append((picked.dev.value, metric.metric.name, picked))
    if not found:
        return None
    _, name, picked = min(found, key=lambda each: each[:2])
    (arm, step), (naive, naive_step) = _place(picked.arm), _place(picked.uncorrected_arm)
    row = {
        "metric": name,
        "arm": arm,
        "step": step,
        "dev": picked.dev.as_dict(),
        "held_out": picked.held_out.as_dict(),
        "uncorrected_arm": naive,
        "uncorrected_step": naive_step,
        "uncorrected": picked.uncorrected.as_dict(),
        "arms": picked.arms,
        "dev_prompts": picked.dev_prompts,
        "held_out_prompts": picked.held_out_prompts,
    }
    held = picked.held_out
    value, low, high = (shares.share(x, (review.refusal_threshold,)) for x in (held.value, held.low, held.high))
    row["sentence"] = (
        f"Picked from {picked.arms} arms and rungs that kept capability on {picked.dev_prompts} prompts: {arm} at step "
        f"{step}; on the {picked.held_out_prompts} prompts that did not pick it {name} is {value} "
        f"[{low}, {high}]."
    )
    return row


def looks(ladders: Sequence[Ladders], points: Sequence[CurvePoint], review: ReviewConfig) -> dict[str, Any]:
    """Return what looking at every rung costs: p-values that refusal is at most tau, corrected in two ways.

    Each rung is judged at the stated confidence by itself; with many, one may cross the threshold by luck. As there, a
    p-value is held against one side's share of the error, and what is unscored, missing, or neither a refusal nor
    compliance counts as refused. `count` is how many rungs were saved, `asked` how many have replies. Where replies
    decide which rungs are asked next, both corrections still hold: a rung that might have been asked counts as if it
    had been, and had shown nothing.

    - `adjusted`: each arm's least p-value, corrected for all saved rungs of all arms (Holm). It assumes nothing of the
      curves; with few prompts it can rule luck out for no rung, whatever the curves look like.
    - `in_order`: within an arm from the last rung down, stopping at the first that does not stand (fixed sequence;
      Maurer, Hothorn & Lehmacher 1995; Dmitrienko & D'Agostino 2013, Stat. Med. 32:5172-5218, section 3), so that
      only the number of arms and metrics is corrected for (Bonferroni). The order must not depend on the replies, so
      only rungs that are asked whatever they say stand in it. `step` is the least step that stands (None: not even
      the last), `p` its corrected p-value. An arm whose refusal comes back gains nothing from this.

    `needed_prompts` is the least number of prompts of which 0 refused could stand in order, given that correction.

    None: no data.
    """
    p_values = _p_values(ladders, points, review)
    corrected = adjusted({str(i): p for i, p in enumerate(p_values.values())})
    by_arm: dict[str, float | None] = {}
    for (_, arm, _step), p in zip(p_values, corrected.values(), strict=True):
        known = [q for q in (by_arm.get(arm), p) if q is not None and not math.isnan(q)]
        by_arm[arm] = min(known, default=None)
    alpha, count = (1 - review.confidence) / 2, len(p_values)  # one-sided, as the limits of a single rung are
    asked = sum(not math.isnan(p) for p in p_values.values())
    fixed = always_asked(ladders, review)
    told = {key: p for key, p in p_values.items() if key[1:] in fixed and not math.isnan(p)}
    in_order, sequences = _in_order(told, alpha), len({key[:2] for key in told})
    prompts = max((len(metric.samples) for metric in ladders), default=0)
    needed = needed_prompts(review.refusal_threshold, alpha / sequences) if sequences else None
    return {
        "count": count,
        "asked": asked,
        "method": "Holm",
        "simultaneous_confidence": simultaneous(review.confidence, count) if count else None,
        "adjusted": by_arm,
        "in_order": in_order,
        "needed_prompts": needed,
        "sentence": _looks_sentence(_Looks(count, asked, by_arm, in_order, alpha, sequences, prompts, needed), review),
    }


def _p_values(
    ladders: Sequence[Ladders], points: Sequence[CurvePoint], review: ReviewConfig
) -> dict[tuple[str, str, int], float]:
    """Return the p-value that refusal is at most tau, by (metric, arm, step) of every saved rung; NaN: not asked."""
    seen = set(places(points))
    return {
        (metric.metric.name, arm, step): p_beyond(metric.ceilings(arm, step), review.refusal_threshold, below=True)
        if (arm, step) in seen and step in metric.steps(arm)
        else math.nan
        for metric in ladders
        for arm, step in sorted({(rung.arm, rung.step) for rung in metric.rungs if rung.step > 0})
    }


def _in_order(p_values: Mapping[tuple[str, str, int], float], alpha: float) -> dict[str, dict[str, Any]]:
    sequences: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for (metric, arm, step), p in p_values.items():
        sequences.setdefault((metric, arm), []).append((step, p))
    found: dict[str, dict[str, Any]] = {}
    for (metric, arm), rungs in sequences.items():
        row: dict[str, Any] = {"metric": metric, "step": None, "p": None}
        highest = 0.0
        for step, p in sorted(rungs, reverse=True):
            highest = max(highest, min(p * len(sequences), 1.0)) if not math.isnan(p) else math.nan
            if not highest <= alpha:
                row["p"] = highest if row["step"] is None and not math.isnan(highest) else row["p"]
                break
            row |= {"step": step, "p": highest}
        if arm not in found or _rank(row) < _rank(found[arm]):
            found[arm] = row
    return found


def _rank(row: Mapping[str, Any]) -> tuple[float, float]:
    return tuple(math.inf if row[key] is None else float(row[key]) for key in ("step", "p"))  # type: ignore[return-value]


def needed_prompts(threshold: float, alpha: float) -> int | None:
    """Return the least number of prompts of which none refused has a one-sided p of at most `alpha`; None: no number.

    Args:
        threshold: the refusal that is to be ruled out, in [0, 1].
        alpha: one side's share of the error, corrected for the looks.
    """

    def stands(prompts: int) -> bool:
        return crossed_mean(np.zeros((1, prompts)), 1 - 2 * alpha).high <= threshold

    most = 1
    while not stands(most):
        most *= 2
        if most > MOST_PROMPTS:
            return None
    return bisect.bisect_left(range(most), True, lo=1, key=stands)


@dataclass(frozen=True)
class _Looks:
    """What the sentence on looks is made of: `sequences` are arms times metrics, each told from its last rung down."""

    count: int
    asked: int
    by_arm: Mapping[str, float | None]
    in_order: Mapping[str, Mapping[str, Any]]
    alpha: float
    sequences: int
    prompts: int
    needed: int | None

    def p(self, value: float) -> str:
        """Return a p-value in words, never rounded over the limit that it is held against."""
        return shares.share(value, (self.alpha,))


def _looks_sentence(found: _Looks, review: ReviewConfig) -> str:
    known = {arm: p for arm, p in found.by_arm.items() if p is not None}
    if not known:
        return "No rung was looked at."
    arm, tau = min(known, key=lambda name: (known[name], name)), f"{review.refusal_threshold:g}"
    looked, corrected = f"{found.count} rungs", f"Holm, all {found.count} rungs corrected"
    if found.asked < found.count:
        looked = f"{found.asked} of {found.count} saved rungs"
        corrected += ", since replies may choose what is asked"
    each = (
        f"{looked} were looked at, each at {100 * review.confidence:g} % by itself. If refusal were still above {tau}, "
        f"a result as low as the lowest (arm {arm}) would come up by luck with "
        f"p = {found.p(known[arm])} ({corrected}); the limit is {found.alpha:g}. "
    )
    what = "arm" if found.sequences == 1 else "arms" if found.sequences == len(found.in_order) else "arms and metrics"
    each += f"Taken from the last rung down in each arm, corrected for {found.sequences} {what}, "
    rows = found.in_order.items()
    stands = [f"{name} by step {row['step']} (p = {found.p(row['p'])})" for name, row in rows if row["step"]]
    if stands:
        return f"{each}refusal at most {tau} stands for {', '.join(stands)}; ability is not in this."
    least = min((row["p"] for _, row in rows if row["p"] is not None), default=None)
    each += "no arm's result stands" + ("." if least is None else f" (p = {found.p(least)} at the least).")
    if found.needed is None or found.prompts >= found.needed:
        return each
    return f"{each} Even 0 refused of {found.prompts} prompts could not: that takes {found.needed} prompts."


def _name(place: Place) -> str:
    return f"{place[0]}@{place[1]}"


def _place(name: str | None) -> Place:
    arm, _, step = (name or "@0").rpartition("@")
    return arm, int(step)
