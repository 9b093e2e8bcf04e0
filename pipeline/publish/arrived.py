"""Did everything arrive? What W&B's files hold, held against what the server says. Pure: no I/O.

`wandb sync` exits 0 also where nothing or half of a run arrived, so nothing is published before this agrees.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.publish.offline import LOST, Expected, Piece

_NAMED: Final = 3  # keys or files named in one line


@dataclass(frozen=True)
class Found:
    """One W&B run as the server tells it; see `Expected` for the fields."""

    rows: int
    metrics: frozenset[str]
    summary: Mapping[str, Any]
    files: Mapping[str, int]


def differences(expected: Iterable[Expected], found: Mapping[str, Found | None]) -> list[str]:
    """Return a line for each way in which the server does not have what the files hold; none: all is there.

    What the server has beyond that (its own keys and files) is no difference, but for rows: more of them than the
    files hold means that they were sent twice.
    """
    lines: list[str] = []
    for run in expected:
        there = found.get(run.run)
        lines += [f"{run.run}: {what}" for what in (["not there"] if there is None else _of_run(run, there))]
    return lines


def _of_run(run: Expected, there: Found) -> list[str]:
    lines = []
    if there.rows != run.rows:
        lines.append(f"{there.rows} history rows, {run.rows} in the files")
    if absent := sorted(run.metrics - there.metrics):
        lines.append(f"no history of {_some(absent)}")
    wrong = [key for key, value in run.summary.items() if not _same(value, there.summary.get(key))]
    if wrong:
        lines.append(f"another summary, or none, of {_some(sorted(wrong))}")
    if gone := sorted(name for name, size in run.files.items() if size == LOST):
        lines.append(f"not in the run folder any more: {_some(gone)}")
    lost = [name for name, size in run.files.items() if size not in (LOST, there.files.get(name))]
    if lost:
        lines.append(f"missing or cut: {_some(sorted(lost))}")
    return lines


def to_send(expected: Iterable[Expected], found: Mapping[str, Found | None]) -> list[Piece]:
    """Return the pieces that a sync can still add without sending a row twice, in their order.

    A sync appends. So a piece is sent only where the server has just the rows of the pieces before it; a run of
    which half a piece arrived cannot be mended by sending more, and is left alone.
    """
    pieces: list[Piece] = []
    for run in expected:
        there = found.get(run.run)
        if there is None:
            pieces += run.pieces
        elif not _of_run(run, there):
            continue
        elif (done := _whole_pieces(run.pieces, there.rows)) is not None:
            pieces += run.pieces[done:]
    return [piece for piece in pieces if not piece.online]


def _whole_pieces(pieces: Sequence[Piece], rows: int) -> int | None:
    """Return how many pieces, from the first, hold just this many rows; None where no number of them does."""
    total = 0
    for count, piece in enumerate(pieces):
        if total == rows:
            return count
        total += piece.rows
    return len(pieces) if total == rows else None


def _same(here: Any, there: Any) -> bool:
    if isinstance(here, bool) or isinstance(there, bool):
        return here is there  # 0 is not False
    numbers = all(isinstance(value, int | float) for value in (here, there))
    return math.isclose(here, there, rel_tol=1e-9) if numbers else bool(here == there)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
