"""What is missing on a server is found and said, and nothing is ever sent there twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.publish.arrived import Found, differences, to_send
from pipeline.publish.offline import LOST, Expected, Piece, expected_runs, piece_of


def piece(rows: int, name: str = "one", **changes: Any) -> Piece:
    made = Piece(Path(name), "a-0", "training", rows, frozenset({"train/loss"}), {"verdict": "holds", "x": 0.1}, {})
    return replace(made, **changes)


RUN = Expected("a-0", (piece(3, "one"), piece(2, "two", files={"f.json": 9})))
WHOLE = Found(
    5, frozenset({"train/loss", "dose/steps"}), {"verdict": "holds", "x": 0.1 + 1e-17, "more": 1}, {"f.json": 9}
)


def test_what_the_server_has_beyond_the_files_is_no_difference() -> None:
    assert differences([RUN], {"a-0": WHOLE}) == []
    assert to_send([RUN], {"a-0": WHOLE}) == []


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, "not there"),
        (replace(WHOLE, rows=4), "4 history rows, 5 in the files"),
        (replace(WHOLE, rows=10), "10 history rows, 5 in the files"),
        (replace(WHOLE, metrics=frozenset()), "no history of train/loss"),
        (replace(WHOLE, summary={"verdict": "collapses", "x": 0.1}), "another summary, or none, of verdict"),
        (replace(WHOLE, summary={}), "another summary, or none, of verdict, x"),
        (replace(WHOLE, files={}), "missing or cut: f.json"),
        (replace(WHOLE, files={"f.json": 8}), "missing or cut: f.json"),
    ],
)
def test_each_difference_is_said(found: Found | None, told: str) -> None:
    assert differences([RUN], {"a-0": found}) == [f"a-0: {told}"]


def test_no_data_in_a_summary_is_not_zero_and_not_false() -> None:
    run = Expected("a-0", (piece(1, summary={"x": 0, "y": False}),))
    found = Found(1, frozenset({"train/loss"}), {"x": False, "y": None}, {})
    assert differences([run], {"a-0": found}) == ["a-0: another summary, or none, of x, y"]


def test_a_file_that_is_gone_here_is_said() -> None:
    run = Expected("a-0", (piece(5, files={"f.json": LOST}),))
    assert differences([run], {"a-0": WHOLE}) == ["a-0: not in the run folder any more: f.json"]


def test_only_whole_pieces_that_the_server_lacks_are_sent() -> None:
    def sent(found: Found | None, run: Expected = RUN) -> list[str]:
        return [part.folder.name for part in to_send([run], {"a-0": found})]

    assert sent(None) == ["one", "two"]
    assert sent(replace(WHOLE, rows=0)) == ["one", "two"]
    assert sent(replace(WHOLE, rows=3)) == ["two"]
    assert sent(replace(WHOLE, rows=4)) == []  # half a piece
    assert sent(replace(WHOLE, rows=5, files={})) == []  # every row is there: sending would double them
    online = Expected("a-0", (piece(3, "one", online=True), piece(2, "two")))
    assert sent(None, online) == ["two"]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 40))
def test_a_sync_never_doubles_a_row(sizes: list[int], there: int) -> None:
    run = Expected("a-0", tuple(piece(rows, str(n)) for n, rows in enumerate(sizes)))
    found = Found(there, frozenset(), {}, {})
    added = sum(part.rows for part in to_send([run], {"a-0": found}))
    assert there + added in (there, run.rows)
    prefixes = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
    if there not in prefixes:
        assert added == 0


def test_the_pieces_of_one_id_are_one_run_and_the_last_summary_counts() -> None:
    [run] = expected_runs([piece(3, "one", summary={"old": 1}), piece(2, "two", summary={"new": 2})])
    assert (run.rows, run.summary) == (5, {"new": 2})


def test_records_without_a_run_are_no_piece() -> None:
    assert piece_of(Path("offline-run-x/run-x.wandb"), [{"type": "header", "header": {}}]) is None
