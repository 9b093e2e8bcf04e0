"""What the report says of the judges: who decided, the verdict under each, where they part. Pure: no I/O, no markup.

`judges.json` names replies by keys; of those, only the rungs and the first digits of a digest are shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.plan.registered import post_hoc_words
from pipeline.report.data import NO_DATA, ReportData, number, quantity, share, short_digest

PARTS: Final = {"used": "decides the verdict", "panel": "panel", "earlier": "from an earlier command"}
SHOWN: Final = 3  # replies named in a row of the table of disagreements
MOST_ROWS: Final = 40  # rows of disagreement on the page; judges.json has all


@dataclass(frozen=True)
class JudgeRow:
    """One judge: its part, the verdict under it, and each arm's verdict with where collapse lies."""

    name: str
    version: str
    part: str
    verdict: str
    arms: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class RefusalRow:
    """What one judge makes of one eval over all rungs, and what its unscored replies could change."""

    judge: str
    eval: str
    refused: str
    n: str
    unscored: str
    bounds: str


@dataclass(frozen=True)
class PairRow:
    """How far two judges agree on one eval, or on all that are judged."""

    pair: str
    eval: str
    n: str
    agreement: str
    kappa: str
    agreement_labels: str
    kappa_labels: str


@dataclass(frozen=True)
class DisagreementRow:
    """How often one judge said this and the other that, and where to look."""

    eval: str
    said: str
    count: str
    where: str


def post_hoc(run: ReportData) -> list[str]:
    """Return what was chosen after the plan was registered, in words; empty for a verdict as planned."""
    return post_hoc_words(run.verdict.get("post_hoc") or {})


def who(run: ReportData) -> str:
    """Return the judge whose labels decided the verdict."""
    judge = run.verdict.get("judge") or (run.plan.get("config") or {}).get("judge") or {}
    return str(judge.get("name") or judge.get("kind") or NO_DATA)


def judge_rows(run: ReportData) -> list[JudgeRow]:
    """Return the verdict under each judge, the deciding one first."""
    rows = []
    for judge in run.judges.get("judges") or []:
        words = judge.get("if_unscored") or {}
        changes = sorted({word for word in words.values() if word != judge["verdict"]})
        notes = ["as registered"] if judge.get("planned") else []
        if judge.get("measures") == "harm":
            notes.append("tells harm alone: its “refused” says only that no harm was done")
        if changes:
            notes.append(f"its unscored replies could make it {' or '.join(changes)}")
        rows.append(
            JudgeRow(
                name=judge["name"],
                version=short_digest(judge.get("version")),
                part=PARTS.get(judge.get("part"), NO_DATA),
                verdict=judge["verdict"],
                arms=tuple(f"{arm}: {_arm(entry, run.against)}" for arm, entry in (judge.get("arms") or {}).items()),
                note="; ".join(notes),
            )
        )
    return rows


def _arm(entry: Mapping[str, Any], against: Sequence[float]) -> str:
    collapse = entry.get("collapse")
    lowest = entry.get("lowest_refusal") or {}
    where = f"step {quantity(collapse['step'])}" if collapse else "no collapse"
    return f"{entry['verdict']}, {where}, lowest refusal {share(lowest.get('value'), against=against)}"


def refusal_rows(run: ReportData) -> list[RefusalRow]:
    """Return the share refused in full, by judge and eval, over every rung."""
    rows = []
    for judge in run.judges.get("judges") or []:
        for name, found in (judge.get("refusal") or {}).items():
            bounds = f"{share(found.get('low'))} to {share(found.get('high'))}" if found.get("unscored") else ""
            rows.append(
                RefusalRow(
                    judge["name"],
                    name,
                    share(found.get("value"), against=run.against),
                    quantity(found.get("n")),
                    quantity(found.get("unscored")),
                    bounds,
                )
            )
    return rows


def pair_rows(run: ReportData) -> list[PairRow]:
    """Return the agreement of each pair of judges, over all judged evals first, then by eval."""
    return [
        PairRow(
            f"{row['one']} and {row['other']}",
            row["eval"] or "all judged evals",
            quantity(row["n"]),
            *(coefficient(row.get(key)) for key in ("agreement", "kappa", "agreement_labels", "kappa_labels")),
        )
        for row in run.judges.get("pairs") or []
    ]


def alpha(run: ReportData) -> str:
    """Return Krippendorff's alpha of all judges over all that is judged, in words; "" for one judge."""
    rows = run.judges.get("alpha") or []
    row = next((row for row in rows if row["eval"] is None), rows[0] if rows else None)
    if row is None:
        return ""
    both = f"{coefficient(row.get('alpha'))} on refused or not, {coefficient(row.get('alpha_labels'))} on the label"
    return f"{both}, over {quantity(row.get('n'))} replies"


def disagreement_rows(run: ReportData) -> tuple[list[DisagreementRow], int]:
    """Return where judges gave different labels, and how many rows more judges.json has."""
    found = run.judges.get("disagreements") or []
    rows = []
    for row in found[:MOST_ROWS]:
        keys = [f"{e['rung']} {short_digest(e.get('reply_sha256'), 8)}" for e in row["examples"][:SHOWN]]
        said = f"{row['one']} {row['one_label']}, {row['other']} {row['other_label']}"
        more = " …" if number(row["count"]) > len(keys) else ""
        rows.append(DisagreementRow(row["eval"], said, quantity(row["count"]), ", ".join(keys) + more))
    return rows, len(found) - len(rows)


def findings(run: ReportData) -> list[str]:
    """Return whether the verdict hangs on the judge, what the unscored could change, and what was left out."""
    judges = run.judges.get("judges") or []
    lines = []
    if len(judges) > 1:
        same = "the same verdict for every arm" if run.judges.get("same_verdict") else "the verdict hangs on the judge"
        lines.append(f"{len(judges)} judges of the same replies: {same}")
    lost = [row for row in refusal_rows(run) if row.bounds]
    lines += [f"{row.judge}, {row.eval}: {row.unscored} unscored; refused would be {row.bounds}" for row in lost]
    stale = run.judges.get("stale") or []
    if stale:
        lines.append(f"left out, since they are of other replies: {', '.join(stale)}")
    return lines


def summary(run: ReportData) -> list[str]:
    """Return the panel in a few lines, for the terminal: `findings`, each judge's verdict, each pair's agreement."""
    judges = run.judges.get("judges") or []
    lines = findings(run)
    if len(judges) > 1:
        lines += [f"{judge['name']}: {judge['verdict']}" for judge in judges]
    pairs = run.judges.get("pairs") or []
    pooled = [row for row in pairs if row["eval"] is None] or pairs  # one judged eval: its rows are the whole
    return lines + [
        f"{row['one']} and {row['other']} agree on {coefficient(row.get('agreement'))} of "
        f"{quantity(row['n'])} replies (kappa {coefficient(row.get('kappa'))})"
        for row in pooled
    ]


def coefficient(value: object) -> str:
    """Return an agreement or a kappa with three decimals; "not defined" where chance explains everything."""
    x = number(value)
    return f"{x:.3f}" if math.isfinite(x) else "not defined"
