"""From the configuration of an eval to its samples and its score: tables read, prompts written, the rule chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from evals import EVALS, RULES
from evals.base import Eval, Judge, Sample
from evals.prompts import Answer, Prompting, render
from pipeline.data.tables import read_table
from pipeline.errors import UserError
from pipeline.schema import EvalConfig, PromptConfig, TableConfig


def read_samples(
    name: str, config: EvalConfig, resolve: Callable[[str], str], where: str | None = None
) -> list[Sample]:
    """Read an eval's table and write its prompts.

    Args:
        name: the eval's name in the configuration, for errors.
        config: the eval.
        resolve: turns a path such as "organism:refusal.jsonl" into a real one.
        where: the table's configuration key, for errors; None: `evals.<name>.table`.

    Raises:
        UserError: a table has a fault (`pipeline.data.tables.read_table`), or a prompt can't be written
            (`evals.prompts.render`).
    """
    samples = _samples(config.table, where or f"evals.{name}.table", resolve)
    if config.prompt is None:
        return samples
    try:
        return render(samples, _prompting(config.prompt, f"evals.{name}.prompt", resolve))
    except ValueError as error:
        raise UserError(f"evals.{name}: {error}", f"mend evals.{name}.prompt, or the table") from None


def make_eval(
    name: str, config: EvalConfig, samples: Sequence[Sample], judge: Judge, tags: Sequence[str], role: str
) -> Eval:
    """Make an eval of its kind, with its rule where the kind has several.

    Raises:
        UserError: the samples are none that the kind can score, or the kind has no such rule.
    """
    rule = {} if config.rule is None else {"rule": config.rule}
    if rule and config.kind not in RULES:
        raise UserError(f"evals.{name}.rule: the kind {config.kind} has one rule", f"set evals.{name}.rule=null")
    try:
        return EVALS[config.kind](name, samples, judge, tags, role, **rule)
    except ValueError as error:
        raise UserError(f"evals.{name}: {error}", f"mend evals.{name} or its table") from None


def _prompting(config: PromptConfig, where: str, resolve: Callable[[str], str]) -> Prompting:
    shots = [] if config.shots is None else _samples(config.shots, f"{where}.shots", resolve)
    return Prompting(
        template=config.template,
        shot=config.shot,
        shots=tuple(shots),
        count=config.count,
        answer=cast(Answer, config.answer),  # `render` refuses any other
        shuffle_choices=config.shuffle_choices,
    )


def _samples(table: TableConfig, where: str, resolve: Callable[[str], str]) -> list[Sample]:
    rows = read_table(table, where=where, resolve=resolve)
    return [Sample(row.id, row.prompt, row.target, row.kind, row.system, row.choices) for row in rows]
