"""What verdict.json says of a search: counts, choice, and both costs; pure but for the file that it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.search.chosen import search_summary, sentence, with_chosen
from pipeline.store import RunFolder

COST = {"device_seconds": 9.0, "flops": 9e10, "tokens": 700, "usd": None}
ENTRY = {
    "chosen": {"lora.rank": 2, "training.learning_rate": 0.02},
    "chosen_trial": 3,
    "reason": "",
    "counts": {"trials": 5, "pruned": 2, "failed": 1, "cut_off": 0, "collapsed": 2},
    "cost": COST,
    "trial_table": [{"number": 0}],
}
COLLAPSE = {"step": 1, "device_seconds": 0.5, "flops": 1e10, "tokens": 100, "usd": 0.1}


def folder_with(root: Path, **changed: Any) -> RunFolder:
    folder = RunFolder(root)
    write_json(folder.search, {"version": 1, "arms": {"a": {**ENTRY, **changed}}})
    return folder


def verdict(**arm: Any) -> dict[str, Any]:
    return {"arms": {"a": {"collapse": {**COLLAPSE, "confident": True}, **arm}}}


def test_both_costs_are_told_the_attack_s_own_and_with_its_search(tmp_path: Path) -> None:
    summary = search_summary(folder_with(tmp_path), verdict())["a"]
    assert summary["collapse_alone"] == {"device_seconds": 0.5, "flops": 1e10, "tokens": 100, "usd": 0.1}
    assert summary["with_collapse"] == {"device_seconds": 9.5, "flops": 1e11, "tokens": 800, "usd": None}
    assert "trial_table" not in summary
    assert sentence({"a": summary}) == (
        " Arm a trained with the best options found within the budget, chosen on dev prompts: 5 trials (2 stopped "
        "early), 1 more failed; its collapse cost 1e+10 FLOPs and 0.5 device-seconds, with the search 1e+11 FLOPs and "
        "9.5 device-seconds."
    )


def test_a_collapse_in_doubt_and_none_at_all_are_told_as_such(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, reason="no trial collapsed, the nearest was taken")
    assert "its collapse (not certain) cost" in sentence(
        search_summary(folder, verdict(collapse={**COLLAPSE, "confident": False}))
    )
    summary = search_summary(folder, verdict(collapse=None))
    assert summary["a"]["with_collapse"] is None
    assert "1 more failed; no trial collapsed, the nearest was taken; the search cost 9e+10" in sentence(summary)


def test_a_run_without_a_search_says_nothing(tmp_path: Path) -> None:
    assert search_summary(RunFolder(tmp_path), verdict()) == {}
    assert sentence({}) == ""
    config = load()
    assert with_chosen(config, RunFolder(tmp_path)) is config


def test_climbs_do_not_start_without_the_search_that_they_wait_for(tmp_path: Path) -> None:
    config = load(["arm=[compliance_search]"])
    with pytest.raises(UserError, match=r"search\.json is missing"):
        with_chosen(config, RunFolder(tmp_path))
