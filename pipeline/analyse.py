"""Outcomes to curves and collapses. Pure: tables in, records out, and the same bytes for the same replies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from evals.base import LABELS, Metric
from pipeline.collapse import by_arm_and_seed, collapses
from pipeline.hierarchical import crossed_difference, crossed_mean, crossed_ratio
from pipeline.points import Collapse, Collapses, CurvePoint, rounded
from pipeline.records import BASE_RUNG, Dose, Rung
from pipeline.schema import ReviewConfig
from pipeline.statistics import BoolArray, FloatArray, at_worst

__all__ = ["Collapse", "Collapses", "CurvePoint", "collapses", "curves", "rounded", "to_json"]

KEY = ("rung", "eval", "sample", "draw")
COLUMNS = (*KEY, "role", "kind", "label", "value")
NEITHER = ("partial", "degenerate", "unscored")  # no refusal and no compliance: a claim must survive either


@dataclass(frozen=True)
class _Table:
    """One metric's replies: for each rung id the mean over draws of each prompt, shape (prompts,).

    NaN in `mean` is a prompt without a scored reply; in `floor` and `ceiling` it is a prompt without any reply. They
    hold the least and the most that each reply may count: an unscored one 0 and 1; as a refusal also one that neither
    refuses nor complies (partial, degenerate) 0 and 1.
    """

    mean: Mapping[str, FloatArray]
    floor: Mapping[str, FloatArray]
    ceiling: Mapping[str, FloatArray]
    labels: Mapping[str, Mapping[str, int]]
    prompts: int

    def of(self, which: str, rungs: Iterable[str]) -> FloatArray:
        """Return `mean`, `floor` or `ceiling` of some rungs, shape (rungs, prompts)."""
        rows: Mapping[str, FloatArray] = getattr(self, which)
        return np.array([rows.get(rung, np.full(self.prompts, np.nan)) for rung in rungs])

    def limit(self, which: str, rungs: Iterable[str], base: str) -> FloatArray:
        """Return `floor` or `ceiling` of some rungs with what is missing at its worst, shape (rungs, prompts)."""
        table = self.of(which, rungs)
        return at_worst(table, ~np.isnan(self.of("floor", [base])), float(which == "ceiling"))


@dataclass(frozen=True)
class _Curve:
    """What all points of one metric and kind share."""

    eval: str
    metric: Metric
    kind: str
    table: _Table
    confidence: float


def curves(
    outcomes: pl.DataFrame,
    rungs: Sequence[Rung],
    metrics: Sequence[tuple[str, Metric]],
    review: ReviewConfig,
) -> list[CurvePoint]:
    """Return every metric against dose: per arm and seed, and per arm with its seeds pooled.

    Rung 0 is repeated as the step 0 point of each arm and seed. A rung without replies is a point of
    no data. Controls are left out. Capability is also given for each kind of its samples.

    Args:
        outcomes: one row per reply with the columns `COLUMNS` (others are ignored).
        rungs: all rungs of the run; those with role `rung` make the ladders.
        metrics: (eval, metric) pairs, the eval by its name in `outcomes`.
        review: the confidence of every interval.

    Raises:
        ValueError: if a column is missing, a reply stands twice, a label is unknown or a value is not in
            [0, 1].
    """
    _check(outcomes)
    outcomes = outcomes.filter(pl.col("role").is_in(["base", "rung"])).sort(KEY)
    ladder = sorted((r for r in rungs if r.role == "rung"), key=lambda r: (r.arm, r.seed, r.step))
    base = next((r for r in rungs if r.role == "base"), Rung(BASE_RUNG, "", -1, 0, "base", "none"))
    points: list[CurvePoint] = []
    for name, metric in metrics:
        rows = _scored(outcomes.filter(pl.col("eval") == name), metric)
        kinds = sorted(set(rows["kind"]) - {""}) if metric.role == "capability" else []
        for kind in ["", *(kinds if len(kinds) > 1 else [])]:
            table = _tabulate(rows.filter(pl.col("kind") == kind) if kind else rows)
            curve = _Curve(name, metric, kind, table, review.confidence)
            for arm in sorted({r.arm for r in ladder}):
                points += _arm_points(curve, base, [r for r in ladder if r.arm == arm])
    return points


def to_json(points: Sequence[CurvePoint], found: Collapses) -> dict[str, Any]:
    """Return `curves.json` as plain data in a fixed order, six significant digits, NaN as None."""
    order = sorted(points, key=lambda p: (p.metric, p.kind, *by_arm_and_seed((p.arm, p.seed)), p.step))
    rows = [
        {"arm": arm, "seed": seed, "collapse": c.as_dict() if c else None}
        for (arm, seed), c in ((key, found[key]) for key in sorted(found, key=by_arm_and_seed))
    ]
    return {"version": 1, "points": [p.as_dict() for p in order], "collapses": rows}


def scored(outcomes: pl.DataFrame, name: str, metric: Metric) -> pl.DataFrame:
    """Return the replies of one eval to which a metric applies, with `y`: what it counts of each (null: unscored).

    Raises:
        ValueError: as for `curves`.
    """
    _check(outcomes)
    return _scored(outcomes.filter(pl.col("eval") == name).sort(KEY), metric)


def prompt_means(outcomes: pl.DataFrame, name: str, metric: Metric) -> dict[str, FloatArray]:
    """Return one metric's mean over draws by rung id, each of shape (prompts,), prompts in the order of their ids.

    NaN is a prompt without a scored reply. Empty where no reply has the metric.

    Raises:
        ValueError: as for `curves`.
    """
    return dict(_tabulate(scored(outcomes, name, metric)).mean)


def reply_counts(outcomes: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Return what became of the replies, by eval: n, cut off (`truncated`), with reasoning split off, and two labels.

    A reply that was cut off may lack the refusal or the answer that it was about to give.
    """
    counted = outcomes.group_by("eval", maintain_order=True).agg(
        pl.len().alias("n"),
        pl.col("truncated").sum(),
        pl.col("reasoned").sum(),
        *((pl.col("label") == label).sum().alias(label) for label in ("degenerate", "unscored")),
    )
    return {str(row.pop("eval")): {key: int(value) for key, value in row.items()} for row in counted.to_dicts()}


def _check(outcomes: pl.DataFrame) -> None:
    absent = [c for c in COLUMNS if c not in outcomes.columns]
    if absent:
        raise ValueError(f"outcomes lack the columns {absent}")
    if outcomes.select(KEY).is_duplicated().any():
        raise ValueError("outcomes hold a reply twice (rung, eval, sample, draw)")
    unknown = set(outcomes["label"]) - set(LABELS)
    if unknown:
        raise ValueError(f"unknown labels {sorted(unknown)}")


def _scored(rows: pl.DataFrame, metric: Metric) -> pl.DataFrame:
    """Add `y`, what the metric counts of each reply (null: unscored), and `most`, the most that it may count.

    Replies that the metric does not apply to are dropped.

    A `value` that is NaN although the reply was scored means that the metric does not apply to its sample (no
    reference answer): neither a number nor an unscored reply.
    """
    unscored = pl.col("label") == "unscored"
    if metric.measure == "refused":
        y = (pl.col("label") == "refused").cast(pl.Float64)
    else:
        y = pl.col("value").cast(pl.Float64).fill_nan(None)
    rows = rows.with_columns(y=pl.when(unscored).then(None).otherwise(y))
    open_ended = pl.col("label").is_in(NEITHER) if metric.measure == "refused" else unscored
    rows = rows.with_columns(most=pl.when(open_ended).then(1.0).otherwise(pl.col("y")))
    if rows.filter(~pl.col("y").is_between(0, 1)).height:
        raise ValueError(f"metric {metric.name}: a value is outside [0, 1]")
    return rows.filter(unscored | pl.col("y").is_not_null())


def _tabulate(rows: pl.DataFrame) -> _Table:
    prompts = rows["sample"].unique().sort()
    place = {sample: i for i, sample in enumerate(prompts)}
    means = rows.group_by("rung", "sample", maintain_order=True).agg(
        mean=pl.col("y").mean(),
        floor=pl.col("y").fill_null(0).mean(),
        ceiling=pl.col("most").mean(),
    )
    tables: dict[str, dict[str, FloatArray]] = {"mean": {}, "floor": {}, "ceiling": {}}
    for (rung,), part in means.group_by("rung", maintain_order=True):
        columns = [place[sample] for sample in part["sample"]]
        for name, table in tables.items():
            table[str(rung)] = np.full(len(prompts), np.nan)
            table[str(rung)][columns] = part[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
    labels: dict[str, dict[str, int]] = {}
    for rung, label, count in rows.group_by("rung", "label").len().sort("rung", "label").iter_rows():
        labels.setdefault(rung, dict.fromkeys(LABELS, 0))[label] = count
    return _Table(tables["mean"], tables["floor"], tables["ceiling"], labels, len(prompts))


def _arm_points(curve: _Curve, base: Rung, ladder: Sequence[Rung]) -> list[CurvePoint]:
    """Return the points of one arm: its seeds pooled at each step, then each seed, step 0 first."""
    zero = _point(curve, base, [base])
    arm, steps = ladder[0].arm, sorted({r.step for r in ladder if r.step > 0})
    pooled = [zero, *(_point(curve, base, [r for r in ladder if r.step == step]) for step in steps)]
    points = [replace(p, arm=arm, seed=None, rung=None, last=False, reason="") for p in pooled]
    for seed in sorted({r.seed for r in ladder}):
        points.append(replace(zero, arm=arm, seed=seed))
        points += [_point(curve, base, [r]) for r in ladder if r.seed == seed and r.step > 0]
    return points


def _point(curve: _Curve, base: Rung, rungs: Sequence[Rung]) -> CurvePoint:
    """Measure one point from the rungs that share its step: one rung, or one a seed."""
    table, ids = curve.table, [r.id for r in rungs]
    replied: BoolArray = ~np.isnan(table.of("floor", ids))
    labels = [table.labels.get(i, {}) for i in ids]
    point = CurvePoint(
        arm=rungs[0].arm,
        seed=rungs[0].seed,
        rung=ids[0],
        step=rungs[0].step,
        eval=curve.eval,
        metric=curve.metric.name,
        role=curve.metric.role,
        kind=curve.kind,
        estimate=crossed_mean(table.of("mean", ids), curve.confidence),
        low_if_unscored=crossed_mean(table.limit("floor", ids, base.id), curve.confidence).low,
        high_if_unscored=crossed_mean(table.limit("ceiling", ids, base.id), curve.confidence).high,
        labels={label: sum(counts.get(label, 0) for counts in labels) for label in LABELS},
        missing=int((~replied & ~np.isnan(table.of("floor", [base.id]))).sum()),
        seeds=int(replied.any(axis=1).sum()),
        dose=_mean_dose([r.dose for r in rungs]),
        last=rungs[0].last,
        reason=rungs[0].reason,
    )
    return point if ids == [base.id] else _compared(curve, base, ids, point)


def _compared(curve: _Curve, base: Rung, ids: Sequence[str], point: CurvePoint) -> CurvePoint:
    """Add the difference from rung 0 and, for capability, what is retained of it."""
    table, confidence = curve.table, curve.confidence
    before, after = table.of("mean", [base.id])[0], table.of("mean", ids)
    point = replace(point, difference=crossed_difference(before, after, confidence))
    if curve.metric.role != "capability":
        return point
    retention = crossed_ratio(before, after, confidence)
    worst = best = retention
    if point.missing or any(table.labels.get(rung, {}).get("unscored") for rung in (base.id, *ids)):
        least, most = table.limit("floor", ids, base.id), table.limit("ceiling", ids, base.id)
        worst = crossed_ratio(table.of("ceiling", [base.id])[0], least, confidence)
        best = crossed_ratio(table.of("floor", [base.id])[0], most, confidence)
    return replace(
        point,
        retention=retention,
        retention_low_if_unscored=worst.low,
        retention_high_if_unscored=best.high,
    )


def _mean_dose(doses: Sequence[Dose]) -> dict[str, float]:
    rows = [dose.as_dict() for dose in doses]
    return {unit: math.fsum(row[unit] for row in rows) / len(rows) for unit in rows[0]}
