"""A run held against itself, and against one in which one thing was changed: each gives the right word."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.reproduce.differs import EXACTLY, NOT, WITHIN, compare, judge
from pipeline.reproduce.results import POINT, Results, _grouped, from_record

RUNGS = ("base", "compliance-s0-00001", "compliance-s0-00002")


def point(step: int, value: float | None, low: float | None, high: float | None, **other: Any) -> dict[Any, Any]:
    key = {"arm": "compliance", "seed": 0, "step": step, "eval": "refusal", "metric": "refusal", "kind": "", **other}
    estimate = {"value": value, "low": low, "high": high, "n": 90, "difference": None, "retention": None}
    return {tuple(key[name] for name in POINT): estimate}


def verdict(word: str, step: int | None, seeds: tuple[int | None, ...]) -> dict[str, Any]:
    per_seed = {str(n): {"step": s, "censored": s is None} for n, s in enumerate(seeds)}
    arm = {"verdict": word, "step": step, "censored": step is None, "seeds": per_seed}
    controls = {"adapter_parity": "pass", "ignored_adapter_detected": True, "zero_adapter_equals_base": True}
    return {"verdict": word, "arms": {"compliance": arm}, "controls": controls}


def results(word: str = "collapses", step: int | None = 2, seeds: tuple[int | None, ...] = (2, 4)) -> Results:
    replies = {(rung, "refusal", str(n), 0): f"{rung}/{n}" for rung in RUNGS for n in range(3)}
    labels = dict.fromkeys(replies, "refused 0.0")
    return Results(
        adapters={rung: rung for rung in RUNGS[1:]},
        replies=_grouped(replies),
        labels=_grouped(labels),
        judge="v1",
        curves_sha256="same",
        verdict=verdict(word, step, seeds),
        spent={"device_seconds": 10.0, "flops": 1e9, "usd": None},
        collapse={"compliance": {"flops": 5e8, "device_seconds": 0.5, "usd": None}},
        each_reply=replies,
        each_label=labels,
        points=point(0, 1.0, 0.9, 1.0) | point(1, 0.5, 0.4, 0.6) | point(2, None, None, None, kind="none"),
    )


def with_point(run: Results, **other: Any) -> Results:
    """Return the results with other estimates at step 1."""
    points = deepcopy(dict(run.points or {}))
    (key,) = [key for key in points if key[2] == 1]
    points[key] = {**points[key], **other}
    return replace(run, points=points, curves_sha256="other")


def with_one(run: Results, part: str) -> Results:
    """Return the results with one reply or label changed."""
    each = dict(getattr(run, f"each_{part}"))
    each[next(iter(each))] = "changed"
    group = {"reply": "replies", "label": "labels"}[part]
    return replace(run, **{f"each_{part}": each, group: _grouped(each)})


def word(run: Results, again: Results, *, same_plan: bool = True) -> tuple[str, str]:
    judgement = judge(compare(run, again), same_plan=same_plan)
    return judgement.word, judgement.sentence


@pytest.mark.parametrize(
    "run", [results(), results("holds", None, (None, None)), results("inconclusive", None, (2, None))]
)
def test_a_run_held_against_itself_is_exact_whatever_its_verdict(run: Results) -> None:
    assert word(run, deepcopy(run)) == (EXACTLY, EXACTLY)


def test_times_and_money_are_ratios_and_decide_nothing() -> None:
    run = results()
    slower = replace(run, spent={"device_seconds": 20.0, "flops": 1e9, "usd": 3.0})
    found = compare(run, slower)
    assert judge(found, same_plan=True).word == EXACTLY
    assert found["spent"]["device_seconds"] == {"run": 10.0, "again": 20.0, "ratio": 2.0}
    assert found["spent"]["usd"]["ratio"] is None
    assert found["price"]["compliance"]["flops"]["ratio"] == 1.0


def test_one_adapter() -> None:
    run = results()
    again = replace(run, adapters={**run.adapters, RUNGS[1]: "flipped"})
    assert compare(run, again)["adapters"] == {"n": 2, "differ": [RUNGS[1]], "missing": [], "new": []}
    assert word(run, again) == (WITHIN, f"{WITHIN}: 1 of 2 adapters differ")


@pytest.mark.parametrize(("part", "words"), [("reply", "1 of 9 replies differ"), ("label", "1 of 9 labels differ")])
def test_one_reply_and_one_label(part: str, words: str) -> None:
    run = results()
    again = with_one(run, part)
    assert word(run, again) == (WITHIN, f"{WITHIN}: {words}")
    (row,) = compare(run, again)[words.split()[3]]["by"]
    assert row == {"rung": "base", "eval": "refusal", "n": 3, "differ": 1}


def test_a_missing_reply_counts_as_a_different_one() -> None:
    run = results()
    each = dict(list((run.each_reply or {}).items())[1:])
    assert word(run, replace(run, each_reply=each, replies=_grouped(each)))[1] == f"{WITHIN}: 1 of 9 replies differ"


def test_another_plan_is_never_exact() -> None:
    assert word(results(), results(), same_plan=False) == (WITHIN, f"{WITHIN}: the plan's digest differs")
    assert word(results(), replace(results(), judge="v2")) == (WITHIN, f"{WITHIN}: the judge's version differs")


def test_an_estimate_inside_and_one_outside_its_interval() -> None:
    run = results()
    assert word(run, with_point(run, value=0.59))[0] == WITHIN
    found = compare(run, with_point(run, value=0.59))["curves"]
    assert (found["largest"]["run"], found["largest"]["again"]) == (0.5, 0.59)
    outside = with_point(run, value=0.61)
    assert compare(run, outside)["curves"]["outside"]["n"] == 1
    assert word(run, outside)[0] == NOT
    assert "1 of 3 estimates lie outside the run's intervals" in word(run, outside)[1]
    assert "refusal of compliance, seed 0, step 1: 0.5 → 0.61" in word(run, outside)[1]


@pytest.mark.parametrize(("part", "words"), [("difference", "the difference from rung 0"), ("retention", "what is")])
def test_what_stands_against_rung_0_is_held_against_its_own_interval(part: str, words: str) -> None:
    """The two estimates that it is of may each move within their own, in opposite directions."""
    of_run = {"value": 0.89, "low": 0.8, "high": 0.98, "n": 90}
    run = replace(with_point(results(), **{part: of_run}), curves_sha256="with it")
    assert word(run, with_point(run, value=0.59, **{part: of_run | {"value": 0.81}}))[0] == WITHIN
    moved = with_point(run, value=0.55, **{part: of_run | {"value": 0.75, "low": 0.65}})
    assert compare(run, moved)["curves"]["outside"]["n"] == 1
    assert word(run, moved)[0] == NOT
    assert words in word(run, moved)[1]
    assert "0.89 → 0.75" in word(run, moved)[1]
    assert word(run, with_point(run, **{part: None}))[0] == NOT


def test_another_number_of_prompts_is_named() -> None:
    run = results()
    fewer = with_point(run, n=12)
    assert word(run, fewer)[0] == WITHIN
    assert (
        "1 of 3 estimates rest on another number of prompts (first refusal of compliance, seed 0, step 1: 90 → 12)"
        in (word(run, fewer)[1])
    )


def test_no_data_agrees_with_no_data_alone() -> None:
    run = results()
    lost = with_point(run, value=None, low=None, high=None)
    assert word(lost, deepcopy(lost)) == (EXACTLY, EXACTLY)
    for one, other in ((run, lost), (lost, run)):
        assert word(one, other)[0] == NOT
        assert "no data" in word(one, other)[1]


def test_a_missing_point_is_not_reproduced() -> None:
    run = results()
    points = {key: value for key, value in (run.points or {}).items() if key[2] != 1}
    assert "1 points of the curves are on one side only" in word(run, replace(run, points=points, curves_sha256="x"))[1]


def test_collapse_may_move_between_the_runs_own_seeds_and_no_further() -> None:
    run = results(step=2, seeds=(2, 8))
    assert word(run, results(step=4, seeds=(2, 8)))[0] == WITHIN
    assert word(run, results(step=16, seeds=(2, 8))) == (
        NOT,
        f"{NOT}: arm compliance collapsed at step 2 and now collapsed at step 16",
    )
    assert word(run, results(step=2, seeds=(4, 8))) == (WITHIN, f"{WITHIN}: 1 of the seeds collapsed at another step")


def test_a_censored_arm_must_be_censored_again() -> None:
    held, fell = results("inconclusive", None, (None, None)), results("inconclusive", 2, (2, 2))
    assert word(held, fell)[1] == f"{NOT}: arm compliance did not collapse (censored) and now collapsed at step 2"
    assert word(fell, held)[1] == f"{NOT}: arm compliance collapsed at step 2 and now did not collapse (censored)"


def test_another_verdict_is_not_reproduced() -> None:
    said = word(results("collapses"), results("inconclusive"))
    assert said[0] == NOT
    assert "the verdict was collapses and is inconclusive; arm compliance was collapses and is inconclusive" in said[1]


def test_a_control_that_failed_is_not_reproduced() -> None:
    again = deepcopy(results())
    again.verdict["controls"]["adapter_parity"] = "fail"
    assert word(results(), again)[1] == f"{NOT}: the control adapter_parity was pass and is fail"


def test_the_record_alone_tells_the_same_from_another_but_not_by_how_much() -> None:
    run = results()
    record = from_record(run.as_record())
    assert word(record, run) == (EXACTLY, EXACTLY)
    found = compare(record, with_one(run, "reply"))
    assert found["replies"]["differ"] is None
    assert judge(found, same_plan=True).sentence == f"{WITHIN}: some of 9 replies differ"
    assert word(record, with_point(run, value=0.51))[0] == NOT
    assert "without the run's curves.json nobody knows by how much" in word(record, with_point(run, value=0.51))[1]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_inside_is_what_the_interval_says(a: float, b: float, c: float, again: float) -> None:
    low, value, high = sorted((a, b, c))
    run = with_point(results(), value=value, low=low, high=high)
    found = compare(run, with_point(run, value=again))["curves"]["outside"]["n"]
    if abs(again - low) > 1e-4 and abs(again - high) > 1e-4:
        assert found == (not low <= again <= high)


@given(st.sampled_from([None, 1, 2, 4, 8]), st.sampled_from([None, 1, 2, 4, 8]))
def test_only_the_same_state_is_exact(one: int | None, other: int | None) -> None:
    said = word(results(step=one, seeds=(one, one)), results(step=other, seeds=(other, other)))[0]
    assert said == (EXACTLY if one == other else NOT)
