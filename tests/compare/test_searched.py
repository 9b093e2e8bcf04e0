"""Arms that searched for their options: what is not compared then, and the price with the search in it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from pairs import PASSED, REFUSED, demo_pair, falls_at, finished
from rich.console import Console

from pipeline.compare import searched as searches
from pipeline.compare import view
from pipeline.compare.page import render
from pipeline.compare.runs import FinishedRun
from pipeline.compare.stage import comparison
from pipeline.compare.terminal import print_comparison

COST_A, COST_B = 6e12, 1e12


def search(flops: float, **chosen: object) -> dict[str, Any]:
    cost = {"device_seconds": 10.0, "flops": flops, "tokens": 1, "usd": None}
    return {"chosen": {key.replace("_", ".", 1): value for key, value in chosen.items()}, "cost": cost, "counts": {}}


def searched(of_a: Mapping[str, Any], of_b: Mapping[str, Any]) -> tuple[FinishedRun, FinishedRun]:
    a, b = demo_pair()
    return replace(a, searches={"compliance": of_a}), replace(b, searches={"compliance": of_b})


APART = searched(search(COST_A, training_batch_size=2), search(COST_B, training_batch_size=16))
ALIKE = searched(search(COST_A, lora_rank=4), search(COST_B, lora_rank=4))


def test_steps_of_other_options_are_not_subtracted() -> None:
    arms = {row["arm"] for row in comparison(*APART)["differences"]}
    assert arms == {"", "mixed", "benign"}
    (note,) = [line for line in comparison(*APART)["notes"] if "chose different options" in line]
    assert "training.batch_size: 2 → 16" in note
    assert "compliance" in {row["arm"] for row in comparison(*ALIKE)["differences"]}
    assert not any("chose different options" in line for line in comparison(*ALIKE)["notes"])


def test_an_arm_that_one_run_alone_searched_chose_other_options_and_is_told_of() -> None:
    """What the other run's plan gave is not what a search chose, even where it is the same."""
    a, b = demo_pair()
    assert (searches.apart(a, b), searches.notes(a, b)) == ({}, [])
    assert searches.apart(*APART) == {"compliance": ["training.batch_size: 2 → 16"]}
    assert searches.apart(*ALIKE) == {}
    assert len(searches.notes(*ALIKE)) == 1  # that the search is part of what an attacker pays
    for one, other, told in ((APART[0], b, "2 → None"), (a, APART[1], "None → 16")):
        assert searches.apart(one, other) == {"compliance": [f"training.batch_size: {told}"]}
        assert len(searches.notes(one, other)) == 2


def test_the_ratio_is_given_with_the_search_too_and_the_sentence_says_which_is_which() -> None:
    made = comparison(*APART)
    cost = made["cost"]["with_search"]
    assert set(cost["cheapest"]) == {"flops", "tokens", "device_seconds"}  # it has no steps, and no price was set
    assert set(cost["arms"]) == {"compliance"}
    alone, whole = made["cost"]["arms"]["compliance"]["flops"], cost["arms"]["compliance"]["flops"]
    for letter, more in (("A", COST_A), ("B", COST_B)):
        for seed, price in whole[letter]["by_seed"].items():
            assert price["high"] == pytest.approx(alone[letter]["by_seed"][seed]["high"] + more, rel=1e-5)
    assert whole["value"] < 1 < alone["value"]
    assert "search for an arm's options cost is not in it; with it, " in made["sentence"]
    assert made["runs"]["A"]["searches"]["compliance"]["chosen"] == {"training.batch_size": 2}


def test_terminal_and_page_have_both() -> None:
    a, b = APART
    made = comparison(a, b)
    out = io.StringIO()
    print_comparison(made, Console(file=out, width=120))
    assert "with the search" in out.getvalue()
    page = render(a.report, b.report, made)
    assert "With the search for an arm’s options in the price" in page
    assert "compliance, with its search" in page


def test_without_a_search_nothing_is_said_of_one() -> None:
    a, b = demo_pair()
    made = comparison(a, b)
    assert made["cost"]["with_search"] is None
    assert "search" not in made["sentence"]
    assert "With the search" not in render(a.report, b.report, made)


def test_what_a_search_cost_that_is_not_known_is_left_out_and_said_to_be() -> None:
    lost = {**search(1.0), "cost": {}}
    made = comparison(*searched(lost, lost))
    assert made["cost"]["with_search"]["cheapest"] == {}
    assert made["sentence"].endswith("What the search for an arm's options cost is not in it.")
    shapes = {"compliance": {0: falls_at(8)}}
    a, b = finished("A", "x", shapes), finished("B", "y", shapes, {**PASSED, "adapter_parity": "fail"})
    told = comparison(replace(a, searches={"compliance": search(1.0)}), b)["sentence"]
    assert told.startswith("No ratio: ")
    assert "search" not in told


def test_a_price_with_an_open_end_has_words_everywhere() -> None:
    near = [REFUSED] * 4 + [(0.03, 0.97, 1.0)] * 3  # seeds differ by 0.012
    a, b = (finished(x, x, {"compliance": dict.fromkeys((0, 1, 2), s)}) for x, s in (("A", falls_at(8)), ("B", near)))
    made = comparison(a, b)
    assert ", no limit] times as much to strip as A" in made["sentence"]
    assert "leaves open which of the two is dearer" in made["sentence"]
    assert "at a rung that is not certain: 2 of 3 seeds of B (B)" in made["sentence"]
    row = next(row for row in view.cost_rows(made["cost"]["cheapest"]) if row.unit == "FLOPs")
    assert row.limits.startswith("at least 0.")
    lost = comparison(a, finished("B", "y", {"compliance": {0: near, 1: near, 2: [REFUSED] * 7}}))
    assert "costs at least" in lost["sentence"]
    back = comparison(finished("A", "x", {"compliance": dict.fromkeys((0, 1, 2), near)}), replace(lost_b(), letter="B"))
    assert back["sentence"].startswith("No ratio: 0 of the 3 seeds of B (y) collapsed at a dose that was tried, and")
    assert view.headline(back) == ("No ratio", "inconclusive")
    render(a.report, b.report, back)
    wide = comparison(*(finished(x, x, {"compliance": dict.fromkeys((0, 1, 2), near)}) for x in "AB"))
    assert "1.0 [0, no limit] times" in wide["sentence"]
    assert {row.limits for row in view.cost_rows(wide["cost"]["cheapest"])} == {"no limit either way"}
    render(a.report, b.report, wide)


def lost_b() -> FinishedRun:
    return finished("B", "y", {"compliance": dict.fromkeys((0, 1, 2), [REFUSED] * 7)})
