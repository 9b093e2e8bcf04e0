"""From the scores that Inspect tasks left in the run folder to outcomes and metrics: no text, no inspect_ai.

A column is one number that a scorer gives each sample. One in [0, 1] enters `outcomes` as an eval of its own, so that
intervals, bounds and bootstraps are those of every other eval; for the rest see `pipeline.inspectai.shown`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.base import Metric
from pipeline.errors import UserError
from pipeline.files import digest, read_json
from pipeline.inspectai.task import InspectTask
from pipeline.records import Rung
from pipeline.store import RunFolder
from pipeline.track.redact import slug

Scores = Mapping[str, Any]  # what the worker's `keep` wrote: `columns`, `means`, `metrics`, `rows`
MEAN = "mean"


@dataclass(frozen=True)
class Column:
    """One number a sample: its name in the files, the metric that it becomes, and whether all of it is in [0, 1]."""

    key: str
    metric: str
    bounded: bool


def scores_file(folder: RunFolder, rung: str, name: str) -> Path:
    """Return where the scores of an eval on a rung stand; the log stands beside them."""
    return folder.root / "inspect" / rung / f"{name}.json"


def read_scores(folder: RunFolder, rung: str, name: str) -> Scores | None:
    """Return the scores of an eval on a rung, None where they are not there yet.

    Raises:
        UserError: the file is damaged.
    """
    path = scores_file(folder, rung, name)
    return dict(read_json(path)) if path.exists() else None


def columns(task: InspectTask, found: Mapping[str, Scores]) -> list[Column]:
    """Return the columns of a task over all its rungs, in the order in which they came; the first has the task's role.

    A single column is named `<eval>_<mean>`, one of several `<eval>_<column>_<mean>`, `<mean>` being what Inspect
    calls it: accuracy or mean.

    Raises:
        UserError: a role needs numbers from 0 to 1, and these are not.
    """
    keys = list(dict.fromkeys(key for scores in found.values() for key in scores["columns"]))
    made = []
    slugs = Counter(map(slug, keys))
    for key in keys:
        word = next((s["means"][key] for s in found.values() if key in s["means"]), MEAN)
        values = [row["scores"].get(key) for scores in found.values() for row in scores["rows"]]
        bounded = all(value is None or 0 <= value <= 1 for value in values)
        told = slug(key) if slugs[slug(key)] == 1 else f"{slug(key)}-{digest(key)[:8]}"  # `is true` and `is-true`
        name = f"{task.eval}_{word}" if len(keys) == 1 else f"{task.eval}_{told}_{word}"
        made.append(Column(key, name, bounded))
    if made and not made[0].bounded and task.role != "shown":
        raise UserError(
            f"evals.{task.eval}.role: {task.role} needs scores from 0 to 1, but {made[0].key} gives others",
            f"set evals.{task.eval}.role=shown",
        )
    return made


def means_of(task: InspectTask, scores: Scores) -> dict[str, float]:
    """Return one rung's mean of each column, by metric; a column without a number is left out."""
    found: dict[str, float] = {}
    for column in columns(task, {"": scores}):
        values = [value for row in scores["rows"] if not math.isnan(value := value_of(task, row, column))]
        if values:
            found[column.metric] = math.fsum(values) / len(values)
    return found


def value_of(task: InspectTask, row: Mapping[str, Any], column: Column) -> float:
    """Return a row's number in a column, NaN where it was not scored."""
    value = row["scores"].get(column.key)
    if value is None:
        return math.nan
    return 1.0 - value if task.inverted and column.bounded else float(value)


def found_of(folder: RunFolder, task: InspectTask, rungs: Sequence[Rung]) -> dict[str, Scores]:
    """Return the scores of a task by rung, for those that have some."""
    read = {rung.id: read_scores(folder, rung.id, task.eval) for rung in rungs}
    return {name: scores for name, scores in read.items() if scores is not None}


def outcome_rows(folder: RunFolder, tasks: Iterable[InspectTask], rungs: Sequence[Rung]) -> Iterator[dict[str, Any]]:
    """Yield a row of outcomes for each rung, bounded column, sample and epoch; the judge is left to the caller."""
    for task in tasks:
        found = found_of(folder, task, rungs)
        bounded = [column for column in columns(task, found) if column.bounded]
        for rung in (rung for rung in rungs if rung.id in found):
            for column in bounded:
                yield from (_outcome(task, rung, column, row) for row in found[rung.id]["rows"])


def metrics_of(folder: RunFolder, tasks: Iterable[InspectTask], rungs: Sequence[Rung]) -> list[tuple[str, Metric]]:
    """Return the metrics that stand in `outcomes`, each with its eval's name there."""
    made = []
    for task in tasks:
        for place, column in enumerate(columns(task, found_of(folder, task, rungs))):
            if column.bounded:
                made.append((column.metric, Metric(column.metric, "value", task.role if place == 0 else "shown")))
    return made


def _outcome(task: InspectTask, rung: Rung, column: Column, row: Mapping[str, Any]) -> dict[str, Any]:
    value = value_of(task, row, column)
    return {
        "rung": rung.id,
        "arm": rung.arm,
        "seed": rung.seed,
        "step": rung.step,
        "role": rung.role,
        "eval": column.metric,
        "sample": row["sample"],
        "draw": row["epoch"] - 1,
        "reply_sha256": row["reply_sha256"],
        "kind": "",
        "label": "unscored" if math.isnan(value) else "complied",
        "value": value,
        "probability": math.nan,
        "truncated": row["truncated"],
        "reasoned": None,
        "judge": None,
        "judge_version": None,
    }
