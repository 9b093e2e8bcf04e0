"""Intervals for shares, for means on any scale and for paired differences. Pure: arrays in, estimates out.

Replies are not independent: several draws answer one prompt, and several seeds answer the same prompts. So
the unit here is the prompt: `n` counts prompts, never replies, and seeds add their own spread on top.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import special

from pipeline.records import Estimate

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@cache
def wilson(successes: float, n: int, confidence: float) -> Estimate:
    """Estimate a share with Wilson's score interval.

    Source: Wilson (1927), J. Am. Stat. Assoc. 22:209-212; computed by statsmodels.

    Args:
        successes: how many of `n` succeeded; a fraction is allowed, as of means over draws.
        n: number of independent trials; 0 gives NaN, "no data".
        confidence: coverage, such as 0.95.

    Raises:
        ValueError: if `successes` is not in [0, n], or `confidence` not in (0, 1).
    """
    _check_confidence(confidence)
    if n == 0:
        return Estimate()
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials")
    # Imported here because it takes seconds, and most stages never ask for an interval.
    from statsmodels.stats.proportion import proportion_confint

    value = successes / n
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    # Rounding in the closed form may leave the point outside by 1e-17 at 0 and at 1.
    return Estimate(value, min(max(float(low), 0.0), value), max(min(float(high), 1.0), value), n)


def unbounded_estimate(values: npt.ArrayLike, confidence: float) -> Estimate:
    """Estimate a mean over prompts and seeds of values on any scale; for shares see `pipeline.hierarchical`.

    Two parts: Student's t over prompts (of each prompt's mean over seeds), and over the seeds' means; joined by the
    square-and-add rule (MOVER; Zou & Donner 2008, Stat. Med. 27:1693-1702). With one prompt nothing is known of the
    spread: the limits are NaN.

    Args:
        values: shape (seeds, prompts); NaN is "no data".
        confidence: coverage, such as 0.95.
    """
    _check_confidence(confidence)
    table = _with_data(np.atleast_2d(np.asarray(values, dtype=np.float64)))
    if table.shape[0] == 0:
        return Estimate()
    means = [float(np.nanmean(row)) for row in table]
    n = min(int((~np.isnan(row)).sum()) for row in table)
    value = math.fsum(means) / len(means)
    if n < 2:
        return Estimate(value, n=n)
    prompts = np.nanmean(table[:, ~np.isnan(table).all(axis=0)], axis=0)
    error = float(np.std(np.sort(prompts), ddof=1)) / math.sqrt(n)
    half = math.hypot(_student(n - 1, confidence) * error, _seed_spread(means, confidence))
    return Estimate(value, value - half, value + half, n)


class PairedBootstrap:
    """Means of differences that are paired by prompt, resampled over prompts and over seeds.

    Two-level percentile bootstrap (Efron & Tibshirani 1993, chapter 13): each resample draws prompts and,
    independently, seeds, with replacement, and takes the statistic of the crossed table. All calls on one
    object share their resamples, so points of a curve are comparable and the work is a matrix product.

    The bootstrap is blind in two cases, and both would make a claim too sure: where no prompt changed (every
    resample is the same, whatever n), and with few seeds (resampling 3 of 3 shrinks their spread). So its
    interval is widened to a score interval wherever that one is wider: Wilson limits for the mean gain and
    the mean loss per prompt, and Student's t for the seeds, joined by the square-and-add rule (Newcombe 1998,
    Stat. Med. 17:2635-2650; Zou & Donner 2008).

    Args:
        prompts: number of prompts, the columns of every table given later.
        resamples: number of bootstrap resamples.
        confidence: coverage, such as 0.95.
        rng: the source of randomness; the same state gives the same intervals.
    """

    def __init__(self, prompts: int, resamples: int, confidence: float, rng: np.random.Generator) -> None:
        _check_confidence(confidence)
        self.confidence = confidence
        self._prompt_weights = _resample(rng, prompts, resamples)
        self._seed_key = int(rng.integers(2**62))
        self._seed_weights: dict[int, FloatArray] = {}

    def mean(self, gains: npt.ArrayLike, *, bounded: bool = True) -> Estimate:
        """Estimate the mean of differences.

        Args:
            gains: shape (seeds, prompts) or (prompts,): after - before, each in [0, 1]; NaN is "no data".
            bounded: whether the mean lies in [-1, 1], and its limits with it; not so for differences of ratios.

        Raises:
            ValueError: if the shape does not fit.
        """
        table = np.atleast_2d(np.asarray(gains, dtype=np.float64))
        if table.shape[1:] != (self._prompt_weights.shape[1],):
            raise ValueError(f"shape {table.shape}: expected (seeds, {self._prompt_weights.shape[1]})")
        table = _with_data(table)
        known = ~np.isnan(table)
        if not known.any():
            return Estimate()
        gain = np.where(known, table, 0.0)
        value, low, high = self._score_interval(gain, known)
        samples = divided(self._resampled(gain), self._resampled(known.astype(np.float64)))
        low, high = self._widened((low, value, high), samples)
        if bounded:
            low, high = max(low, -1.0), min(high, 1.0)
        return Estimate(value, low, high, int(known.any(axis=0).sum()))

    def _score_interval(self, gain: FloatArray, known: BoolArray) -> tuple[float, float, float]:
        """Return (value, low, high) of the mean without resampling; `gain` is 0 where it is not known."""
        means = gain.sum(axis=1) / known.sum(axis=1)
        pairs, prompts = float(known.sum()), int(known.any(axis=0).sum())
        value = float(gain.sum()) / pairs
        better = wilson(prompts * min(np.maximum(gain, 0).sum() / pairs, 1.0), prompts, self.confidence)
        worse = wilson(prompts * min(np.maximum(-gain, 0).sum() / pairs, 1.0), prompts, self.confidence)
        spread = _seed_spread([float(m) for m in means], self.confidence)
        low = value - math.hypot(better.value - better.low, worse.high - worse.value, spread)
        high = value + math.hypot(better.high - better.value, worse.value - worse.low, spread)
        return value, low, high

    def _resampled(self, table: FloatArray) -> FloatArray:
        """Return the table's sum in each resample, shape (resamples,); `table` is (seeds, prompts)."""
        seeds = table.shape[0]
        if seeds not in self._seed_weights:
            # A child generator a number of seeds, so that the order of calls does not matter.
            child = np.random.default_rng([self._seed_key, seeds])
            self._seed_weights[seeds] = _resample(child, seeds, self._prompt_weights.shape[0])
        sums: FloatArray = ((self._prompt_weights @ table.T) * self._seed_weights[seeds]).sum(axis=1)
        return sums

    def _widened(self, interval: tuple[float, float, float], samples: FloatArray) -> tuple[float, float]:
        """Return the limits that hold (low, value, high) and the percentile interval of `samples`."""
        tail = (1 - self.confidence) / 2
        samples = samples[np.isfinite(samples)]
        limits = [float(np.quantile(samples, q)) for q in (tail, 1 - tail)] if samples.size else []
        return min([*interval, *limits]), max([*interval, *limits])


def at_worst(table: FloatArray, asked: BoolArray, worst: float) -> FloatArray:
    """Return a table of shape (rows, prompts) in which prompts that were asked but have no reply count `worst`.

    A budget ends somewhere in a table, which may be sorted: the prompts that were not reached are no random ones.
    A row without any reply stays NaN: it is a seed that is missing, which no interval stands for.
    """
    missing = np.isnan(table) & asked & ~np.isnan(table).all(axis=1, keepdims=True)
    filled: FloatArray = np.where(missing, worst, table)
    return filled


def divided(above: FloatArray, below: FloatArray) -> FloatArray:
    """Return above / below, NaN where `below` is 0: a resample that drew no data."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _resample(rng: np.random.Generator, size: int, resamples: int) -> FloatArray:
    """Return how often each of `size` things is drawn in each resample, shape (resamples, size)."""
    if size == 0:
        return np.zeros((resamples, 0))
    return rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(np.float64)


def _seed_spread(means: list[float], confidence: float) -> float:
    """Return the half-width of Student's t interval for the mean of the seeds' means; 0 for one seed."""
    if len(means) < 2:
        return 0.0
    error = float(np.std(sorted(means), ddof=1)) / math.sqrt(len(means))
    return _student(len(means) - 1, confidence) * error


@cache
def _student(degrees: int, confidence: float) -> float:
    return float(special.stdtrit(degrees, 0.5 + confidence / 2))


def _with_data(table: FloatArray) -> FloatArray:
    """Return the rows of `table` that hold at least one value."""
    kept: FloatArray = table[~np.isnan(table).all(axis=1)]
    return kept


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}: expected a share between 0 and 1")
