"""The smallest change that this run could have seen. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from scipy import special

from pipeline.hierarchical import NO_SPREAD, CrossedEstimate
from pipeline.inference.power import Detectable, detectable_as_measured, zero_of_n
from pipeline.points import CurvePoint
from pipeline.schema import ReviewConfig

POWER = 0.8
ALIKE = "all prompts alike (Clopper-Pearson)"
LARGEST = 1.0  # a share changes by no more


def smallest(points: Sequence[CurvePoint], review: ReviewConfig) -> list[dict[str, Any]]:
    """Return, at each arm's last rung and for each metric that decides, the smallest change from rung 0 seen.

    From the run's own spread where there was any, at least as wide as its limits are; where all prompts did the same,
    the largest share of prompts that may do otherwise. `change` is an absolute difference of shares; NaN with n above
    0: not even the largest is seen.
    """
    rows = []
    pooled = [p for p in points if p.seed is None and not p.kind and p.role in ("refusal", "capability")]
    for arm in sorted({p.arm for p in pooled}):
        last = max((p.step for p in pooled if p.arm == arm), default=0)
        for point in sorted((p for p in pooled if p.arm == arm and p.step == last > 0), key=lambda p: p.metric):
            rows.append(_row(point, review))
    return rows


def _row(point: CurvePoint, review: ReviewConfig) -> dict[str, Any]:
    alpha, gain = 1 - review.confidence, point.difference
    found = Detectable(math.nan, 0, POWER, alpha, "no data", 0)
    if isinstance(gain, CrossedEstimate) and gain.n:
        found = detectable_as_measured(_as_wide(gain, review.confidence), power=POWER, alpha=alpha)
        if found.change > LARGEST:
            found = replace(found, change=math.nan)
        elif gain.method == NO_SPREAD:
            unseen = zero_of_n(gain.n, review.confidence).high
            found = Detectable(unseen, gain.n, review.confidence, alpha, ALIKE, gain.seeds)
    return {
        "metric": point.metric,
        "arm": point.arm,
        "step": point.step,
        "n": found.n,
        "seeds": found.seeds,
        "change": found.change,
        "power": found.power,
        "alpha": found.alpha,
        "method": found.method,
        "sentence": _sentence(point, found),
    }


def _as_wide(gain: CrossedEstimate, confidence: float) -> CrossedEstimate:
    """Return the estimate with no smaller a standard error than its limits stand for.

    Where seeds agree by luck the variance by itself comes out as next to nothing, and the limits do not follow it.
    """
    degrees = max(gain.degrees, 1.0) if gain.degrees > 0 else max(gain.n - 1.0, 1.0)
    told = (gain.high - gain.low) / 2 / float(special.stdtrit(degrees, 0.5 + confidence / 2))
    return replace(gain, standard_error=max(told, gain.standard_error), degrees=degrees)


def _sentence(point: CurvePoint, found: Detectable) -> str:
    where = f"{point.metric}, arm {point.arm}, step {point.step}"
    if not found.n:
        return f"{where}: no data."
    size = f"{found.n} prompts and {found.seeds} seed{'s' if found.seeds != 1 else ''}"
    if math.isnan(found.change):
        return f"{where}: with {size}, so far apart, no change however large is seen in {found.power:.0%} of such runs."
    points = f"{100 * found.change:.1f} percentage points"
    if found.method == ALIKE:
        did, may = _did(point, found.n)
        unlike = f"up to {100 * found.change:.1f} % of prompts like these might {may}"
        return f"{where}: {did}; {unlike} and this would have missed them."
    return f"{where}: with {size} a change of {points} is seen in {found.power:.0%} of such runs."


def _did(point: CurvePoint, n: int) -> tuple[str, str]:
    """Return what all prompts did alike, and what some of others might yet do."""
    change = point.difference.value if point.difference is not None else 0.0
    if not change:
        return f"none of {n} prompts changed", "change"
    if change == -LARGEST and point.role == "refusal":
        return f"all {n} prompts stopped being refused", "still be refused"
    if change == -LARGEST:
        return f"all {n} prompts were lost", "still be solved"
    return f"all {n} prompts changed alike", "do otherwise"
