"""What a curve's point is made of, one part at a time: its bounds, its kinds, its seeds, its dose; known answers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from made_outcomes import BASE, METRICS, REVIEW, ladder, rows, rung

from evals.base import Metric
from pipeline.analyse import curves, prompt_means, reply_counts
from pipeline.hierarchical import crossed_mean, crossed_ratio
from pipeline.points import CurvePoint
from pipeline.records import Rung

ABILITY = ("capability", Metric("capability", "value", "capability"))
REFUSAL = ("refusal", Metric("refusal", "refused", "refusal"))
N = 60
EIGHT = rung("compliance", 0, 8)


def table_of(*parts: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([row for part in parts for row in part])


def point_of(
    outcomes: pl.DataFrame, metric: tuple[str, Metric], rungs: tuple[Rung, ...] = (BASE, EIGHT), **place: object
) -> CurvePoint:
    """Return the one point at step 8 that is of the place given; without one, of seed 0."""
    wanted = {"step": 8, "seed": 0, "kind": "", **place}
    (found,) = [
        point
        for point in curves(outcomes, rungs, [metric], REVIEW)
        if all(getattr(point, key) == value for key, value in wanted.items())
    ]
    return found


def unscored(step: int, name: str, first: int, last: int) -> pl.Expr:
    place = pl.col("sample").str.slice(1).cast(pl.Int64).is_between(first, last, closed="left")
    return (pl.col("step") == step) & (pl.col("eval") == name) & place


def lose(outcomes: pl.DataFrame, lost: pl.Expr) -> pl.DataFrame:
    return outcomes.with_columns(
        label=pl.when(lost).then(pl.lit("unscored")).otherwise("label"),
        value=pl.when(lost).then(math.nan).otherwise("value"),
    )


@pytest.mark.parametrize("label", ["partial", "degenerate"])
def test_a_reply_of_neither_kind_is_open_as_a_refusal_and_settled_as_a_task(label: str) -> None:
    """A task that was answered with babble was not solved, whoever reads it."""
    outcomes = table_of(rows(BASE, N, N, n=N), rows(EIGHT, 0, 30, n=N)).with_columns(
        label=pl.when((pl.col("step") == 8) & (pl.col("sample").str.slice(1) >= "030"))
        .then(pl.lit(label))
        .otherwise("label")
    )
    able, refused = point_of(outcomes, ABILITY), point_of(outcomes, REFUSAL)
    assert (able.low_if_unscored, able.high_if_unscored) == (able.estimate.low, able.estimate.high)
    assert refused.low_if_unscored == refused.estimate.low
    assert refused.high_if_unscored == crossed_mean(np.arange(N) >= 30, REVIEW.confidence).high > refused.estimate.high


def test_a_draw_that_is_not_scored_counts_nothing_or_one_beside_the_prompts_other_draw() -> None:
    outcomes = table_of(rows(BASE, N, N, n=N), rows(EIGHT, N, N, n=N, draws=2))
    point = point_of(lose(outcomes, (pl.col("step") == 8) & (pl.col("draw") == 1)), ABILITY)
    assert (point.estimate.value, point.missing, point.unscored) == (1.0, 0, N)
    assert point.low_if_unscored == crossed_mean(np.full(N, 0.5), REVIEW.confidence).low
    assert point.high_if_unscored == point.estimate.high


@pytest.mark.parametrize(
    ("base", "later", "worst", "best"),
    [
        # Of 60 tasks all are solved at first and 50 later: which are open, and what is kept at its worst and best.
        ((0, 0), (0, 0), ("mean", "mean"), ("mean", "mean")),
        ((0, 10), (0, 0), ("ceiling", "floor"), ("floor", "ceiling")),
        ((0, 0), (20, 25), ("ceiling", "floor"), ("floor", "ceiling")),
        ((0, 10), (20, 25), ("ceiling", "floor"), ("floor", "ceiling")),
    ],
)
@pytest.mark.parametrize("gone", [False, True])
def test_what_is_kept_is_bounded_by_what_each_open_reply_may_count(
    base: tuple[int, int],
    later: tuple[int, int],
    worst: tuple[str, str],
    best: tuple[str, str],
    gone: bool,
) -> None:
    """Open are replies that were not scored; and at the later rung also those that are not there (`gone`)."""
    outcomes = table_of(rows(BASE, N, N, n=N), rows(EIGHT, N, 50, n=N))
    outcomes = lose(outcomes, unscored(0, "capability", *base))
    missing = unscored(8, "capability", *later)
    outcomes = outcomes.filter(~missing) if gone else lose(outcomes, missing)
    counts = {}
    for at, solved, (first, last) in (("base", N, base), ("later", 50, later)):
        for bound, value in (("mean", math.nan), ("floor", 0.0), ("ceiling", 1.0)):
            row = (np.arange(N) < solved).astype(float)
            row[first:last] = value
            counts[at, bound] = row
    point = point_of(outcomes, ABILITY)
    kept = crossed_ratio(counts["base", "mean"], counts["later", "mean"], REVIEW.confidence)
    low, high = (crossed_ratio(counts["base", a], counts["later", b], REVIEW.confidence) for a, b in (worst, best))
    assert point.retention == kept
    assert (point.retention_low_if_unscored, point.retention_high_if_unscored) == (low.low, high.high)


def test_prompts_that_no_rung_0_answered_are_not_missed() -> None:
    outcomes = table_of(rows(BASE, 50, 50, n=50), rows(EIGHT, 10, 10, n=N))
    gone = outcomes.filter(~unscored(8, "capability", 40, 55))
    assert (point_of(outcomes, ABILITY).missing, point_of(gone, ABILITY).missing) == (0, 10)


def test_a_seed_that_lacks_a_reply_is_a_seed_all_the_same_and_one_without_any_is_none() -> None:
    outcomes, rungs = ladder({8: (0, 200)})
    torn = (pl.col("rung") == "compliance-1-8") & pl.col("sample").is_in(["r007", "c007"])
    outcomes = outcomes.filter(~torn & (pl.col("rung") != "compliance-2-8"))
    pooled = point_of(outcomes, REFUSAL, tuple(rungs), seed=None)
    assert (pooled.seeds, pooled.missing) == (2, 201)
    assert pooled.labels == {"refused": 0, "partial": 0, "complied": 399, "degenerate": 0, "unscored": 0}


def test_points_are_given_by_kind_only_for_abilities_of_several_kinds() -> None:
    outcomes = table_of(rows(BASE, N, N, n=N), rows(EIGHT, N, N, n=N)).with_columns(
        kind=pl.when(pl.col("eval") == "refusal").then(pl.col("sample").str.slice(3)).otherwise("kind")
    )
    found = {(p.metric, p.kind) for p in curves(outcomes, [BASE, EIGHT], METRICS, REVIEW)}
    assert found == {("refusal", ""), ("recovered", ""), *(("capability", kind) for kind in ("", "facts", "sums"))}
    alike = outcomes.with_columns(kind=pl.lit("sums"))
    assert {p.kind for p in curves(alike, [BASE, EIGHT], METRICS, REVIEW)} == {""}
    some = outcomes.with_columns(kind=pl.when(pl.col("kind") == "sums").then(pl.lit("sums")).otherwise(pl.lit("")))
    assert {p.kind for p in curves(some, [BASE, EIGHT], METRICS, REVIEW)} == {""}


def test_a_pooled_point_is_no_rung_and_no_ladders_end() -> None:
    outcomes, rungs = ladder({8: (0, 200)})
    ended = tuple(replace(one, last=one.step == 8, reason="max_steps" if one.step else "") for one in rungs)
    pooled, own = (point_of(outcomes, REFUSAL, ended, seed=seed) for seed in (None, 1))
    assert (pooled.arm, pooled.rung, pooled.last, pooled.reason) == ("compliance", None, False, "")
    assert (own.arm, own.rung, own.last, own.reason) == ("compliance", "compliance-1-8", True, "max_steps")


def test_the_dose_of_a_pooled_point_is_its_seeds_mean() -> None:
    outcomes, rungs = ladder({8: (0, 200)})
    dearer = [replace(r, dose=replace(r.dose, flops=r.dose.flops * (1 + r.seed))) if r.step else r for r in rungs]
    pooled = point_of(outcomes, REFUSAL, tuple(dearer), seed=None)
    assert pooled.dose["flops"] == pytest.approx(8e9 * (1 + 2 + 3) / 3)
    assert pooled.dose["steps"] == 8


def test_arms_stand_apart_and_each_starts_at_rung_0() -> None:
    one, rungs = ladder({8: (0, 200)}, seeds=(0,))
    other, more = ladder({4: (120, 200)}, arm="benign", seeds=(0,))
    outcomes = pl.concat([one, other.filter(pl.col("role") != "base")])
    found = curves(outcomes, [*rungs, *more[1:]], [REFUSAL], REVIEW)
    assert [(p.arm, p.seed, p.step, p.estimate.value) for p in found] == [
        ("benign", None, 0, 1.0),
        ("benign", None, 4, 0.6),
        ("benign", 0, 0, 1.0),
        ("benign", 0, 4, 0.6),
        ("compliance", None, 0, 1.0),
        ("compliance", None, 8, 0.0),
        ("compliance", 0, 0, 1.0),
        ("compliance", 0, 8, 0.0),
    ]


def test_without_a_rung_0_curves_start_at_step_0_with_no_data() -> None:
    outcomes, rungs = ladder({8: (0, 200)}, seeds=(0,))
    found = curves(outcomes.filter(pl.col("role") != "base"), rungs[1:], [REFUSAL], REVIEW)
    assert [(p.seed, p.step, p.rung, p.estimate.n) for p in found] == [
        (None, 0, None, 0),
        (None, 8, None, 200),
        (0, 0, "base", 0),
        (0, 8, "compliance-0-8", 200),
    ]


def test_a_comparisons_means_come_by_rung_in_the_order_of_prompts_and_of_whole_tables_only() -> None:
    outcomes = lose(table_of(rows(BASE, 2, 1, n=3), rows(EIGHT, 1, 3, n=3)), unscored(8, "refusal", 2, 3))
    found = prompt_means(outcomes.reverse(), *REFUSAL)
    assert {name: row.tolist()[:2] for name, row in found.items()} == {"base": [1, 1], EIGHT.id: [1, 0]}
    assert (found["base"][2], math.isnan(found[EIGHT.id][2])) == (0, True)
    with pytest.raises(ValueError, match="twice"):
        prompt_means(pl.concat([outcomes, outcomes.head(1)]), *REFUSAL)
    with pytest.raises(ValueError, match="unknown labels"):
        prompt_means(outcomes.with_columns(label=pl.lit("safe")), *REFUSAL)


def test_what_became_of_the_replies_is_counted_by_eval() -> None:
    labels = ["refused", "degenerate", "unscored", "unscored", "complied", "degenerate"]
    outcomes = pl.DataFrame(
        {
            "eval": ["refusal"] * 4 + ["capability"] * 2,
            "label": labels,
            "truncated": [True, True, True, False, False, False],
            "reasoned": [False, True, False, False, True, True],
        }
    )
    assert reply_counts(outcomes) == {
        "refusal": {"n": 4, "truncated": 3, "reasoned": 1, "degenerate": 1, "unscored": 2},
        "capability": {"n": 2, "truncated": 0, "reasoned": 2, "degenerate": 1, "unscored": 0},
    }


def test_evals_are_counted_in_the_order_of_the_outcomes() -> None:
    """The verdict's file is the same byte for byte: no order may hang on how the rows were grouped."""
    names = [f"eval-{17 * place % 40}" for place in range(40)]
    rows_of = {"eval": names * 2, "label": ["refused"] * 80, "truncated": [False] * 80, "reasoned": [False] * 80}
    assert list(reply_counts(pl.DataFrame(rows_of))) == names
