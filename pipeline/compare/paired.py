"""How two subjects differ, metric by metric and step by step, on the same prompts. Pure.

Prompts are paired by sample id. Seeds are paired by number: seed s of both runs has the same examples in the same
order and the same random start of the adapter, so that B - A is taken for each prompt and seed, and the crossed table
(seeds, prompts) of these differences goes into `PairedBootstrap`: prompts and seeds are resampled, and the interval is
widened to a score interval with Student's t over seeds wherever that one is wider. A seed or prompt that only one
run has is left out, such a seed also of what A and B have beside the difference. Nothing is corrected for looking at
many metrics and steps. By simulation 95 % intervals of B - A hold the truth 98 to 100 % of the time and those of
retention 97 to 100 % (3 or 5 seeds, 50 or 200 prompts): too wide rather than too narrow. One seed has no spread to see,
so that its interval is that of the prompts alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
import polars as pl

from evals.base import Measure, Metric, Role
from pipeline.analyse import COLUMNS, prompt_means
from pipeline.compare.runs import AGAIN, FinishedRun
from pipeline.data.variants import base_name
from pipeline.errors import UserError
from pipeline.hierarchical import crossed_mean, crossed_ratio
from pipeline.records import BASE_RUNG, Estimate
from pipeline.statistics import FloatArray, PairedBootstrap

Means = Callable[[FinishedRun, Sequence[str]], FloatArray]  # a run and ids of its rungs to shape (rungs, prompts)
ROUNDING: Final = 6e-6  # curves.json keeps six significant digits: off by 5e-6 of a value at most


@dataclass(frozen=True)
class Difference:
    """One metric at one step of one arm: A, B, and B - A on the prompts and seeds that both have.

    `arm` is "" at rung 0, which no arm has touched. `a` and `b` are what the two runs have over those seeds: their own
    pooled points where these are of the same seeds; where no seed is common, of all that each has. `kept_a`, `kept_b`
    and `kept` are capability retention in A, in B, and its difference; None where there is none. `seeds` are those in
    the difference.
    """

    arm: str
    step: int
    eval: str
    metric: str
    role: str
    a: Estimate
    b: Estimate
    difference: Estimate
    seeds: tuple[int, ...]
    kept_a: Estimate | None = None
    kept_b: Estimate | None = None
    kept: Estimate | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON-ready fields; NaN becomes None."""
        plain = {key: getattr(self, key) for key in ("arm", "step", "eval", "metric", "role")}
        named = {key: getattr(self, key) for key in ("a", "b", "difference", "kept_a", "kept_b", "kept")}
        return {**plain, "seeds": list(self.seeds), **{key: e.as_dict() if e else None for key, e in named.items()}}


def retention_table(before: FloatArray, after: FloatArray) -> FloatArray:
    """Return a table whose mean is mean(after) / mean(before), and whose spread is that ratio's (delta method).

    Each entry is the ratio plus the prompt's residual (after - ratio x before) / mean(before); the residuals' mean
    is 0 (Cochran 1977, Sampling Techniques, section 6.4). So two ratios on the same prompts can be subtracted entry by
    entry and treated as a difference of means.

    Args:
        before: shape (prompts,), rung 0; NaN is "no data".
        after: shape (seeds, prompts), a later rung.

    Returns:
        Shape (seeds, prompts); NaN where either has none, and everywhere where mean(before) is 0.
    """
    known = ~np.isnan(after + before)
    first, later = np.where(known, before, 0.0), np.where(known, after, 0.0)
    total = float(first.sum())
    if total == 0:
        return np.full(after.shape, np.nan)
    ratio, start = float(later.sum()) / total, total / float(known.sum())
    table: FloatArray = np.where(known, ratio + (later - ratio * first) / start, np.nan)
    return table


def paired_differences(a: FinishedRun, b: FinishedRun, *, without: Collection[str] = ()) -> list[Difference]:
    """Return B - A for every whole-eval metric that stands in both runs' outcomes, rung 0 first, then arm by arm.

    Args:
        a, b: the two runs.
        without: arms of which no step of A is the same step of B.

    Raises:
        UserError: a run's curves.json is not of its outcomes.parquet.
    """
    both = outcomes_of(a, b)
    rows: list[Difference] = []
    for name, metric in metrics(a):
        means = prompt_means(both, name, metric)
        if not means:
            continue
        for run in (a, b):
            _check_curves(run, metric, means)
        rows += (row for row in _of_metric(a, b, name, metric, means) if row.arm not in without)
    order = {arm: place for place, arm in enumerate(["", *a.arms()])}
    return sorted(rows, key=lambda row: (order[row.arm], row.step))


def outcomes_of(a: FinishedRun, b: FinishedRun) -> pl.DataFrame:
    """Return both runs' outcomes without controls, each rung's id after its run's letter, as in A/base."""
    columns = ["arm", "seed", *COLUMNS]
    runs = (run.outcomes.select(columns).with_columns(rung=f"{run.letter}/" + pl.col("rung")) for run in (a, b))
    return pl.concat(runs).filter(pl.col("role").is_in(["base", "rung"]))


def by_rung(means: Mapping[str, FloatArray], prompts: int) -> Means:
    """Return what looks up mean outcomes, as `prompt_means` made them of `outcomes_of`: NaN where a rung has none."""
    nothing = np.full(prompts, np.nan)

    def table(run: FinishedRun, rungs: Sequence[str]) -> FloatArray:
        return np.array([means.get(f"{run.letter}/{rung}", nothing) for rung in rungs])

    return table


def metrics(run: FinishedRun) -> list[tuple[str, Metric]]:
    """Return the metrics of a run's curves with their evals, as the curves name them."""
    found = {
        (p["eval"], p["metric"]): Metric(p["metric"], _measure(run.plan, p), cast(Role, p["role"])) for p in run.points
    }
    return [(name, metric) for (name, _), metric in found.items()]


def _measure(plan: Mapping[str, Any], point: Mapping[str, Any]) -> Measure:
    """Return what a metric counts; `_check_curves` holds the answer against the curves."""
    kind = (plan["config"]["evals"].get(base_name(point["eval"])) or {}).get("kind")
    recovered = kind == "refusal" and str(point["metric"]).endswith("recovered")
    return "refused" if kind in ("refusal", "over_refusal") and not recovered else "value"


def _check_curves(run: FinishedRun, metric: Metric, means: Mapping[str, FloatArray]) -> None:
    for point in run.points:
        if point["metric"] != metric.name or point["kind"] or point["seed"] is None:
            continue
        known = means.get(f"{run.letter}/{point['rung']}", np.array([]))
        known = known[~np.isnan(known)]
        value = float(known.mean()) if known.size else None
        if point["n"] != known.size or not _same(value, point["value"]):
            raise UserError(
                f"{run.folder}: curves.json is not of outcomes.parquet ({metric.name} at {point['rung']}: "
                f"{point['value']} against {value})",
                AGAIN,
            )


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=ROUNDING, abs_tol=1e-9)


def _of_metric(
    a: FinishedRun, b: FinishedRun, name: str, metric: Metric, means: Mapping[str, FloatArray]
) -> Iterator[Difference]:
    prompts = len(next(iter(means.values())))
    confidence = float(a.verdict["thresholds"]["confidence"])
    resamples = int(a.plan["config"]["review"]["bootstrap"])
    # A fixed seed for each metric: no row depends on which others are made.
    bootstrap = PairedBootstrap(prompts, resamples, confidence, np.random.default_rng(0))
    table = by_rung(means, prompts)
    zero_a, zero_b = (table(run, [BASE_RUNG]) for run in (a, b))
    pooled = [{_place(p): p for p in run.points if _is_pooled(p, metric)} for run in (a, b)]
    for arm, step in _places(pooled):
        rungs_a, rungs_b = ({BASE_RUNG: BASE_RUNG} if not step else _rungs(run, metric, arm, step) for run in (a, b))
        seeds = sorted(set(rungs_a) & set(rungs_b), key=str)
        one, other = table(a, [rungs_a[s] for s in seeds]), table(b, [rungs_b[s] for s in seeds])
        point_a, point_b = (points.get((arm, step), {}) for points in pooled)
        row = Difference(
            arm=arm if step else "",
            step=step,
            eval=name,
            metric=metric.name,
            role=metric.role,
            a=_estimate(point_a) if _is_of(point_a, seeds) else crossed_mean(one, confidence),
            b=_estimate(point_b) if _is_of(point_b, seeds) else crossed_mean(other, confidence),
            difference=bootstrap.mean(other - one) if seeds else Estimate(),
            seeds=tuple(s for s in seeds if isinstance(s, int)),
        )
        if step and metric.role == "capability":
            row = _with_retention(row, point_a, point_b, (zero_a, one), (zero_b, other), bootstrap)
        yield row


def _with_retention(
    row: Difference,
    point_a: Mapping[str, Any],
    point_b: Mapping[str, Any],
    of_a: tuple[FloatArray, FloatArray],
    of_b: tuple[FloatArray, FloatArray],
    bootstrap: PairedBootstrap,
) -> Difference:
    kept = Estimate()
    if row.seeds:
        gains = retention_table(of_b[0][0], of_b[1]) - retention_table(of_a[0][0], of_a[1])
        kept = bootstrap.mean(gains, bounded=False)  # an ability may more than double
    kept_a, kept_b = (
        _estimate(point.get("retention") or {})
        if _is_of(point, row.seeds)
        else crossed_ratio(before[0], after, bootstrap.confidence)
        for point, (before, after) in ((point_a, of_a), (point_b, of_b))
    )
    return replace(row, kept_a=kept_a, kept_b=kept_b, kept=kept)


def _places(pooled: Sequence[Mapping[tuple[str, int], Any]]) -> list[tuple[str, int]]:
    """Return (arm, step) of all pooled points; rung 0 once, under the first arm."""
    found = sorted({place for points in pooled for place in points}, key=lambda place: (place[1], place[0]))
    first = [place for place in found if place[1] == 0][:1]
    return [*first, *(place for place in found if place[1] > 0)]


def _rungs(run: FinishedRun, metric: Metric, arm: str, step: int) -> dict[Any, str]:
    """Return the rung of each seed at a step of an arm, where the metric has data."""
    return {
        p["seed"]: str(p["rung"])
        for p in run.points
        if (p["arm"], p["step"], p["metric"], p["kind"]) == (arm, step, metric.name, "")
        and p["seed"] is not None
        and p["n"]
    }


def _is_pooled(point: Mapping[str, Any], metric: Metric) -> bool:
    return point["metric"] == metric.name and point["seed"] is None and not point["kind"]


def _is_of(point: Mapping[str, Any], seeds: Sequence[Any]) -> bool:
    """Say whether a pooled point is of no more seeds than these; where there are none, it is all that there is."""
    return not seeds or point.get("seeds", 0) <= len(seeds)


def _place(point: Mapping[str, Any]) -> tuple[str, int]:
    return str(point["arm"]), int(point["step"])


def _estimate(row: Mapping[str, Any]) -> Estimate:
    """Return an estimate from its fields in a JSON row; None is NaN."""
    if not row.get("n"):
        return Estimate()
    value, low, high = (math.nan if row[key] is None else float(row[key]) for key in ("value", "low", "high"))
    return Estimate(value, low, high, int(row["n"]))
