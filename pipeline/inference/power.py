"""What a measurement of this size could have seen, and what it could not. Pure.

"No change was found" says little without the smallest change that would have been found. Each function answers for
a stated power (the chance of finding a change of that size) and a stated alpha (two-sided error).

    before a run         the same prompts before and after: McNemar's test (Connor 1987, Biometrics 43:207-211)
    a run as measured    its own standard error, seeds included (Bloom 1995, Eval. Rev. 19:547-556)
    nothing seen         "0 of n": the largest share that is compatible with it (Clopper & Pearson 1934)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy import optimize, special

from pipeline.hierarchical import CrossedEstimate
from pipeline.records import Estimate


@dataclass(frozen=True)
class Detectable:
    """The smallest change that a sample of `n` prompts could have seen; NaN: not even the largest there can be.

    `change` is an absolute difference of shares (0.1 is ten percentage points), >= 0. `seeds` is 0 where
    the formula knows of none. `method` names the test.
    """

    change: float
    n: int
    power: float
    alpha: float
    method: str
    seeds: int = 0


def zero_of_n(n: int, confidence: float) -> Estimate:
    """Estimate a share of which nothing was seen in n prompts: 0, with the one-sided Clopper-Pearson limit.

    1 - (1 - confidence)^(1/n), about 3 / n at 95 % ("rule of three"; Hanley & Lippman-Hand 1983, JAMA 249:1743-1745).
    n counts prompts: replies to one prompt are not independent. n = 0 gives NaN, "no data".

    Raises:
        ValueError: if `n` is negative or `confidence` not in (0, 1).
    """
    _check_share("confidence", confidence)
    if n < 0:
        raise ValueError(f"n = {n}: expected 0 or more")
    if n == 0:
        return Estimate()
    # Imported here because it takes seconds, and most stages never ask for it.
    from statsmodels.stats.proportion import proportion_confint

    _, high = proportion_confint(0, n, alpha=2 * (1 - confidence), method="beta")
    return Estimate(0.0, 0.0, float(high), n)


def paired_power(change: float, discordant: float, n: int, *, alpha: float = 0.05) -> float:
    """Return the power of McNemar's test on n prompts (Connor 1987; both tails counted).

    Args:
        change: difference of the two discordant shares: (lost) - (gained), signed.
        discordant: their sum: share of prompts whose label changed at all; at least |change|.
        n: prompts, each measured before and after.
        alpha: two-sided error.

    Raises:
        ValueError: if `discordant` is not in [|change|, 1].
    """
    if not abs(change) <= discordant <= 1:
        raise ValueError(f"change {change} with {discordant} discordant: expected |change| <= discordant <= 1")
    if change == 0:
        return alpha
    reach = float(special.ndtri(1 - alpha / 2)) * math.sqrt(discordant)
    spread = math.sqrt(max(discordant - change**2, 0.0))
    shift = abs(change) * math.sqrt(n)
    if spread == 0:
        return float(shift > reach)
    return float(special.ndtr((shift - reach) / spread) + special.ndtr((-shift - reach) / spread))


def detectable_paired(n: int, *, power: float = 0.8, alpha: float = 0.05) -> Detectable:
    """Return the smallest change of a share that n prompts, each measured before and after, could have seen.

    All changes go one way: the best case, since what goes the other way only hides them.

    Args:
        n: prompts with both; 0 gives NaN.
        power: chance of seeing it.
        alpha: two-sided error.

    Raises:
        ValueError: if a share is out of range or `n` is negative.
    """
    _check(power, alpha, n)
    change = _smallest(lambda change: paired_power(change, change, n, alpha=alpha) - power) if n else math.nan
    return Detectable(change, n, power, alpha, "McNemar's test, all changes one way")


def detectable_as_measured(found: CrossedEstimate, *, power: float = 0.8, alpha: float = 0.05) -> Detectable:
    """Return the smallest change that a run could have seen, from the spread that it measured.

    (t(1 - alpha/2) + t(power)) x standard error, with the estimate's degrees of freedom (Bloom 1995): seeds,
    prompts and draws as they were. NaN where no spread was measured: "0 of n" (`zero_of_n`) then says more.

    Args:
        found: a difference or a ratio of `pipeline.hierarchical`; the change is in its unit.
        power: chance of seeing it.
        alpha: two-sided error.

    Raises:
        ValueError: if a share is out of range.
    """
    _check(power, alpha, found.n)
    change = math.nan
    if found.standard_error > 0 and found.degrees >= 1:
        quantiles = special.stdtrit(found.degrees, [1 - alpha / 2, power])
        change = float(quantiles.sum()) * found.standard_error
    return Detectable(change, found.n, power, alpha, "the run's own standard error, Student's t", found.seeds)


def _smallest(excess: Callable[[float], float]) -> float:
    """Return the smallest change in (0, 1] whose power suffices; NaN where not even 1 does.

    Power grows with the change, except that it jumps to 1 at the edge of what is possible.
    """
    least, most = 1e-9, 1.0
    if excess(most) < 0:
        return math.nan
    if excess(least) >= 0:
        return least
    return float(optimize.brentq(excess, least, most, xtol=1e-10))


def _check(power: float, alpha: float, n: int) -> None:
    _check_share("power", power)
    _check_share("alpha", alpha)
    if n < 0:
        raise ValueError(f"n = {n}: expected 0 or more")


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} {value}: expected a share between 0 and 1")
