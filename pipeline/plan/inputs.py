"""A run's opened inputs as the facts that its plan is told: counts, digests, mean lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from evals.base import EvalSpec, Judge
from pipeline.data.tables import Row, table_sha256
from pipeline.inspectai.task import InspectTask
from pipeline.plan.facts import JudgeFacts, TableFacts, mean_tokens
from pipeline.schema import JudgeConfig
from pipeline.schema.sweep import SweepConfig
from pipeline.search.budget import SearchFacts
from pipeline.search.dev import DevEvals
from pipeline.subject.subject import Subject

ENOUGH: Final = 200  # rows for a mean length


def table_facts(rows: Sequence[Row], subject: Subject) -> TableFacts:
    """Return the facts of a training table, its lengths as the subject's template renders it."""
    some = rows[:ENOUGH]
    prompts = [len(subject.prompt_ids(row.prompt, row.system)) for row in some]
    responses = [len(subject.completion_ids(row.prompt, row.response or "", row.system)) for row in some]
    return TableFacts(len(rows), table_sha256(rows), mean_tokens(prompts), mean_tokens(responses))


def eval_facts(spec: EvalSpec, subject: Subject) -> TableFacts:
    """Return the facts of an eval's samples."""
    samples = spec.eval.samples()
    rows = [Row(s.id, s.prompt, None, s.target, s.kind, s.system) for s in samples]
    prompts = [len(subject.prompt_ids(s.prompt, s.system)) for s in samples[:ENOUGH]]
    return TableFacts(len(rows), table_sha256(rows), mean_tokens(prompts))


def search_facts(sweep: SweepConfig, dev: DevEvals, subject: Subject) -> SearchFacts:
    """Return the facts of the dev evals and the judge of an arm's search."""
    refusal, capability = (eval_facts(spec, subject) for spec in dev.specs)
    return SearchFacts(refusal, capability, judge_facts(sweep.judge.name, sweep.judge, dev.judge))


def task_facts(task: InspectTask, subject: Subject) -> TableFacts:
    """Return the facts of an Inspect task's samples."""
    prompts = [len(subject.prompt_ids(text)) for text in task.inputs[:ENOUGH]]
    return TableFacts(task.samples, task.sha256, mean_tokens(prompts))


def judge_facts(name: str | None, config: JudgeConfig, judge: Judge) -> JudgeFacts:
    """Return the facts of a judge by the name it goes by, else its kind."""
    return JudgeFacts(name or config.kind, config.kind, judge.version)
