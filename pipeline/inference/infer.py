"""All of it for one verdict. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from evals.base import Metric
from pipeline.inference.doses import over_seeds
from pipeline.inference.draws import over_draws
from pipeline.inference.picked import looks, worst
from pipeline.inference.pigeonhole import pigeonhole
from pipeline.inference.smallest import smallest
from pipeline.inference.tables import Ladders
from pipeline.points import Collapses, CurvePoint, rounded
from pipeline.records import Rung
from pipeline.schema import ReviewConfig


def infer(
    verdict: Mapping[str, Any],
    points: Sequence[CurvePoint],
    found: Collapses,
    outcomes: pl.DataFrame,
    rungs: Sequence[Rung],
    metrics: Sequence[tuple[str, Metric]],
    review: ReviewConfig,
) -> dict[str, Any]:
    """Return the verdict with what it rests on: `worst`, `looks`, `power`; and by arm `dose`, `survival`, `draws`,
    `intervals`. No word of the verdict itself changes.

    Args:
        verdict: what `pipeline.verdict.decide` returned.
        points: what `pipeline.analyse.curves` returned.
        found: the collapses of these points.
        outcomes: one row a reply, as for `curves`.
        rungs: all saved rungs of the run, those that were not asked too.
        metrics: (eval, metric) pairs.
        review: thresholds, confidence and number of resamples.
    """
    refusal = [Ladders.of(outcomes, name, m, rungs) for name, m in metrics if m.measure == "refused"]
    deciding = [ladders for ladders in refusal if ladders.metric.role == "refusal"]
    arms = {}
    for arm, entry in verdict["arms"].items():
        step = entry["collapse"]["step"] if entry["collapse"] else entry["last_step"]
        arms[arm] = {
            **entry,
            **over_seeds(points, found, arm, review),
            "draws": over_draws(refusal, arm, step, review.confidence) if step else [],
            "intervals": _beside_the_bootstrap(deciding, points, arm, step, review),
        }
    return {
        **verdict,
        "arms": rounded(arms),
        "worst": rounded(worst(deciding, points, review)),
        "looks": rounded(looks(deciding, points, review)),
        "power": rounded(smallest(points, review)),
    }


def _beside_the_bootstrap(
    ladders: Sequence[Ladders], points: Sequence[CurvePoint], arm: str, step: int, review: ReviewConfig
) -> list[dict[str, Any]]:
    """Return the interval in use beside the percentile bootstrap over seeds and prompts, at one step of an arm."""
    rows = []
    for metric in ladders:
        name = metric.metric.name
        at = [p for p in points if (p.arm, p.seed, p.step, p.metric, p.kind) == (arm, None, step, name, "")]
        if not at or not step or not (table := metric.means(arm, step)).size:
            continue
        # A fixed seed: the limits do not depend on which others are drawn.
        rng = np.random.default_rng(0)
        drawn = pigeonhole(table, review.confidence, resamples=review.bootstrap, rng=rng)
        rows.append(
            {"metric": name, "step": step, "in_use": at[0].estimate.as_dict(), "bootstrap": drawn.as_dict()},
        )
    return rows
