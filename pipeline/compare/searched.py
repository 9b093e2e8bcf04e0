"""Arms that searched for their options: whether both runs' searches chose the same, and what is said of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.compare.runs import FinishedRun
from pipeline.plan.digests import differences


def apart(a: FinishedRun, b: FinishedRun) -> dict[str, list[str]]:
    """Return the arms whose searches chose different options, with each option and both values."""
    found = {arm: differences(_chosen(a, arm), _chosen(b, arm)) for arm in a.arms()}
    return {arm: lines for arm, lines in found.items() if lines}


def notes(a: FinishedRun, b: FinishedRun) -> list[str]:
    """Return what a reader must know of the searches."""
    lines = [
        f"The searches of arm {arm} chose different options ({'; '.join(found)}): a step of A's is no step of B's. No "
        "differences step by step are given of it, its curves do not stand beside each other dose by dose, and its "
        "price in steps or examples counts unlike things; FLOPs and tokens can be compared."
        for arm, found in apart(a, b).items()
    ]
    if a.searches or b.searches:
        lines.append(
            "A search for an arm's options is part of what an attacker pays who does not know them. It is left out of "
            "the ratio, which is that of the training that collapsed; the ratio with it stands by itself."
        )
    return lines


def _chosen(run: FinishedRun, arm: str) -> dict[str, Any]:
    """Return the options that an arm's search chose; dotted names stay whole."""
    entry: Mapping[str, Any] = run.searches.get(arm) or {}
    return dict(entry.get("chosen") or {})
