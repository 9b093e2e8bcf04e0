"""An attacker who asks k times beside the average user, where an eval was drawn more than once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pipeline.inference.attacker import BestOfK, Flips, best_of_k, flips
from pipeline.inference.tables import Ladders


def over_draws(ladders: Sequence[Ladders], arm: str, step: int, confidence: float) -> list[dict[str, Any]]:
    """Return, for each refusal metric with several draws, what k draws yield at rung 0 and at one step of an arm.

    `attacker` and `average` are shares of prompts that are not refused: in the best of k draws, and in one.

    Args:
        ladders: metrics that count refusal.
        arm: the arm's name.
        step: of its ladder; the caller picks one (collapse, or the last).
        confidence: coverage of each interval.
    """
    rows = []
    for metric in ladders:
        for at in dict.fromkeys((0, step)):
            refused = metric.replies(arm, at)
            if metric.draws < 2 or not refused.size:
                continue
            rows.append(
                {
                    "metric": metric.metric.name,
                    "step": at,
                    "k": [_row(found) for found in best_of_k(1 - refused, _ks(metric.draws), confidence)],
                    "flips": _flips(flips(refused, confidence)),
                }
            )
    return rows


def _ks(draws: int) -> list[int]:
    """Return powers of two up to the number of draws, and that number."""
    powers = [2**i for i in range(draws.bit_length()) if 2**i <= draws]
    return sorted({*powers, draws})


def _row(found: BestOfK) -> dict[str, Any]:
    return {
        "k": found.k,
        "attacker": found.attacker.as_dict(),
        "average": found.average.as_dict(),
        "left_out": found.left_out,
    }


def _flips(found: Flips) -> dict[str, Any]:
    return asdict(found) | {"both": found.both.as_dict(), "disagree": found.disagree.as_dict()}
