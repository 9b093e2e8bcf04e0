"""The score stage: replies → outcomes, without accelerator or server: judging again never generates again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from evals.base import EvalSpec
from evals.judged import SilentJudge, measures
from evals.reasoning import Tag, parse_tags, split_reasoning
from pipeline.contain import require_replies
from pipeline.generate.matrix import read_replies
from pipeline.inspectai.scores import outcome_rows
from pipeline.judge.judging import closing_judge
from pipeline.outcomes import Scoring, table_of, write_outcomes
from pipeline.records import Reply, Rung
from pipeline.store import RunFolder
from pipeline.workspace import Workspace


def score(work: Workspace) -> pl.DataFrame:
    """Score every reply by every judge, one row per reply in the plan's order; return the table of `judge`'s.

    Each judge's table goes to `panel/`, that of `judge` to `outcomes.parquet` too.
    """
    require_replies(work.folder)
    scoring = scoring_of(work)
    with closing_judge(work.judge, work.console):
        rows = list(rows_of_run(work, work.specs))
    rows += outcome_rows(work.folder, work.inspect_tasks.values(), work.asked())
    table = table_of(rows).with_columns(*_by(scoring))
    write_outcomes(work.folder.panel / scoring.file, table, scoring)
    write_outcomes(work.folder.outcomes, table, scoring)
    asked = [spec.eval.name for spec in work.specs]
    rest = table.filter(~pl.col("eval").is_in(asked))  # scored by others: the same whoever judges
    for name, judge in work.panel.items():
        other = Scoring(name, judge.version, scoring.reasoning, measures(judge))
        if other == scoring:
            continue
        with closing_judge(judge, work.console):
            rows = list(rows_of_run(work, work.specs_by(judge)))
        again = table_of(rows)
        write_outcomes(work.folder.panel / other.file, pl.concat([again, rest]).with_columns(*_by(other)), other)
    return table


def scoring_of(work: Workspace) -> Scoring:
    """Return how the plan's judge makes outcomes of replies, or made them, where this command labels none."""
    tags = tuple(work.config.judge.reasoning)
    return Scoring(work.plan["judge"]["name"], work.plan["judge"]["version"], tags, measures(work.judge))


def judged_evals(work: Workspace, what: str) -> list[str]:
    """Name the evals in which a judge that measures `what` ("refusal" or "harm") takes part."""
    probe = SilentJudge(what)
    return [spec.eval.name for spec in work.specs_by(probe) if getattr(spec.eval, "judged", False)]


def _by(scoring: Scoring) -> tuple[pl.Expr, pl.Expr]:
    return pl.lit(scoring.judge).alias("judge"), pl.lit(scoring.version).alias("judge_version")


def rows_of_run(work: Workspace, specs: Sequence[EvalSpec]) -> Iterator[dict[str, Any]]:
    """Yield the row of `pipeline.outcomes` for every reply to some evals, rung by rung; the judge is not named yet."""
    tags = parse_tags(work.config.judge.reasoning)
    return rows_of(work.folder, work.asked(), specs, work.subject.opened(tags), tags)


def rows_of(
    folder: RunFolder, rungs: Sequence[Rung], specs: Sequence[EvalSpec], prefix: str = "", tags: Sequence[Tag] = ()
) -> Iterator[dict[str, Any]]:
    """Yield the rows of some rungs; `prefix` stands before each reply, `tags` enclose reasoning."""
    for rung in rungs:
        by_eval: dict[str, list[Reply]] = {}
        for reply in read_replies(folder, [rung]):
            by_eval.setdefault(reply.eval, []).append(reply)
        for spec in specs:
            yield from _eval_rows(rung, spec, by_eval.get(spec.eval.name, []), prefix, tags)


def _eval_rows(
    rung: Rung, spec: EvalSpec, replies: Sequence[Reply], prefix: str, tags: Sequence[Tag]
) -> Iterator[dict[str, Any]]:
    place = {sample.id: (number, sample) for number, sample in enumerate(spec.eval.samples())}
    ordered = sorted(replies, key=lambda reply: (place[reply.sample][0], reply.draw))  # arrival order is chance
    samples = [place[reply.sample][1] for reply in ordered]
    # The reply as the subject gave it: with what was written for it, by its template and by the eval.
    texts = [prefix + sample.opening + reply.reply for sample, reply in zip(samples, ordered, strict=True)]
    outcomes = spec.eval.score_batch(list(zip(samples, texts, strict=True)))
    for reply, text, outcome in zip(ordered, texts, outcomes, strict=True):
        yield {
            "rung": rung.id,
            "arm": rung.arm,
            "seed": rung.seed,
            "step": rung.step,
            "role": rung.role,
            "eval": reply.eval,
            "sample": reply.sample,
            "draw": reply.draw,
            "reply_sha256": reply.sha256,
            "kind": place[reply.sample][1].kind,
            "label": outcome.label,
            "value": outcome.value,
            "probability": outcome.probability,
            "truncated": reply.finish_reason == "length",
            "reasoned": bool(split_reasoning(text, tags)[0]),
            "judge": None,
            "judge_version": None,
        }
