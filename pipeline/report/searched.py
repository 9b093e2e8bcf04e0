"""What a search for the best attack tried, found and cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report.data import NO_DATA, ReportData, amount, quantity


@dataclass(frozen=True)
class SearchRow:
    """One searched arm in words."""

    arm: str
    chosen: str
    trials: str
    cost: str
    alone: str
    with_search: str


def rows(run: ReportData) -> list[SearchRow]:
    """Return a row for each arm whose options were searched; empty where none were."""
    found = run.verdict.get("search") or {}
    return [_row(arm, found[arm]) for arm in run.arms() if arm in found]


def _row(arm: str, entry: Mapping[str, Any]) -> SearchRow:
    chosen = ", ".join(
        f"{key.partition('.')[2]} {_number(value)}" for key, value in (entry.get("chosen") or {}).items()
    )
    counts = entry.get("counts") or {}
    trials = f"{counts.get('trials', 0)} of {entry.get('wanted', 0)}, {counts.get('pruned', 0)} of them stopped early; "
    trials += f"{counts.get('failed', 0)} more failed; {counts.get('collapsed', 0)} collapsed on dev prompts"
    return SearchRow(
        arm,
        chosen or f"as configured: {entry.get('reason') or NO_DATA}",
        trials,
        _cost(entry.get("cost")),
        _cost(entry.get("collapse_alone")),
        _cost(entry.get("with_collapse")),
    )


def _cost(cost: Mapping[str, Any] | None) -> str:
    if not cost:
        return "no certain collapse"
    flops = f"{quantity(cost.get('flops'))} FLOPs"
    return ", ".join([flops, *(amount(unit, cost.get(unit)) for unit in ("device_seconds", "usd"))])


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
