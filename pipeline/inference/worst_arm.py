"""The worst arm, corrected for having been picked because it looked worst. Pure.

The lowest of several refusals is low partly by luck, and measuring it on the prompts that picked it keeps the luck
(the winner's curse; Cawley & Talbot 2010, J. Mach. Learn. Res. 11:2079-2107). So the prompts are split by a hash of
their ids: one part picks, the other reports. The split does not depend on the run, so two releases share it.

Where every arm and rung is looked at, each at the stated confidence, one of them will cross a threshold by chance:
`adjusted` corrects p-values (Holm 1979, Scand. J. Stat. 6:65-70), `simultaneous` the confidence of intervals.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import optimize

from pipeline.hierarchical import CrossedEstimate, crossed_mean
from pipeline.statistics import BoolArray, FloatArray

# Changing the salt changes every split that was ever reported.
SALT: Final = "holdfast-split-1"
# The least and the greatest two-sided confidence at which an interval is asked for its limits.
_SURE: Final = 1 - 1e-12
_UNSURE: Final = 1e-9


@dataclass(frozen=True)
class WorstArm:
    """The worst arm and its value; the worst is the lowest mean.

    Attributes:
        arm: picked on the dev prompts; None where no arm has data there.
        dev: its estimate on the prompts that picked it: biased towards worse.
        held_out: its estimate on the others: the one to report.
        uncorrected_arm: the worst on all prompts, as one would pick without a split.
        uncorrected: its estimate on all prompts, for comparison: biased.
        arms: how many arms had data on the dev prompts.
        dev_prompts: number of prompts in the dev part; `held_out_prompts` in the other.
    """

    arm: str | None = None
    dev: CrossedEstimate = field(default_factory=CrossedEstimate)
    held_out: CrossedEstimate = field(default_factory=CrossedEstimate)
    uncorrected_arm: str | None = None
    uncorrected: CrossedEstimate = field(default_factory=CrossedEstimate)
    arms: int = 0
    dev_prompts: int = 0
    held_out_prompts: int = 0


def is_dev(sample: str) -> bool:
    """Say whether a sample belongs to the part that picks, half of all: by SHA-256 of its id, the same in every run."""
    digest = hashlib.sha256(f"{SALT}\0{sample}".encode()).digest()
    return digest[0] < 128  # the first bit is 0


def worst_arm(arms: Mapping[str, npt.ArrayLike], samples: Sequence[str], confidence: float) -> WorstArm:
    """Pick the worst arm on the dev prompts and estimate it on the held-out prompts.

    Args:
        arms: name to values in [0, 1], shape (seeds, prompts); NaN is "no data". A name may stand for an arm at a
            rung where rungs are picked too. An arm without data on the dev prompts cannot be picked.
        samples: ids of the prompts, shape (prompts,), in the order of the columns.
        confidence: coverage of each interval, such as 0.95.

    Raises:
        ValueError: if the shapes do not fit, an id stands twice, or a part of the split is empty.
    """
    tables = {name: np.atleast_2d(np.asarray(values, dtype=np.float64)) for name, values in arms.items()}
    for name, table in tables.items():
        if table.ndim != 2 or table.shape[1] != len(samples):
            raise ValueError(f"arm {name}: shape {table.shape}, expected (seeds, {len(samples)})")
    if len(set(samples)) != len(samples):
        raise ValueError("a sample id stands twice")
    dev: BoolArray = np.array([is_dev(sample) for sample in samples], dtype=np.bool_)
    if not dev.any() or dev.all():
        raise ValueError(f"{len(samples)} prompts: too few to split into dev and held-out prompts")
    everything = np.ones_like(dev)
    picked, naive = (_pick(tables, part, confidence) for part in (dev, everything))
    return WorstArm(
        arm=picked,
        dev=_estimate(tables, picked, dev, confidence),
        held_out=_estimate(tables, picked, ~dev, confidence),
        uncorrected_arm=naive,
        uncorrected=_estimate(tables, naive, everything, confidence),
        arms=sum(crossed_mean(table[:, dev], confidence).n > 0 for table in tables.values()),
        dev_prompts=int(dev.sum()),
        held_out_prompts=int((~dev).sum()),
    )


def p_beyond(values: npt.ArrayLike, threshold: float, *, below: bool) -> float:
    """Return the one-sided p-value that a mean lies below (or above) a threshold.

    It is the error at which the limit of `crossed_mean` just reaches the threshold (an inverted interval), and at
    least 0.5 where the value itself is on the wrong side. NaN where there is no data.

    Args:
        values: in [0, 1], shape (seeds, prompts); NaN is "no data".
        threshold: in [0, 1].
        below: True for the claim "below the threshold", False for "above".

    Raises:
        ValueError: if a value or the threshold is outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold {threshold}: expected [0, 1]")

    def margin(confidence: float) -> float:
        found = crossed_mean(values, confidence)
        return threshold - found.high if below else found.low - threshold

    value = crossed_mean(values, 0.5).value
    if math.isnan(value):
        return math.nan
    if margin(_UNSURE) <= 0:
        return 0.5 if value == threshold or (value < threshold) == below else 1.0
    if margin(_SURE) >= 0:
        return (1 - _SURE) / 2
    return (1 - float(optimize.brentq(margin, _UNSURE, _SURE, xtol=1e-12))) / 2


def adjusted(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for how many were looked at.

    Holm's (1979, Scand. J. Stat. 6:65-70): never above Bonferroni's, and as safe. Not by statsmodels'
    `multipletests`, which searches the whole process for garbage at each call, half a second long. A p-value of
    NaN (no data) stays NaN and counts among the looks, since it would have been looked at.

    Args:
        p_values: name of each arm and rung to its p-value in [0, 1].

    Raises:
        ValueError: if a p-value is outside [0, 1].
    """
    known = {name: p for name, p in p_values.items() if not math.isnan(p)}
    if any(not 0 <= p <= 1 for p in known.values()):
        raise ValueError(f"p-values {sorted(known.values())}: expected [0, 1]")
    if not known:
        return dict(p_values)
    # A missing test can never be found significant, so 1 stands for it in the count of looks.
    filled: FloatArray = np.array([known.get(name, 1.0) for name in p_values])
    order, looks = np.argsort(filled, kind="stable"), len(filled)
    corrected = np.empty_like(filled)
    corrected[order] = np.minimum(np.maximum.accumulate(filled[order] * np.arange(looks, 0, -1)), 1.0)
    return {name: float(p) if name in known else math.nan for name, p in zip(p_values, corrected, strict=True)}


def simultaneous(confidence: float, looks: int) -> float:
    """Return the confidence that each of several intervals needs so that all hold at once (Bonferroni).

    Raises:
        ValueError: if `confidence` is not in (0, 1) or `looks` is below 1.
    """
    if not 0 < confidence < 1 or looks < 1:
        raise ValueError(f"confidence {confidence} for {looks} looks: expected a share in (0, 1) and at least 1 look")
    return 1 - (1 - confidence) / looks


def _estimate(
    tables: Mapping[str, FloatArray], name: str | None, part: BoolArray, confidence: float
) -> CrossedEstimate:
    return CrossedEstimate() if name is None else crossed_mean(tables[name][:, part], confidence)


def _pick(tables: Mapping[str, FloatArray], part: BoolArray, confidence: float) -> str | None:
    """Name the arm with the lowest mean on some prompts; the first by name among equals."""
    means = {name: _estimate(tables, name, part, confidence).value for name in sorted(tables)}
    known = {name: mean for name, mean in means.items() if not math.isnan(mean)}
    return min(known, key=lambda name: known[name], default=None)
