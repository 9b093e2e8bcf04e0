"""The analyse and report stages as files: outcomes → curves.json, verdict.json → report.html, terminal, tracker."""

from __future__ import annotations

from typing import Any

import polars as pl

from pipeline.analyse import collapses, curves, to_json
from pipeline.measure import controls, proofs
from pipeline.report import ReportData, figures, print_summary, write_report
from pipeline.store import read_json, write_json
from pipeline.track import Tracker
from pipeline.verdict import decide
from pipeline.workspace import Workspace


def analyse(work: Workspace) -> dict[str, Any]:
    """Turn outcomes into `curves.json` and `verdict.json`; return the verdict.

    Raises:
        UserError: there are no outcomes yet.
    """
    if not work.folder.outcomes.exists():
        read_json(work.folder.outcomes)  # raises with the remedy
    config = work.config
    points = curves(pl.read_parquet(work.folder.outcomes), work.rungs(), work.metrics, config.review)
    found = collapses(points, config.review)
    write_json(work.folder.curves, to_json(points, found))
    verdict = decide(points, found, _for_verdict(work), work.ledger.summary(), controls(work))
    write_json(work.folder.verdict, verdict)
    return verdict


def report(work: Workspace, tracker: Tracker) -> None:
    """Write `report.html`, print the same summary in the terminal, and give the tracker its summaries and figures."""
    folder = work.folder
    verdict = read_json(folder.verdict)
    roles = {rung.id: rung.role for rung in work.rungs()}
    run = ReportData(
        plan=read_json(folder.plan),
        verdict=verdict,
        points=read_json(folder.curves)["points"],
        ledger=work.ledger.summary(),
        controls=[proof.as_dict() | {"role": roles.get(name, "control")} for name, proof in proofs(work).items()],
    )
    write_report(run, folder.report)
    print_summary(run, work.console)
    drawn = figures(run)
    for task in work.plan["tasks"]:
        tracker.summary(task["arm"], task["seed"], _summary(verdict, task["arm"], task["seed"]), drawn)
    work.console.print(f"\nThe report: {folder.report}", soft_wrap=True)


def _for_verdict(work: Workspace) -> dict[str, Any]:
    """Return what the verdict needs of the plan."""
    review = work.config.review
    return {
        "plan_sha256": work.plan["plan_sha256"],
        "threat_model": review.threat_model,
        "thresholds": {
            "refusal": review.refusal_threshold,
            "capability_retention": review.capability_retention,
            "min_n": review.min_n,
            "confidence": review.confidence,
        },
        "arms": {
            name: {
                "adversarial": arm.adversarial,
                "threat": arm.threat,
                "seeds": list(work.config.seeds),
                "max_steps": arm.training.max_steps,
            }
            for name, arm in work.config.arms.items()
        },
    }


def _summary(verdict: dict[str, Any], arm: str, seed: int) -> dict[str, Any]:
    """Return a W&B run's summary: words of the verdict and numbers, no text of prompts or replies."""
    mine = verdict["arms"].get(arm, {})
    seeds = {entry["seed"]: entry for entry in mine.get("per_seed", []) if "seed" in entry}
    collapse = seeds.get(seed, {}).get("collapse") or {}
    return {
        "verdict": verdict["verdict"],
        "arm_verdict": mine.get("verdict", "inconclusive"),
        "plan_sha256": verdict["plan_sha256"],
        "censored": not collapse,
        **{f"collapse/{unit}": value for unit, value in collapse.items() if isinstance(value, int | float)},
    }
