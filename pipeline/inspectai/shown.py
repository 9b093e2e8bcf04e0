"""Curves of what Inspect measured and `outcomes` cannot hold: shown, never part of a verdict. Pure but for reading.

A column with values outside [0, 1] has Student's t for an interval. What Inspect works out over all samples (a metric
that is no plain mean of a column) is given as Inspect has it, without an interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from evals.base import LABELS
from pipeline.inspectai.scores import Column, Scores, columns, found_of, value_of
from pipeline.inspectai.task import InspectTask
from pipeline.points import CurvePoint
from pipeline.records import BASE_RUNG, Estimate, Rung
from pipeline.statistics import FloatArray, unbounded_estimate
from pipeline.store import RunFolder
from pipeline.track.redact import slug

Estimator = Callable[[Sequence[str]], Estimate]  # from the ids of rungs that share a step: one, or one a seed


def points_of(
    folder: RunFolder, tasks: Iterable[InspectTask], rungs: Sequence[Rung], confidence: float
) -> list[CurvePoint]:
    """Return the curves, shaped as `pipeline.analyse.curves` does: rung 0 is each arm's step 0, seeds are pooled."""
    made: list[CurvePoint] = []
    for task in tasks:
        found = found_of(folder, task, rungs)
        known = [rung for rung in rungs if rung.id in found]
        for column in (column for column in columns(task, found) if not column.bounded):
            made += _curve(task, column.metric, known, partial(_mean, task, found, column, confidence))
        for key, name in _own_metrics(task, found).items():
            made += _curve(task, name, known, partial(_own, found, key))
    return made


def _own_metrics(task: InspectTask, found: Mapping[str, Scores]) -> dict[tuple[str, str], str]:
    """Return Inspect's own metrics by (column, metric), each with the name it is shown under."""
    keys = [(entry["column"], entry["metric"]) for scores in found.values() for entry in scores["metrics"]]
    single = len({column for scores in found.values() for column in scores["columns"]}) == 1
    return {
        (column, metric): f"{task.eval}_{slug(metric)}" if single else f"{task.eval}_{slug(column)}_{slug(metric)}"
        for column, metric in keys
    }


def _mean(
    task: InspectTask, found: Mapping[str, Scores], column: Column, confidence: float, ids: Sequence[str]
) -> Estimate:
    """Estimate a column's mean over samples and seeds; a sample's epochs are averaged first."""
    samples = sorted({row["sample"] for rung in ids for row in found[rung]["rows"]})
    place = {sample: number for number, sample in enumerate(samples)}
    table: FloatArray = np.full((len(ids), len(samples)), np.nan)
    for seed, rung in enumerate(ids):
        values: dict[str, list[float]] = {}
        for row in found[rung]["rows"]:
            if not math.isnan(value := value_of(task, row, column)):
                values.setdefault(row["sample"], []).append(value)
        for sample, drawn in values.items():
            table[seed, place[sample]] = math.fsum(drawn) / len(drawn)
    return unbounded_estimate(table, confidence)


def _own(found: Mapping[str, Scores], key: tuple[str, str], ids: Sequence[str]) -> Estimate:
    """Return the mean over seeds of a metric as Inspect has it; `n` is the fewest samples with a score."""
    values, counts = [], []
    for rung in ids:
        entries = [e["value"] for e in found[rung]["metrics"] if (e["column"], e["metric"]) == key]
        if entries and entries[0] is not None:
            values.append(float(entries[0]))
            scored = {row["sample"] for row in found[rung]["rows"] if not row["error"]}
            counts.append(len(scored))
    return Estimate(math.fsum(values) / len(values), n=min(counts)) if values else Estimate()


def _curve(task: InspectTask, metric: str, known: Sequence[Rung], estimate: Estimator) -> list[CurvePoint]:
    base = [rung for rung in known if rung.id == BASE_RUNG]
    ladder = [rung for rung in known if rung.role == "rung"]
    made = []
    for arm in sorted({rung.arm for rung in ladder}):
        mine = [rung for rung in ladder if rung.arm == arm]
        for seed in (None, *sorted({rung.seed for rung in mine})):
            of_seed = [rung for rung in mine if seed in (None, rung.seed)]
            for step in sorted({0 for _ in base} | {rung.step for rung in of_seed}):
                here = base if step == 0 else [rung for rung in of_seed if rung.step == step]
                made.append(_point(task, metric, arm, seed, here, estimate([rung.id for rung in here])))
    return made


def _point(
    task: InspectTask, metric: str, arm: str, seed: int | None, rungs: Sequence[Rung], estimate: Estimate
) -> CurvePoint:
    doses: list[dict[str, Any]] = [dict(rung.dose.as_dict()) for rung in rungs]
    return CurvePoint(
        arm=arm,
        seed=seed,
        rung=None if seed is None else rungs[0].id,
        step=rungs[0].step,
        eval=task.eval,
        metric=metric,
        role="shown",
        kind="",
        estimate=estimate,
        low_if_unscored=math.nan,
        high_if_unscored=math.nan,
        labels={**dict.fromkeys(LABELS, 0), "complied": estimate.n},
        missing=0,
        seeds=len(rungs),
        dose={unit: math.fsum(dose[unit] for dose in doses) / len(doses) for unit in doses[0]},
        last=seed is not None and rungs[0].last,
        reason="" if seed is None else rungs[0].reason,
    )
