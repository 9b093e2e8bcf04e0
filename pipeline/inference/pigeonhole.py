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
) -> CrossedEstimate:
    """Estimate a mean by the percentile bootstrap for crossed factors, for comparison.

    Each resample draws seeds and, independently, prompts with replacement and takes the mean of the crossed table
    (Owen 2007). Too narrow with few seeds, whose spread it shrinks by (S - 1) / S and whose t it knows nothing
    of, and of zero width where no value differs: a claim uses `pipeline.hierarchical`.

    Args:
        values: shape (seeds, prompts); NaN is "no data".
        confidence: coverage, such as 0.95.
        resamples: how many; 2,000 give limits to about 2 % of the interval's width.
        rng: the source of randomness; the same state gives the same limits.

    Raises:
        ValueError: if `resamples` is below 1 or `confidence` not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}: expected a share between 0 and 1")
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if resamples < 1:
        raise ValueError(f"{resamples} resamples: at least 1 is needed")
    known = ~np.isnan(table)
    seeds, prompts = known.any(axis=1), known.any(axis=0)
    if not known.any():
        return CrossedEstimate()
    above = np.where(known, table, 0.0)[seeds][:, prompts]
    counted = known.astype(np.float64)[seeds][:, prompts]
    size, width = above.shape
    draws = rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(np.float64)
    columns = rng.multinomial(width, np.full(width, 1 / width), size=resamples).astype(np.float64)
    totals = [((columns @ part.T) * draws).sum(axis=1) for part in (above, counted)]
    drawn = totals[0][totals[1] > 0] / totals[1][totals[1] > 0]
    if not drawn.size:
        return CrossedEstimate()
    tail = (1 - confidence) / 2
    low, high = (float(np.quantile(drawn, q)) for q in (tail, 1 - tail))
    n = int(known[seeds].sum(axis=1).min())
    error = float(drawn.std())
    return CrossedEstimate(
        float(above.sum() / counted.sum()), low, high, n, size, error, method="pigeonhole percentiles"
    )
