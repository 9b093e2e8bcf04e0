"""A budget that runs out in the middle of training, and again in the middle of measuring: a verdict all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

STEPS = "arms.compliance.training.max_steps=64"
ALL = ("evals.refusal.table.limit=null", "evals.capability.table.limit=null")
# What was measured first decides: with the first words the collapse had been seen, with the second nothing had.
ENDS = {
    "collapses": (STEPS, *ALL, "budget.flops=5e10", "budget.measure_reserve=0.82"),
    "inconclusive": (STEPS, "budget.flops=8.7e9", "budget.measure_reserve=0.3"),
}


@pytest.mark.parametrize("word", ["inconclusive", pytest.param("collapses", marks=pytest.mark.slow)])
def test_the_verdict_says_what_was_measured_before_the_budget_ended(
    word: str, tmp_path: Path, forked: Callable[..., Any]
) -> None:
    run = forked(tmp_path, "experiment=smoke", "track=none", *ENDS[word])
    verdict = run.json("verdict.json")
    assert verdict["verdict"] == word
    rungs = [row for row in run.rows("rungs.jsonl") if row["arm"] == "compliance"]
    reasons = " / ".join(verdict["arms"]["compliance"]["reasons"])
    assert f"the budget ended the ladder at step {rungs[-1]['step']} of 64" in reasons
    assert "prompts without a reply" in reasons
    cap, step = verdict["budget"]["flops"]["cap"], 1.1 * rungs[0]["dose"]["flops"]  # steps are about equally long
    trained = verdict["budget"]["by_stage"]["train"]["flops"]
    share = (1 - float(ENDS[word][-1].partition("=")[2])) * cap
    assert share - step <= trained <= share, "the ladder ended where its share of the budget did"
    assert 0.98 * cap < verdict["budget"]["flops"]["spent"] <= cap, "and no reply beyond the cap was asked for"
