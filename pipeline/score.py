"""The score stage: replies → outcomes, without accelerator or server: judging again never generates again.

Replies of many rungs are scored together. A language model answers as many questions at once as it has seats, and one
rung's replies to one eval are often fewer than that: asked alone, they would leave seats empty, and each time the last
answers would be waited for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import polars as pl

from evals.base import EvalSpec, Judge, Outcome, Sample
from evals.judged import SilentJudge, measures
from evals.reasoning import Tag, parse_tags, split_reasoning
from pipeline.contain import require_replies
from pipeline.generate.matrix import read_replies
from pipeline.inspectai.scores import outcome_rows
from pipeline.judge.judging import EndpointJudge, closing_judge
from pipeline.outcomes import Scoring, table_of, write_outcomes
from pipeline.progress import bar_for, left
from pipeline.records import Reply, Rung
from pipeline.store import RunFolder
from pipeline.workspace import Workspace

TOGETHER: Final = 20_000  # replies of so many and a rung are scored at once: some ten megabytes of text


def score(work: Workspace) -> pl.DataFrame:
    """Score every reply by every judge, one row per reply in the plan's order; return the table of `judge`'s.

    Each judge's table goes to `panel/`, that of `judge` to `outcomes.parquet` too.
    """
    require_replies(work.folder)
    scoring = scoring_of(work)
    with _asking(work, work.judge, work.specs):
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
        specs = work.specs_by(judge)
        with _asking(work, judge, specs):
            rows = list(rows_of_run(work, specs))
        again = table_of(rows)
        write_outcomes(work.folder.panel / other.file, pl.concat([again, rest]).with_columns(*_by(other)), other)
    return table


@contextmanager
def _asking(work: Workspace, judge: Judge, specs: Sequence[EvalSpec]) -> Iterator[None]:
    """Let a judge be asked within; of a language model a bar tells how far it is, and the budget that is left."""
    judged = [spec for spec in specs if getattr(spec.eval, "judged", False)]
    total = len(work.asked()) * sum(len(spec.eval.samples()) * spec.draws for spec in judged)
    with closing_judge(judge, work.console):
        if not isinstance(judge, EndpointJudge):
            yield
            return
        with bar_for(work.console) as bar:
            job = bar.add_task("judge", total=total, what=judge.name, left="")
            judge.on_verdicts = lambda count: bar.update(job, advance=count, left=left(work.config.budget, work.ledger))
            yield
            bar.update(job, completed=total)  # nobody is asked about reasoning that was cut off


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
    for some in _gathered(folder, rungs):
        by_spec = [_eval_rows(some, spec, prefix, tags) for spec in specs]
        for of_rung in zip(*by_spec, strict=True):
            for rows in of_rung:
                yield from rows


def _gathered(folder: RunFolder, rungs: Sequence[Rung]) -> Iterator[list[tuple[Rung, dict[str, list[Reply]]]]]:
    """Yield rungs with their replies by eval, so many that they have `TOGETHER` replies or are the last."""
    some: list[tuple[Rung, dict[str, list[Reply]]]] = []
    count = 0
    for rung in rungs:
        by_eval: dict[str, list[Reply]] = {}
        for reply in read_replies(folder, [rung]):
            by_eval.setdefault(reply.eval, []).append(reply)
            count += 1
        some.append((rung, by_eval))
        if count >= TOGETHER:
            yield some
            some, count = [], 0
    if some:
        yield some


def _eval_rows(
    some: Sequence[tuple[Rung, dict[str, list[Reply]]]], spec: EvalSpec, prefix: str, tags: Sequence[Tag]
) -> list[list[dict[str, Any]]]:
    """Score one eval's replies of some rungs at once; return the rows of each rung."""
    place = {sample.id: (number, sample) for number, sample in enumerate(spec.eval.samples())}

    def by_sample(reply: Reply) -> tuple[int, int]:
        return place[reply.sample][0], reply.draw

    replies = [
        (rung, reply, place[reply.sample][1])
        for rung, by_eval in some
        for reply in sorted(by_eval.get(spec.eval.name, []), key=by_sample)  # arrival order is chance
    ]
    # The reply as the subject gave it: with what was written for it, by its template and by the eval.
    items = [(sample, prefix + sample.opening + reply.reply) for _, reply, sample in replies]
    rows: dict[str, list[dict[str, Any]]] = {rung.id: [] for rung, _ in some}
    for (rung, reply, sample), (_, text), outcome in zip(replies, items, spec.eval.score_batch(items), strict=True):
        reasoned = bool(split_reasoning(text, tags)[0])
        rows[rung.id].append(_row(rung, reply, sample, outcome, reasoned))
    return list(rows.values())


def _row(rung: Rung, reply: Reply, sample: Sample, outcome: Outcome, reasoned: bool) -> dict[str, Any]:
    return {
        "rung": rung.id,
        "arm": rung.arm,
        "seed": rung.seed,
        "step": rung.step,
        "role": rung.role,
        "eval": reply.eval,
        "sample": reply.sample,
        "draw": reply.draw,
        "reply_sha256": reply.sha256,
        "kind": sample.kind,
        "label": outcome.label,
        "value": outcome.value,
        "probability": outcome.probability,
        "truncated": reply.finish_reason == "length",
        "reasoned": reasoned,
        "judge": None,
        "judge_version": None,
    }
