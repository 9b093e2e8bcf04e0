"""The bootstrap for crossed factors, to set beside the intervals in use. Pure.

Two-level: seeds are drawn and, once for all of them, prompts, since all seeds answer the same prompts. For why the
intervals in use are others see `pipeline.hierarchical`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.hierarchical import CrossedEstimate


def pigeonhole(
    values: npt.ArrayLike,
    confidence: float,
    *,
    resamples: int,
    rng: np.random.Generator,
    over: npt.ArrayLike | None = None,
) -> CrossedEstimate:
    """Estimate a mean, a difference or a ratio by the percentile bootstrap for crossed factors, for comparison.

    Each resample draws seeds and, independently, prompts with replacement and takes the statistic of the crossed
    table (Owen 2007). Too narrow with few seeds, whose spread it shrinks by (S - 1) / S and whose t it knows nothing
    of, and of zero width where no value differs: a claim uses `pipeline.hierarchical`.

    Args:
        values: shape (seeds, prompts): for a difference the gains, for a ratio its numerator; NaN is "no data".
        confidence: coverage, such as 0.95.
        resamples: how many; 2,000 give limits to about 2 % of the interval's width.
        rng: the source of randomness; the same state gives the same limits.
        over: shape (prompts,): the ratio's denominator per prompt; None for a mean or a difference.

    Raises:
        ValueError: if the shapes do not fit, `resamples` is below 1 or `confidence` not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}: expected a share between 0 and 1")
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    below = np.ones_like(table) if over is None else np.broadcast_to(np.asarray(over, dtype=np.float64), table.shape)
    if resamples < 1:
        raise ValueError(f"{resamples} resamples: at least 1 is needed")
    known = ~np.isnan(table + below)
    seeds, prompts = known.any(axis=1), known.any(axis=0)
    if not known.any():
        return CrossedEstimate()
    above = np.where(known, table, 0.0)[seeds][:, prompts]
    beneath = np.where(known, below, 0.0)[seeds][:, prompts]
    size, width = above.shape
    draws = rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(np.float64)
    columns = rng.multinomial(width, np.full(width, 1 / width), size=resamples).astype(np.float64)
    totals = [((columns @ part.T) * draws).sum(axis=1) for part in (above, beneath)]
    drawn = totals[0][totals[1] > 0] / totals[1][totals[1] > 0]
    if not beneath.sum() > 0 or not drawn.size:
        return CrossedEstimate()
    tail = (1 - confidence) / 2
    low, high = (float(np.quantile(drawn, q)) for q in (tail, 1 - tail))
    n = int(known[seeds].sum(axis=1).min())
    error = float(drawn.std())
    return CrossedEstimate(
        float(above.sum() / beneath.sum()), low, high, n, size, error, method="pigeonhole percentiles"
    )
