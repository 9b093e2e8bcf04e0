"""Which examples an arm trains on: stated shares of the configured tables, drawn by the task's seed."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from pipeline.arms.base import Example, Task
from pipeline.data.tables import Row
from pipeline.errors import UserError
from pipeline.subject.subject import Subject


def shares(
    mix: Mapping[str, float], examples: int | None, available: Mapping[str, int], arm: str = "NAME"
) -> dict[str, int]:
    """Return how many examples each table gives.

    With `examples` null, as many as the tables allow at these shares. Rounding gives what is over to the largest
    remainders, so the counts add up. `arm` is the arm's name, for the error.

    Raises:
        UserError: a table holds fewer rows than its share asks for.
    """
    total = examples
    if total is None:
        total = min(math.floor(available[name] / share) for name, share in mix.items() if share > 0)
    exact = {name: total * share for name, share in mix.items()}
    counts = {name: math.floor(value + 1e-9) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: (counts[name] - exact[name], name))[: total - sum(counts.values())]:
        counts[name] += 1
    for name, count in counts.items():
        if count > available[name]:
            raise UserError(
                f"data.{name}: {count} examples are asked for, but the table holds {available[name]}",
                f"lower arms.{arm}.examples, or add rows",
            )
    return counts


def drawn(task: Task, tables: Mapping[str, Sequence[Row]]) -> list[tuple[str, Row]]:
    """Return the rows that a task trains on, each with its table's name: the same of a seed, in the same order.

    Raises:
        UserError: a table has too few rows.
    """
    mix = task.config.mix
    counts = shares(mix, task.config.examples, {name: len(tables[name]) for name in mix}, task.arm)
    chance = random.Random(f"{task.arm}/{task.seed}")
    rows = [(name, row) for name in sorted(counts) for row in chance.sample(list(tables[name]), counts[name])]
    chance.shuffle(rows)
    return rows


def draw(task: Task, subject: Subject, tables: Mapping[str, Sequence[Row]]) -> list[Example]:
    """Draw and tokenise the training examples of a task.

    Raises:
        UserError: a table has no replies to train on, or too few rows.
    """
    return [_tokenised(task.arm, table, row, subject) for table, row in drawn(task, tables)]


def _tokenised(arm: str, table: str, row: Row, subject: Subject) -> Example:
    if row.response is None:
        raise UserError(
            f"arms.{arm}: row {row.id} of data.{table} has no reply to train on",
            f"name the column with the replies: data.{table}.response=COLUMN",
        )
    prompt = subject.prompt_ids(row.prompt, row.system)
    return Example(tuple(prompt), tuple(subject.completion_ids(row.prompt, row.response, row.system)))
