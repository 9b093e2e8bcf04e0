"""The score stage: replies → outcomes.parquet, without accelerator or server: judging again never generates again."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from evals.base import EvalSpec
from pipeline.generate import read_replies
from pipeline.records import Reply, Rung
from pipeline.store import write_atomic
from pipeline.subject import Subject
from pipeline.workspace import Workspace

SCHEMA = pl.Schema(
    {
        "rung": pl.String,
        "arm": pl.String,
        "seed": pl.Int64,
        "step": pl.Int64,
        "role": pl.String,
        "eval": pl.String,
        "sample": pl.String,
        "draw": pl.Int64,
        "kind": pl.String,
        "label": pl.String,
        "value": pl.Float64,
        "probability": pl.Float64,
        "truncated": pl.Boolean,
        "judge": pl.String,
        "judge_version": pl.String,
    }
)


def score(work: Workspace) -> pl.DataFrame:
    """Score every reply and write `outcomes.parquet`, one row per reply in the plan's order; return the table."""
    rows = [row for rung in work.rungs() for row in _rung_rows(work, rung)]
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    write_atomic(work.folder.outcomes, buffer.getvalue())
    return table


def opened_reasoning(subject: Subject, tags: Sequence[str]) -> str:
    """Return the reasoning tag that the chat template opens on the model's behalf, "" where it opens none.

    A reply cut off inside such reasoning holds no tag of its own, and would be judged as if it were an answer.
    """
    prompt = subject.prompt_text("?").rstrip()
    return next((tag for tag in (pair.split()[0] for pair in tags) if prompt.endswith(tag)), "")


def _rung_rows(work: Workspace, rung: Rung) -> Iterator[dict[str, Any]]:
    by_eval: dict[str, list[Reply]] = {}
    for reply in read_replies(work.folder, [rung]):
        by_eval.setdefault(reply.eval, []).append(reply)
    prefix = opened_reasoning(work.subject, work.config.judge.reasoning)
    for spec in work.specs:
        yield from _eval_rows(work, rung, spec, by_eval.get(spec.eval.name, []), prefix)


def _eval_rows(
    work: Workspace, rung: Rung, spec: EvalSpec, replies: Sequence[Reply], prefix: str
) -> Iterator[dict[str, Any]]:
    place = {sample.id: (number, sample) for number, sample in enumerate(spec.eval.samples())}
    ordered = sorted(replies, key=lambda reply: (place[reply.sample][0], reply.draw))  # arrival order is chance
    outcomes = spec.eval.score_batch([(place[reply.sample][1], prefix + reply.reply) for reply in ordered])
    for reply, outcome in zip(ordered, outcomes, strict=True):
        yield {
            "rung": rung.id,
            "arm": rung.arm,
            "seed": rung.seed,
            "step": rung.step,
            "role": rung.role,
            "eval": reply.eval,
            "sample": reply.sample,
            "draw": reply.draw,
            "kind": place[reply.sample][1].kind,
            "label": outcome.label,
            "value": outcome.value,
            "probability": outcome.probability,
            "truncated": reply.finish_reason == "length",
            "judge": work.judge.name,
            "judge_version": work.judge.version,
        }
