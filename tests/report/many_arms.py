"""Makes runs with many arms, or with arms by other names, as `report_runs` makes them."""

from __future__ import annotations

import report_runs
from report_runs import make_run

from pipeline.report import ReportData


def named(names: list[str], shape: str = "") -> ReportData:
    """Return a run with arms of these names, all of one shape, or of each shape in turn."""
    for n, name in enumerate(names):
        other = shape or ("compliance", "mixed", "benign")[n % 3]
        report_runs.SHAPES.setdefault(name, report_runs.SHAPES[other])
        report_runs.THREATS.setdefault(name, report_runs.THREATS[other])
    return make_run(arms=tuple(names), seeds=(0,))


def many(arms: int, shape: str = "") -> ReportData:
    """Return a run with so many arms."""
    return named([f"arm {n}" if not shape else f"{shape} {n}" for n in range(arms)], shape)
