"""The verdict's curves as W&B runs, one for each arm and seed, written offline beside those of the training.

What the tracker logs while a run goes on is no base for a report: rungs come in the order in which they were done,
without rung 0 or intervals, by the judge of that time, and the summary is that of the last attempt. So the points of
`curves.json` are written once more, by ascending dose, into runs whose id is made of what they hold: publishing twice
makes no second copy, and curves by another judge or threshold are other runs, beside the first.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.errors import InstrumentError
from pipeline.files import digest
from pipeline.publish.offline import Piece
from pipeline.records import Dose
from pipeline.report.data import SLOTS, ReportData, has_value, number
from pipeline.report.unreached import is_censored
from pipeline.report.view import collapse_of
from pipeline.schema import TrackConfig
from pipeline.track.tracker import WandbTracker

PART: Final = "measured"
_AXES: Final = ("steps", "examples", "tokens", "flops", "device_seconds", "usd")
Row = tuple[Dose, dict[str, float]]


def rows_of(run: ReportData, arm: str, seed: int) -> list[Row]:
    """Return one ladder's rows by ascending dose, rung 0 first: each metric with `_low`, `_high` and `_n`."""
    doses: dict[int, Dose] = {}
    values: dict[int, dict[str, float]] = {}
    for name in (*SLOTS, *(name for name in run.metrics() if name not in SLOTS)):
        for point in run.curve(arm, name, seed):
            if not has_value(point):
                continue
            step = int(point["step"])
            doses.setdefault(step, _dose(point))
            keys = {"": "value", "_low": "low", "_high": "high", "_n": "n"}
            values.setdefault(step, {}).update({f"{name}{end}": point[key] for end, key in keys.items()})
    return [(doses[step], values[step]) for step in sorted(values)]


def summary_of(run: ReportData, arm: str, seed: int) -> dict[str, Any]:
    """Return the end of one ladder: the verdicts, and the dose at collapse where it was reached."""
    collapse = collapse_of(run, arm, seed)
    return {
        "verdict": run.verdict["verdict"],
        "arm": {"verdict": run.arm_verdict(arm).get("verdict", "inconclusive")},
        "plan_sha256": run.verdict["plan_sha256"],
        "post_hoc": bool(run.verdict.get("post_hoc")),
        "censored": not collapse and is_censored(run, arm, seed),
        "collapse": {unit: collapse[unit] for unit in ("step", *_AXES) if collapse.get(unit) is not None},
    }


def write_curves(
    run: ReportData,
    config: TrackConfig,
    folder: Path,
    pieces: Iterable[Piece],
    figures: Mapping[str, Any],
) -> dict[str, int]:
    """Write the runs that are not there yet.

    Args:
        run: the finished run.
        config: whose project, entity and time to finish are used.
        folder: the run folder.
        pieces: what `folder/wandb` holds.
        figures: the report's plotly figures; they hold all arms, so the first W&B run alone gets them.

    Returns:
        The W&B ids of the runs with the rows that each must hold, by the plan's order.
    """
    ladders = {(arm, seed): rows for arm in run.arms() for seed in run.seeds(arm) if (rows := rows_of(run, arm, seed))}
    held = [
        [arm, seed, [[d.steps, v] for d, v in rows], summary_of(run, arm, seed)]
        for (arm, seed), rows in ladders.items()
    ]
    quiet = TrackConfig("wandb", "offline", config.project, config.entity, config.finish_timeout_s)
    tracker = WandbTracker(quiet, folder, folder.name, run.plan, part=f"{PART}-{digest(held)[:12]}")
    ids = {(arm, seed): tracker.run_id(arm, seed) for arm, seed in ladders}
    there = {piece.run for piece in pieces if piece.ended}
    for piece in pieces:
        if not piece.ended and piece.run in ids.values():
            shutil.rmtree(piece.folder)  # a kill cut it off; nothing of it was sent, and all of it is written anew
    with tracker:
        for place, ((arm, seed), rows) in enumerate(ladders.items()):
            if ids[arm, seed] not in there:
                for dose, values in rows:
                    tracker.rung(arm, seed, dose, values)
                tracker.summary(arm, seed, summary_of(run, arm, seed), figures if place == 0 else {})
    return {ids[key]: len(rows) + (place == 0 and bool(figures)) for place, (key, rows) in enumerate(ladders.items())}


def require_curves(wanted: Mapping[str, int], pieces: Iterable[Piece], folder: Path) -> None:
    """Make sure that the runs of `write_curves` are there whole: tracking never raises, it warns.

    Raises:
        InstrumentError: one is missing or cut off.
    """
    there = {piece.run: piece.rows for piece in pieces if piece.ended}
    if lost := [run for run, rows in wanted.items() if there.get(run) != rows]:
        raise InstrumentError(
            f"the curves of {', '.join(lost)} could not be written for W&B; see {folder / 'wandb' / 'worker.log'}"
        )


def _dose(point: Mapping[str, Any]) -> Dose:
    dose = point["dose"]
    flops, device_seconds, usd = (number(dose.get(unit)) for unit in ("flops", "device_seconds", "usd"))
    return Dose(int(point["step"]), int(dose["examples"]), int(dose["tokens"]), flops, device_seconds, usd)
