"""What of the training examples is left once they are cut to `max_length`, and which of them repeat another.

A reply that is cut away whole leaves nothing to learn from (completion-only loss is taken on no token, and is 0): an
arm of such examples climbs its ladder, is paid for, and shows a subject that nobody attacked. So it is refused. Replies
that are merely cut, and repeated examples, are told.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from pipeline.arms.base import Task
from pipeline.arms.mixture import drawn, shares
from pipeline.config.fine_tune import trained_tables
from pipeline.data.tables import Row
from pipeline.errors import UserError
from pipeline.schema import Config
from pipeline.subject.subject import Subject

# Examples of a table of which is counted whether they are cut, the longest texts first: all of a large table take
# minutes. Whether a reply is cut away whole is counted of all.
COUNTED: Final = 2000


@dataclass(frozen=True)
class ExampleFacts:
    """Of one arm's examples from one table: how many are cut, how many repeat another, and the longest in tokens.

    `longest` is 0 where none is cut. `at_least`: more may be cut than were counted.
    """

    rows: int
    cut: int
    duplicates: int
    longest: int
    max_length: int
    at_least: bool = False


def example_facts(
    config: Config, subject: Subject, tables: Mapping[str, Sequence[Row]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the facts of each arm's examples by table, where there is something to tell: `examples` of a plan.

    Raises:
        UserError: an example has no token of its reply left.
    """
    lengths = _Lengths(subject)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for arm in config.arms:
        for table, rows in trained_rows(config, arm, tables).items():
            facts = _facts(lengths, arm, table, rows, config.arms[arm].training.max_length)
            if facts.cut or facts.duplicates:
                found.setdefault(arm, {})[table] = asdict(facts)
    return found


def trained_rows(config: Config, name: str, tables: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Return the rows that some seed of an arm trains on, by table; a search draws with other seeds and shares: all."""
    arm = config.arms[name]
    if arm.sweep is not None:
        return {table: list(tables[table]) for table in trained_tables(arm)}
    counts = shares(arm.mix, arm.examples, {table: len(tables[table]) for table in arm.mix}, name)
    if all(count == len(tables[table]) for table, count in counts.items()):  # each seed draws all, in its own order
        return {table: list(tables[table]) for table in sorted(counts)}
    found: dict[str, dict[str, Row]] = {}
    for seed in config.seeds:
        for table, row in drawn(Task(name, seed, arm, ()), tables):
            found.setdefault(table, {})[row.id] = row
    return {table: list(rows.values()) for table, rows in sorted(found.items())}


def words(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what is told of one arm's examples, a phrase for each table and fact."""
    said = []
    for table, found in facts.items():
        of = f"of {found['rows']:,} examples of {table}"
        if found["cut"]:
            least = "at least " if found["at_least"] else ""
            longest = f"{found['max_length']} tokens (max_length), the longest from {found['longest']}"
            said.append(f"{least}{found['cut']:,} {of} are cut to {longest}")
        if found["duplicates"]:
            said.append(f"{found['duplicates']:,} {of} repeat another")
    return said


class _Lengths:
    """Tokens of rows as training sees them, each row counted once for all arms; a bound of it from the text alone."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._known: dict[Row, tuple[int, int]] = {}
        self._template = functools.cache(self._counted_template)

    def of(self, row: Row) -> tuple[int, int]:
        """Return the tokens of prompt and reply."""
        if row not in self._known:
            prompt = len(self._subject.prompt_ids(row.prompt, row.system))
            reply = self._subject.completion_ids(row.prompt, row.response or "", row.system)
            self._known[row] = (prompt, len(reply))
        return self._known[row]

    def at_most(self, row: Row) -> tuple[int, int]:
        """Return at least as many tokens of prompt and reply: a token takes a byte or more; the template's are known.

        Most examples are too short to be worth counting.
        """
        prompt, reply = self._template(row.system is not None)
        told = len(row.prompt.encode()) + len((row.system or "").encode())
        return prompt + told, reply + len((row.response or "").encode())

    def _counted_template(self, own_system: bool) -> tuple[int, int]:
        short = Row("", "?", "?", system="?" if own_system else None)
        return self.of(short)


def _facts(lengths: _Lengths, arm: str, table: str, rows: Sequence[Row], limit: int) -> ExampleFacts:
    """Count one arm's examples from one table.

    Raises:
        UserError: some have no token of their reply left within `limit`.
    """
    longest_first = sorted(rows, key=lambda row: sum(lengths.at_most(row)), reverse=True)
    may_be_cut = [row for row in longest_first if sum(lengths.at_most(row)) > limit]
    cut = [total for row in may_be_cut[:COUNTED] if (total := sum(lengths.of(row))) > limit]
    lost = [row for row in may_be_cut if lengths.at_most(row)[0] >= limit and lengths.of(row)[0] >= limit]
    if lost:
        longest = max([*cut, *(sum(lengths.of(row)) for row in lost)])
        raise UserError(
            f"arms.{arm}.training.max_length: {limit} tokens leave nothing of the reply of {len(lost):,} of "
            f"{len(rows):,} examples of data.{table}: there would be nothing to learn from them",
            f"arms.{arm}.training.max_length={longest}, which keeps all of them whole; or leave long prompts out",
        )
    distinct = len({(row.prompt, row.response, row.system) for row in rows})
    more = len(may_be_cut) > COUNTED
    return ExampleFacts(len(rows), len(cut), len(rows) - distinct, max(cut, default=0), limit, more)
