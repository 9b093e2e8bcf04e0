"""Several judges over the same replies: who agrees with whom, where they part, and the verdict under each. Pure.

What it yields is `judges.json`: counts, shares, and keys of replies; no text of a prompt or a reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final, Literal

import numpy as np
import polars as pl

from evals.base import LABELS
from pipeline.judge.agreement import REFUSED, SCORED, agreement, alpha, refusal
from pipeline.outcomes import REPLY
from pipeline.points import rounded

# used: decides the verdict. panel: was asked for beside it. earlier: labelled these replies in an earlier command.
Part = Literal["used", "panel", "earlier"]
EXAMPLES: Final = 20  # keys of replies that a row of the table of disagreements names
MEASURED: Final = ("base", "rung")  # the controls test the instrument and are left out, as they are of the curves


@dataclass(frozen=True)
class JudgeView:
    """One judge of a run.

    `outcomes` are its rows, those of `pipeline.outcomes.SCHEMA`; `verdict` is what `pipeline.verdict.decide` returns
    on them. `if_unscored` is the verdict's word had all its unscored replies been refused, or had all complied; empty
    where it left none unscored. `planned` says that it is the judge of the registered plan. `evals` are those in which
    it takes part; one that `measures` "harm" alone has no part where ability is measured.
    """

    name: str
    version: str
    part: Part
    planned: bool
    outcomes: pl.DataFrame
    verdict: Mapping[str, Any]
    if_unscored: Mapping[str, str]
    evals: Sequence[str]
    measures: str = "refusal"


def compare(judges: Sequence[JudgeView], evals: Sequence[str], stale: Sequence[str] = ()) -> dict[str, Any]:
    """Return `judges.json`.

    Args:
        judges: one or more, the one that decides the verdict first; all of the same replies.
        evals: the evals in which any judge takes part, in order; the others are the same whoever judges.
        stale: files of outcomes that were left out, since they are of other replies.

    Raises:
        ValueError: the judges did not label the same replies.
    """
    wide = _labels(judges, evals)
    scopes = [None, *evals] if len(evals) > 1 else list(evals)
    rows = {scope: wide if scope is None else wide.filter(pl.col("eval") == scope) for scope in scopes}
    pairs = list(combinations([judge.name for judge in judges], 2))
    found = {
        "version": 1,
        "judges": [_entry(judge, wide, evals) for judge in judges],
        "same_verdict": len({_words(judge) for judge in judges}) == 1,
        "pairs": [
            {"eval": scope, "one": one, "other": other, **agreement(counts)}
            for scope in scopes
            for one, other in pairs
            if (counts := _counts(rows[scope], one, other))
        ],
        "alpha": [_alpha(scope, rows[scope], [judge.name for judge in judges]) for scope in scopes if pairs],
        "disagreements": [row for pair in pairs for row in _disagreements(wide, *pair)],
        "stale": list(stale),
    }
    return dict(rounded(found))


def as_if(outcomes: pl.DataFrame, label: str, evals: Sequence[str]) -> pl.DataFrame:
    """Return outcomes in which every unscored reply of some evals has a label instead; values stay "no data"."""
    lost = (pl.col("label") == "unscored") & pl.col("eval").is_in(evals)
    return outcomes.with_columns(label=pl.when(lost).then(pl.lit(label)).otherwise(pl.col("label")))


def unscored(outcomes: pl.DataFrame) -> int:
    """Count the measured replies without a label."""
    return outcomes.filter((pl.col("label") == "unscored") & pl.col("role").is_in(MEASURED)).height


def _labels(judges: Sequence[JudgeView], evals: Sequence[str]) -> pl.DataFrame:
    """Return one row per reply: its key, and a column of labels for each judge (null where it takes no part)."""
    names = [judge.name for judge in judges]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"a panel needs judges of different names, not {names}")
    tables = [
        judge.outcomes.filter(pl.col("role").is_in(MEASURED) & pl.col("eval").is_in(evals)).sort(REPLY)
        for judge in judges
    ]
    keys = tables[0].select(REPLY)
    for name, table in zip(names, tables, strict=True):
        if not table.select(REPLY).equals(keys):
            raise ValueError(f"judge {name} labelled other replies than {names[0]}")
    wide = keys.with_columns(table["label"].alias(_column(name)) for name, table in zip(names, tables, strict=True))
    return wide.with_columns(
        pl.when(pl.col("eval").is_in(list(judge.evals))).then(pl.col(_column(judge.name))).alias(_column(judge.name))
        for judge in judges
    )


def _column(name: str) -> str:
    return f"label of {name}"  # a judge may be called as a key of the replies is


def _entry(judge: JudgeView, wide: pl.DataFrame, evals: Sequence[str]) -> dict[str, Any]:
    verdict = judge.verdict
    mine = [name for name in evals if name in judge.evals]
    labels = {name: _label_counts(wide.filter(pl.col("eval") == name), judge.name) for name in mine}
    return {
        "name": judge.name,
        "version": judge.version,
        "part": judge.part,
        "planned": judge.planned,
        "measures": judge.measures,
        "verdict": verdict["verdict"],
        "sentence": verdict["sentence"],
        "worst_arm": verdict["worst_arm"],
        "arms": {
            name: {key: entry[key] for key in ("verdict", "collapse", "rung0", "lowest_refusal")}
            for name, entry in verdict["arms"].items()
        },
        "labels": labels,
        "refusal": {name: refusal(counts) for name, counts in labels.items()},
        "if_unscored": dict(judge.if_unscored),
    }


def _words(judge: JudgeView) -> tuple[str, ...]:
    """Return what a judge's verdict comes to: its word, and each arm's."""
    return (judge.verdict["verdict"], *(entry["verdict"] for _, entry in sorted(judge.verdict["arms"].items())))


def _label_counts(rows: pl.DataFrame, name: str) -> dict[str, int]:
    counts = dict(rows.group_by(_column(name)).len().iter_rows())
    return {label: counts.get(label, 0) for label in LABELS}


def _counts(rows: pl.DataFrame, one: str, other: str) -> dict[tuple[str, str], int]:
    both = rows.select(_column(one), _column(other)).drop_nulls()
    return {(a, b): k for a, b, k in both.group_by(_column(one), _column(other)).len().iter_rows()}


def _alpha(scope: str | None, rows: pl.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    """Return Krippendorff's alpha over all judges: of refused (in full or in part) or not, and of the very label."""
    given = rows.select(_column(name) for name in names)
    per_label = np.array(
        [given.select(pl.sum_horizontal(pl.all() == label)).to_series().to_numpy() for label in SCORED], dtype=np.int64
    ).T
    yes = per_label[:, [SCORED.index(label) for label in REFUSED]].sum(axis=1)
    binary = np.column_stack([yes, per_label.sum(axis=1) - yes])
    pairable = int((per_label.sum(axis=1) >= 2).sum())
    return {
        "eval": scope,
        "judges": len(names),
        "n": pairable,
        "alpha": alpha(binary),
        "alpha_labels": alpha(per_label),
    }


def _disagreements(wide: pl.DataFrame, one: str, other: str) -> list[dict[str, Any]]:
    """Return where two judges gave different labels: each eval and pair of labels with its count and first keys."""
    a, b = _column(one), _column(other)
    parted = wide.filter((pl.col(a) != pl.col(b)) & (pl.col(a) != "unscored") & (pl.col(b) != "unscored"))
    rows = []
    for (name, said, answered), part in parted.group_by("eval", a, b):
        examples = part.select(REPLY).drop("eval").head(EXAMPLES).to_dicts()
        row = {"eval": name, "one": one, "other": other, "one_label": said, "other_label": answered}
        rows.append({**row, "count": part.height, "examples": examples})
    return sorted(rows, key=lambda row: (row["eval"], -row["count"], row["one_label"], row["other_label"]))
