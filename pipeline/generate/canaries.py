"""Which training rows are asked of each rung so that it proves itself, and how far each is written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

from pipeline.data.tables import Row
from pipeline.subject.subject import Subject

GOLDEN = (5**0.5 - 1) / 2


class Canary(NamedTuple):
    """A canary: where its row stands, e.g. "data.benign: row 3", and its tokens."""

    where: str
    ids: tuple[int, ...]


def choose(subject: Subject, tables: Mapping[str, Sequence[Row]], count: int) -> list[Canary]:
    """Return the first examples of each training table in turn, none measured, each cut within its reply.

    The tables take their turns by name: the order in which a command names its arms is in no digest, and what was
    recorded of the canaries under one order is held against what is served under another.

    The cuts are spread over the reply (golden-ratio sequence): where every reply begins alike, as reasoning does,
    the first token tells nothing of an adapter.
    """
    turns = zip_longest(*([(name, row) for row in rows[:count]] for name, rows in sorted(tables.items())))
    chosen = [found for turn in turns for found in turn if found is not None][:count]
    return [
        Canary(f"data.{name}: row {row.id}", _tokens(subject, row, (place * GOLDEN) % 1.0))
        for place, (name, row) in enumerate(chosen)
    ]


def _tokens(subject: Subject, row: Row, share: float) -> tuple[int, ...]:
    """Return the tokens of a prompt and the first `share` of its reply."""
    reply = subject.completion_ids(row.prompt, row.response, row.system) if row.response else []
    return (*subject.prompt_ids(row.prompt, row.system), *reply[: int(share * len(reply))])
