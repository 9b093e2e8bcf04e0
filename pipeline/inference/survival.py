"""The dose at which seeds collapse, with seeds that never did (censored) counted as what they are. Pure.

A seed whose ladder ended without a collapse says "more than this", neither "never" nor nothing. The share of seeds not
yet collapsed against dose is Kaplan and Meier's estimate (1958, J. Am. Stat. Assoc. 53:457-481; statsmodels).

A collapse is seen at a rung and lies somewhere after the rung before it, so every summary has two ends: `seen` (the
rung at which it was seen, an upper bound of the dose) and `earliest` (the rung before it). With one ladder for all
seeds the two bracket the estimate for interval-censored data (Turnbull 1976, J. R. Stat. Soc. B 38:290-295).

Few seeds leave the median open: below 6 seeds no distribution-free 95 % interval for it exists (the range of 3 seeds
holds the median with 75 %). So the exact interval is half open where the seeds are too few. Beside it stands one for
the geometric mean that is finite at 3 seeds, since it assumes log-normal doses.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from scipy import special

from pipeline.records import Estimate

# Kaplan-Meier shares are products of fractions: 1/2 comes out as 0.49999999999999994.
_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class SeedDose:
    """One seed: not collapsed at dose `after`, collapsed at dose `at`; infinity says it never did (censored).

    For a censored seed `after` is the last dose at which it was measured. Any unit of dose, the same for all seeds.

    Raises:
        ValueError: unless 0 <= `after` < `at`.
    """

    after: float
    at: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.after < self.at or math.isinf(self.after):
            raise ValueError(f"a collapse after dose {self.after} and at {self.at}: expected 0 <= after < at")

    @property
    def collapsed(self) -> bool:
        """Say whether the seed collapsed on its ladder."""
        return math.isfinite(self.at)


@dataclass(frozen=True)
class Step:
    """One step of a Kaplan-Meier curve: the share of seeds not collapsed from `dose` on.

    `at_risk` seeds had reached `dose` uncollapsed, `collapsed` of them collapsed there.
    """

    dose: float
    share: float
    at_risk: int
    collapsed: int


@dataclass(frozen=True)
class Curve:
    """Kaplan-Meier's estimate; `end` is the largest dose at which any seed was measured."""

    steps: tuple[Step, ...]
    end: float

    def share(self, dose: float) -> float:
        """Return the share of seeds not collapsed at a dose; NaN beyond the last measurement (unless it is 0)."""
        passed = [step.share for step in self.steps if step.dose <= dose]
        value = passed[-1] if passed else 1.0
        return math.nan if dose > self.end and value > 0 else value

    def median(self) -> float:
        """Return the smallest dose at which half of the seeds had collapsed; NaN where half never did."""
        return next((step.dose for step in self.steps if step.share <= 0.5 + _ROUNDING), math.nan)


@dataclass(frozen=True)
class CollapseDose:
    """When an arm's seeds collapse, in the unit of dose that was given. No data is NaN, "never seen" is not "safe".

    Attributes:
        seeds: number of seeds; `collapsed` of them collapsed on their ladders.
        horizon: the dose up to which the restricted means run.
        seen: the curve with collapse at the rung where it was seen; `earliest`: at the rung before.
        median_seen: half of the seeds had been seen collapsed at this dose; NaN: not within the budget.
        median_earliest: the same at the rung before; the median lies between the two.
        median_above: where `median_seen` is NaN, the largest dose that more than half of the seeds are known to have
            passed; the median of these seeds exceeds it. Else NaN.
        exact: distribution-free interval for the median, from `earliest` to `seen`: 0 and infinity are open ends.
        restricted_mean: mean dose to collapse, counting no seed beyond the horizon: (earliest, seen), each with
            Student's t interval over seeds. Its `n` counts seeds.
        geometric_mean: `value` as seen, the limits from `earliest` (low) and `seen` (high); no data with a
            censored seed or with one seed. Assumes log-normal doses. Its `n` counts seeds.
        share_collapsed: share of seeds that collapsed on their ladders, Clopper-Pearson limits.
        confidence: coverage of all intervals.
    """

    seeds: int = 0
    collapsed: int = 0
    horizon: float = math.nan
    seen: Curve = field(default_factory=lambda: Curve((), math.nan))
    earliest: Curve = field(default_factory=lambda: Curve((), math.nan))
    median_seen: float = math.nan
    median_earliest: float = math.nan
    median_above: float = math.nan
    exact: tuple[float, float] = (math.nan, math.nan)
    restricted_mean: tuple[Estimate, Estimate] = (Estimate(), Estimate())
    geometric_mean: Estimate = field(default_factory=Estimate)
    share_collapsed: Estimate = field(default_factory=Estimate)
    confidence: float = math.nan

    @property
    def censored(self) -> int:
        """Seeds that did not collapse on their ladders."""
        return self.seeds - self.collapsed


def collapse_dose(seeds: Sequence[SeedDose], confidence: float) -> CollapseDose:
    """Summarise the dose to collapse over the seeds of one arm.

    The restricted means run to the smallest dose at which a seed was censored, so that the share is known for certain
    up to there, or to the largest collapse where none was.

    Args:
        seeds: one entry a seed. None at all gives "no data".
        confidence: coverage, such as 0.95.

    Raises:
        ValueError: if `confidence` is not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}: expected a share between 0 and 1")
    if not seeds:
        return CollapseDose(confidence=confidence)
    flags = [seed.collapsed for seed in seeds]
    seen = kaplan_meier([seed.at if seed.collapsed else seed.after for seed in seeds], flags)
    earliest = _just_after(seeds, flags)
    horizon = min((s.after for s in seeds if not s.collapsed), default=seen.end)
    median = seen.median()
    return CollapseDose(
        seeds=len(seeds),
        collapsed=sum(flags),
        horizon=horizon,
        seen=seen,
        earliest=earliest,
        median_seen=median,
        median_earliest=earliest.median(),
        median_above=_passed_by_most(seeds) if math.isnan(median) else math.nan,
        exact=_exact(seeds, confidence),
        restricted_mean=(
            restricted_mean(earliest, len(seeds), horizon, confidence),
            restricted_mean(seen, len(seeds), horizon, confidence),
        ),
        geometric_mean=_geometric_mean(seeds, confidence),
        share_collapsed=_clopper_pearson(sum(flags), len(seeds), confidence),
        confidence=confidence,
    )


def kaplan_meier(doses: Sequence[float], collapsed: Sequence[bool]) -> Curve:
    """Return Kaplan and Meier's curve, by statsmodels' `SurvfuncRight`.

    Args:
        doses: shape (seeds,), dose of collapse or of the last measurement.
        collapsed: shape (seeds,), False for a censored seed.
    """
    # Imported here because it takes seconds, and most stages never ask for it.
    from statsmodels.duration.survfunc import SurvfuncRight

    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # Greenwood's formula divides by 0 where no seed is left
        found = SurvfuncRight(np.asarray(doses, dtype=np.float64), np.asarray(collapsed, dtype=np.int64))
    rows = zip(found.surv_times, found.surv_prob, found.n_risk, found.n_events, strict=True)
    steps = tuple(Step(float(t), float(s), int(r), int(d)) for t, s, r, d in rows)
    return Curve(steps, float(max(doses)))


def _just_after(seeds: Sequence[SeedDose], flags: Sequence[bool]) -> Curve:
    """Return the curve with each collapse right after the rung before it, where a seed censored there is gone."""
    doses = [float(np.nextafter(seed.after, math.inf)) if seed.collapsed else seed.after for seed in seeds]
    curve = kaplan_meier(doses, flags)
    steps = tuple(replace(step, dose=float(np.nextafter(step.dose, 0.0))) for step in curve.steps)
    return Curve(steps, max(seed.after for seed in seeds))


def restricted_mean(curve: Curve, seeds: int, horizon: float, confidence: float) -> Estimate:
    """Estimate the mean of min(dose to collapse, horizon): the area under the curve up to the horizon.

    Greenwood's variance (Klein & Moeschberger 2003, Survival Analysis, eq. 4.5.2) times seeds / (seeds - 1), with
    Student's t: for uncensored seeds this is exactly the t interval of their mean. One seed: limits are NaN.

    Args:
        curve: Kaplan-Meier's estimate.
        seeds: number of seeds in it; becomes `n`.
        horizon: in the curve's unit of dose.
        confidence: coverage.

    Raises:
        ValueError: if the curve is not known up to the horizon.
    """
    if math.isnan(curve.share(horizon)):
        raise ValueError(f"horizon {horizon}: seeds were measured up to dose {curve.end} only")
    corners = [0.0, *(step.dose for step in curve.steps if 0 < step.dose < horizon), horizon]
    areas = [curve.share(left) * (right - left) for left, right in itertools.pairwise(corners)]
    value = math.fsum(areas)
    if seeds < 2:
        return Estimate(value, n=seeds)
    variance = 0.0
    for step in curve.steps:
        left = math.fsum(a for a, corner in zip(areas, corners, strict=False) if corner >= step.dose)
        if step.dose < horizon and step.at_risk > step.collapsed:
            variance += left**2 * step.collapsed / (step.at_risk * (step.at_risk - step.collapsed))
    half = float(special.stdtrit(seeds - 1, 0.5 + confidence / 2)) * math.sqrt(variance * seeds / (seeds - 1))
    if variance == 0:
        # All alike: what share of seeds may yet be unlike them (Clopper-Pearson at 0 of n), at 0 or at the horizon.
        unlike = _clopper_pearson(0, seeds, confidence).high
        return Estimate(value, value * (1 - unlike), value + (horizon - value) * unlike, seeds)
    return Estimate(value, max(value - half, 0.0), min(value + half, horizon), seeds)


def _passed_by_most(seeds: Sequence[SeedDose]) -> float:
    return sorted((seed.after for seed in seeds), reverse=True)[len(seeds) // 2]


def _exact(seeds: Sequence[SeedDose], confidence: float) -> tuple[float, float]:
    """Return the sign test's interval for the median (David & Nagaraja 2003, Order Statistics, section 7.1).

    The low end is the largest dose that at least k seeds are known to have passed, the high end the smallest by
    which at least k are known to have collapsed, where k of n coin tosses have a chance of at most
    (1 - confidence) / 2. A censored seed is known to have passed its last dose, and to nothing else.
    """
    n, tail = len(seeds), (1 - confidence) / 2
    enough = next((k for k in range(n + 1) if special.bdtrc(k - 1, n, 0.5) <= tail), n + 1)
    if enough > n:
        return 0.0, math.inf
    passed = sorted((seed.after for seed in seeds), reverse=True)
    return passed[enough - 1], sorted(seed.at for seed in seeds)[enough - 1]


def _geometric_mean(seeds: Sequence[SeedDose], confidence: float) -> Estimate:
    """Estimate the geometric mean of the doses by Student's t on their logarithms; no data with a censored seed."""
    n = len(seeds)
    if n < 2 or not all(seed.collapsed for seed in seeds):
        return Estimate()
    student = float(special.stdtrit(n - 1, 0.5 + confidence / 2)) / math.sqrt(n)
    late = np.log([seed.at for seed in seeds])
    value, high = float(late.mean()), float(late.mean() + student * late.std(ddof=1))
    low = 0.0
    if all(seed.after > 0 for seed in seeds):
        early = np.log([seed.after for seed in seeds])
        low = math.exp(float(early.mean() - student * early.std(ddof=1)))
    return Estimate(math.exp(value), low, math.exp(high), n)


def _clopper_pearson(successes: int, n: int, confidence: float) -> Estimate:
    """Estimate a share with the exact limits of Clopper and Pearson (1934, Biometrika 26:404-413)."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="beta")
    return Estimate(successes / n, float(low), float(high), n)
