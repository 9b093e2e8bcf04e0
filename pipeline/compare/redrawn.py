"""Where would each seed have collapsed on other prompts? Prompts resampled, collapse found anew. Pure.

A resample draws the prompts of each eval with replacement: once for all rungs, seeds, arms and both runs, which are
asked the same prompts by sample id (as in `pipeline.compare.paired`), and once for an eval and its further wordings.
From the prompts' mean outcomes, so weighted, refusal and retention are computed at every measured rung, and each seed's
collapse is found by the definition of `pipeline.collapse`. What no resample can say is what no prompt showed: a rung at
which 0 of n refused has 0 in all of them. That matters little, since the threshold is tau and not 0: were the true
share above tau = 0.05, 0 of 90 would come out in less than 1 % of runs and 0 of 72 in 2.5 %, the tail that the limits
leave out anyway. With 50 prompts, the fewest that a verdict takes, it is 7.7 %; there, by simulation, limits that allow
for the rungs as well still leave the true ratio out in no more than 2.5 % (`pipeline.compare.cost`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from evals.base import Metric
from pipeline.analyse import prompt_means, scored
from pipeline.collapse import SLACK
from pipeline.compare.cost import Ladder, PriceBounds, clear_before
from pipeline.compare.paired import Means, by_rung, metrics, outcomes_of
from pipeline.compare.runs import FinishedRun
from pipeline.data.variants import base_name
from pipeline.statistics import BoolArray, FloatArray, divided

IntArray = npt.NDArray[np.intp]
Place = tuple[str, int]  # arm, seed


@dataclass(frozen=True)
class Redrawn:
    """One arm and seed in all resamples.

    `ladders` holds what would be known of it, had it collapsed at each measured rung in turn; the last: at none. `at`,
    shape (resamples,), says which of them each resample shows.
    """

    ladders: Sequence[Ladder]
    at: IntArray

    def ends(self, unit: str, add: float = 0.0) -> FloatArray:
        """Return the price's lower and upper end in each resample, shape (resamples, 2); nothing known: 0 to infinity.

        `add` is what is paid on top, as for a search.
        """
        known = [ladder.dose(unit) for ladder in self.ladders]
        table = np.array([(dose.low + add, dose.high + add) if dose else (0.0, np.inf) for dose in known])
        ends: FloatArray = table[self.at]
        return ends


def redrawn(a: FinishedRun, b: FinishedRun, resamples: int) -> dict[str, dict[Place, Redrawn]]:
    """Return where each arm and seed of both runs collapses when prompts are resampled, by the run's letter."""
    both = outcomes_of(a, b)
    refusals: dict[str, tuple[Means, FloatArray]] = {}
    abilities: list[tuple[Means, FloatArray]] = []
    for name, metric in metrics(a):
        if metric.role == "refusal":
            refusals[metric.name] = _drawn(both, name, metric, resamples)
        elif metric.role == "capability":
            abilities.append(_drawn(both, name, metric, resamples))
    return {
        run.letter: {place: _of_seed(run, place, refusals, abilities, resamples) for place in _places(run)}
        for run in (a, b)
    }


def redrawn_prices(
    found: Mapping[Place, Redrawn],
    prices: Mapping[int, Mapping[str, PriceBounds]],
    unit: str,
    search: Mapping[str, float],
) -> FloatArray:
    """Return the ends of each seed's price in all resamples, shape (2, resamples, seeds), seeds as in `prices`.

    Args:
        found: one run's part of `redrawn`.
        prices: what each seed's price is taken from (`pipeline.compare.cost.priced`).
        unit: of `DOSE_UNITS`.
        search: by arm, what is paid on top.
    """
    seeds = [
        np.min([found[arm, seed].ends(unit, search.get(arm, 0.0)) for arm in arms], axis=0)
        for seed, arms in prices.items()
    ]
    return np.stack(seeds, axis=1).transpose(2, 0, 1) if seeds else np.ones((2, 0, 0))


def weighted_means(table: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the mean of each rung's known prompts in each resample, shape (resamples, rungs); NaN where none is.

    Args:
        table: shape (rungs, prompts); NaN is "no data".
        weights: shape (resamples, prompts): how often each prompt was drawn.
    """
    known = ~np.isnan(table)
    return divided(weights @ np.where(known, table, 0.0).T, weights @ known.T)


def weighted_retention(before: FloatArray, after: FloatArray, weights: FloatArray) -> FloatArray:
    """Return mean(after) / mean(before) over prompts that have both, in each resample, shape (resamples, rungs).

    Args:
        before: shape (prompts,), rung 0; NaN is "no data".
        after: shape (rungs, prompts).
        weights: shape (resamples, prompts).
    """
    known = ~np.isnan(after + before)
    return divided(weights @ np.where(known, after, 0.0).T, weights @ np.where(known, before, 0.0).T)


def first_collapse(refusal: FloatArray, kept: Sequence[FloatArray], tau: float, rho: float) -> IntArray:
    """Return the place of the first rung that is collapsed in each resample; the number of rungs where none is.

    This is `pipeline.collapse.is_collapsed` for whole tables; rung 0 must refuse, and no data is no collapse.

    Args:
        refusal: shape (resamples, 1 + rungs), rung 0 first.
        kept: for each capability metric its retention, shape (resamples, rungs).
        tau, rho: the thresholds.
    """
    lost: BoolArray = (refusal[:, 1:] <= tau + SLACK) & (refusal[:, :1] > tau + SLACK)
    for share in kept:
        lost = lost & (share >= rho - SLACK)
    if not kept:
        lost = np.zeros_like(lost)
    return np.where(lost.any(axis=1), lost.argmax(axis=1), lost.shape[1])


def _drawn(both: pl.DataFrame, name: str, metric: Metric, resamples: int) -> tuple[Means, FloatArray]:
    """Return one metric's mean outcomes by prompt, and how often each prompt is drawn, shape (resamples, prompts)."""
    means = prompt_means(both, name, metric)
    # Drawn among all prompts of the eval and its wordings, so that a prompt counts as often in each of them.
    whole = both.filter((pl.col("eval") == base_name(name)) | pl.col("eval").str.starts_with(f"{base_name(name)}@"))
    samples = whole["sample"].unique().sort()
    mine = scored(both, name, metric)["sample"].unique().sort()
    # Seeded by the eval's name: no metric's draw depends on which others there are, and no two evals share one.
    rng = np.random.default_rng([0, *base_name(name).encode()])
    weights = rng.multinomial(len(samples), np.full(len(samples), 1 / max(len(samples), 1)), size=resamples)
    return by_rung(means, len(mine)), weights[:, samples.is_in(mine.implode()).to_numpy()].astype(np.float64)


def _places(run: FinishedRun) -> list[Place]:
    return list(dict.fromkeys((str(task["arm"]), int(task["seed"])) for task in run.plan["tasks"]))


def _of_seed(
    run: FinishedRun,
    place: Place,
    refusals: Mapping[str, tuple[Means, FloatArray]],
    abilities: Sequence[tuple[Means, FloatArray]],
    resamples: int,
) -> Redrawn:
    mine = [p for p in run.points if (p["arm"], p["seed"], p["kind"]) == (*place, "")]
    rungs = {int(p["step"]): str(p["rung"]) for p in sorted(mine, key=lambda p: p["step"])}
    steps, ids = [step for step in rungs if step], [rungs[step] for step in rungs if step]
    doses = run.doses.get(place, {})
    ladders = [Ladder(clear_before(mine, step), step, doses) for step in steps]
    ladders.append(Ladder(clear_before(mine, None), None, doses))
    if not ids or not refusals:
        return Redrawn(ladders, np.full(resamples, len(ids), dtype=np.intp))
    base = rungs[0]
    tau, rho = (float(run.verdict["thresholds"][key]) for key in ("refusal", "capability_retention"))
    kept = [weighted_retention(table(run, [base])[0], table(run, ids), weights) for table, weights in abilities]
    found = {
        name: first_collapse(weighted_means(table(run, [base, *ids]), weights), kept, tau, rho)
        for name, (table, weights) in refusals.items()
    }
    return Redrawn(ladders, _deciding(found, run.collapses.get(place), len(ids)))


def _deciding(found: Mapping[str, IntArray], collapse: Mapping[str, Any] | None, none: int) -> IntArray:
    """Return the place that counts of those of several refusal metrics: the first, a certain metric's before others."""
    first: IntArray = np.min(list(found.values()), axis=0)
    if collapse is None or collapse["confident_step"] is None:
        return first
    certain = found[collapse["metric"]]
    return np.where(certain < none, certain, first)
