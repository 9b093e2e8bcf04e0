"""What became of the stripped weights, in words. Pure."""

from __future__ import annotations

from typing import Any

from pipeline.report.data import ReportData


def gone(run: ReportData) -> dict[str, Any]:
    """Return `sentence`, `adapters` (each with its digests) and `kept` (whether any is kept encrypted)."""
    found = run.containment
    adapters = list(found.get("adapters") or [])
    return {"sentence": _sentence(found), "adapters": adapters, "kept": any(a.get("kept_sha256") for a in adapters)}


def _sentence(found: dict[str, Any]) -> str:
    state, at = found.get("state"), found.get("at")
    count = len(found.get("adapters") or [])
    if state is None:
        return "No data: this run has no record of them."
    if state == "there":
        return (
            "They are still in the run folder, readable by their owner alone, until all that was trained is measured; "
            "then they are destroyed."
        )
    differing = found.get("differing") or []
    kept = state == "kept, encrypted"
    did = "encrypted to the reviewer's keys, then destroyed" if kept else "destroyed"
    words = f"All {count} adapters were {did} with their checkpoints by {at}, each weighed before by its sha256."
    if differing:
        return f"{words} {len(differing)} were not what had been trained: {', '.join(differing)}."
    return words
